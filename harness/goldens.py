"""The reference's recorded numbers, the weights they were recorded with, and the measure that the core is held to.

Recordings are read from ``tests/data/golden``, or from the folder that the environment variable GOLDEN names; SEED is then the
seed of their weights, 11 unless set. Sizes, settings and texts come from the recording.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import vc_core
from harness.weights import weight
from vc_core.models.text_encoder import tokenize

DATA = Path(__file__).parents[1] / "tests" / "data"
DEFAULT_FOLDER, DEFAULT_SEED = DATA / "golden", 11
FOLDER = Path(os.environ.get("GOLDEN", DEFAULT_FOLDER))
SEED = int(os.environ.get("SEED", DEFAULT_SEED)) if "GOLDEN" in os.environ else DEFAULT_SEED
if not FOLDER.is_dir():
    raise NotADirectoryError(f"GOLDEN is {FOLDER}, which is no folder. Name one that holds a folder for each recorded model.")

TEXT_TO_VIDEO = ("t2v_512_v1", "t2v_1024_v1", "t2v_512_v2")
DYNAMICRAFTER = ("dynamicrafter_256_v1", "dynamicrafter_512_v1", "dynamicrafter_1024_v1")
VIDEOCRAFTER = (*TEXT_TO_VIDEO, "i2v_512_v1")
MODELS = (*VIDEOCRAFTER, *DYNAMICRAFTER)
#: Recordings in other forms than the base models'.
TURBO = ("t2v_turbo_v1", "t2v_turbo_v2")
LORA_FILES = "lora_files"
#: The loss of training and its gradients, of four models; the first folder holds what they share.
TRAINING = (
    "training_loss", "training_loss/dynamicrafter_512", "training_loss/dynamicrafter_512_interp", "training_loss/dynamicrafter_256",
    "training_loss/videocrafter",
)
#: The recordings that this process opened by :func:`recording`.
OPENED: list[Recording] = []
#: The texts of the recordings in ``tests/data``: VideoCrafter's rows of tokens, then DynamiCrafter's.
PROMPTS = ("a black swan swims on the pond", "Two galleons moving in the wind at sunset, 4k!", "")
DYNAMICRAFTER_PROMPTS = ("a boat sails, fireworks above", "")

#: Largest error of a single pass and of a sampling run, relative to a tensor's largest magnitude.
PASS_TOLERANCE, RUN_TOLERANCE = 1e-5, 5e-5
#: Largest difference of two ways to compute the same, one of them ComfyUI's, relative to a tensor's largest magnitude.
TOLERANCE = 1e-4
#: Largest error of a decoded pixel between -1 and 1: 0.1 of 255. Videos are stored in float16, which alone takes 0.03 of it.
PIXEL_TOLERANCE = 0.1 / 255 * 2


class Tensors(Mapping[str, Tensor]):
    """The tensors of one file, read when they are needed.

    Attributes:
        used: the names of those that were read.
    """

    def __init__(self, path: Path) -> None:
        self._file = safe_open(path, "pt")
        self._names: list[str] = list(self._file.keys())
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        self.used.add(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def groups(self) -> dict[str, set[str]]:
        """The names by case or run: ``{"0": {"x", "y"}, ...}`` for ``0.x``, ``0.y``."""
        found: dict[str, set[str]] = {}
        for name in self._names:
            group, dot, rest = name.partition(".")
            if dot and group.isdigit():
                found.setdefault(group, set()).add(rest)
        return found


class Recording:
    """What was recorded of one model.

    Attributes:
        folder: holds ``config.json``, ``manifest.json`` and the files of tensors; its name is the model's.
        seed: of the weights.
        model: which one of a method's folder that has recordings of several models.
        used: the names of the files that were read, but for those of tensors.
    """

    def __init__(self, folder: Path, seed: int, model: str | None = None) -> None:
        self.folder, self.seed, self.model = folder, seed, model
        self.files: dict[str, Tensors] = {}
        self.used: set[str] = set()

    @property
    def name(self) -> str:
        return self.folder.name

    def has(self, kind: str) -> bool:
        """Whether there is a file ``{kind}.safetensors``."""
        return (self.folder / f"{kind}.safetensors").exists()

    def read(self, kind: str) -> Tensors:
        """The file ``{kind}.safetensors``."""
        if kind not in self.files:
            self.files[kind] = Tensors(self.folder / f"{kind}.safetensors")
        return self.files[kind]

    def path(self, file: str) -> Path:
        """A file of the folder, which counts as read."""
        self.used.add(file)
        return self.folder / file

    def json(self, file: str) -> Any:
        """The content of a JSON file."""
        return read_json(self.path(file))

    @cached_property
    def shapes(self) -> dict[str, list[int]]:
        """Name to shape of every parameter in the checkpoint."""
        return {name: shape for name, shape in self._of_model("manifest.json")}

    @cached_property
    def reference_config(self) -> dict[str, Any]:
        """The parameters of the reference's own configuration."""
        parameters: dict[str, Any] = self._of_model("config.json")["params"]
        return parameters

    def _of_model(self, file: str) -> Any:
        content = self.json(file)
        return content[self.model] if self.model is not None and self.model in content else content

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The checkpoint as its authors would publish it: float16 weights, and the buffers of its schedule."""
        drawn = {name: torch.from_numpy(weight(name, shape, self.seed)) for name, shape in self.shapes.items()}
        schedule = self.read("schedule") if self.has("schedule") else {}
        return drawn | {name: schedule[name] for name in ("alphas_cumprod", "scale_arr") if name in schedule}

    def write_checkpoint(self, path: Path) -> Path:
        """Writes the checkpoint to a file and returns its path."""
        save_file(self.weights, path)
        return path

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """The text of each row of the recorded tokens; the runs use the first, with the last one, which is empty, as negative.

        A text is taken from those that are known to have been recorded where its tokens are the row's, and spelled from the
        tokens otherwise.
        """
        known = DYNAMICRAFTER_PROMPTS if self.name in DYNAMICRAFTER else PROMPTS
        if not self.has("encoders") or "tokens" not in self.read("encoders"):
            return known
        return tuple(_text(row, known) for row in self.read("encoders")["tokens"])

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What the reference's configuration says that tensors don't tell, in the terms of :class:`vc_core.config.ModelConfig`."""
        reference, config = self.reference_config, {"schedule": self.schedule}
        unet = reference["unet_config"]["params"]
        if "default_fs" in unet:
            config["unet"] = {"default_fps": unet["default_fs"]}
        if "scale_factor" in reference:
            config["autoencoder"] = {"scale_factor": reference["scale_factor"]}
        if (text := self._clip(reference.get("cond_stage_config"))) is not None:
            config["text_encoder"] = {"heads": text["text_cfg"]["heads"]}
        image = self._clip(reference.get("img_cond_stage_config", reference.get("cond_img_config")))
        if image is not None:
            vision = image["vision_cfg"]
            config["image_encoder"] = {"heads": vision["width"] // vision.get("head_width", 64)}
        if (resampler := self._resampler()) is not None:
            config["projector"] = {"heads": resampler["heads"], "head_channels": resampler["dim_head"]}
        return config

    def _resampler(self) -> dict[str, Any] | None:
        """The sizes of the image projector. VideoCrafter's are in its code: then those of a DynamiCrafter beside it, if they fit."""
        query = "image_proj_model.layers.0.0.to_q.weight"
        if query not in self.shapes:
            return None
        beside = [self.folder.parent / name / "config.json" for name in DYNAMICRAFTER]
        configs = [self.reference_config, *(json.loads(path.read_text())["params"] for path in beside if path.exists())]
        found = [config["image_proj_stage_config"]["params"] for config in configs if "image_proj_stage_config" in config]
        return next((each for each in found if each["heads"] * each["dim_head"] == self.shapes[query][0]), None)

    @property
    def schedule(self) -> dict[str, Any]:
        """The noise schedule of the reference's configuration, in the terms of :class:`vc_core.config.ScheduleConfig`."""
        reference = self.reference_config
        names = {
            "timesteps": "timesteps",
            "linear_start": "linear_start",
            "linear_end": "linear_end",
            "parameterization": "prediction",
            "rescale_betas_zero_snr": "zero_terminal_snr",
            "use_dynamic_rescale": "dynamic_rescale",
            "mid_step": "scale_steps",
            "turning_step": "scale_steps",
        }
        schedule = {ours: reference[theirs] for theirs, ours in names.items() if theirs in reference}
        if self.name in TURBO:  # whose sampler reads no scale, whatever the configuration says
            return {**schedule, "single_precision": True}
        if reference.get("use_scale"):
            schedule["scale_end"] = reference.get("scale_b", 0.3)
        elif reference.get("use_dynamic_rescale"):
            schedule["scale_end"] = reference.get("base_scale", 0.7)
        return schedule

    def _clip(self, stage: dict[str, Any] | None) -> dict[str, Any] | None:
        """OpenCLIP's sizes of an encoder, which lie beside the models' folders, or beside the folder of them."""
        if stage is None:
            return None
        paths = (folder / f"{stage['params']['arch']}.json" for folder in self.folder.parents[:2])
        sizes: dict[str, Any] | None = next((json.loads(path.read_text()) for path in paths if path.exists()), None)
        return sizes

    @property
    def complete(self) -> bool:
        """Whether the weights can be drawn."""
        return not self.missing_files

    @property
    def missing_files(self) -> list[str]:
        """The files without which the weights can't be drawn, and that are not there."""
        paths = (self.folder / file for file in ("config.json", "manifest.json"))
        return [path.name for path in paths if not path.exists() and not packed(path).exists()]


def _text(tokens: Tensor, known: Sequence[str]) -> str:
    for text in known:
        if torch.equal(tokenize([text], len(tokens))[0, 0], tokens):
            return text
    tokenizer = SimpleTokenizer()
    end = (tokens == tokenizer.eot_token_id).nonzero()[0, 0]
    spelled: str = tokenizer.decode(tokens[1:end].tolist())
    return spelled.strip()


@cache
def recording(folder: str, model: str | None = None) -> Recording:
    """The recording of a model, or of one of the models of a method."""
    recorded = Recording(FOLDER / folder, SEED, model)
    OPENED.append(recorded)
    return recorded


@cache
def load(model: str) -> vc_core.VideoModel:
    """The model of a recording, by its checkpoint and what its configuration says beyond that."""
    return load_recorded(recording(model))


def load_recorded(
    recorded: Recording, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> vc_core.VideoModel:
    """As :func:`load`, of a recording in any folder, on any device."""
    with TemporaryDirectory() as folder:
        path = recorded.write_checkpoint(Path(folder) / f"{recorded.name}.safetensors")
        return vc_core.load(path, config=recorded.configuration, device=device, dtype=dtype)


def models(names: Sequence[str] = MODELS) -> list[str]:
    """Those of the models that are recorded."""
    return [name for name in names if recording(name).complete]


def read(model: str, kind: str) -> Tensors:
    """One file of one model."""
    return recording(model).read(kind)


def weights(model: str) -> dict[str, Tensor]:
    """The checkpoint of a model, as its authors would publish it."""
    return recording(model).weights


def write_checkpoint(model: str, path: Path) -> Path:
    """Writes the checkpoint of a model to a file and returns its path."""
    return recording(model).write_checkpoint(path)


def prompts(model: str) -> tuple[str, ...]:
    """The texts of a model's recorded tokens, see :attr:`Recording.prompts`."""
    return recording(model).prompts


def packed(path: Path) -> Path:
    """The name of a file that is compressed."""
    return path.with_name(f"{path.name}.gz")


def read_json(path: Path) -> Any:
    """The content of a JSON file, which may lie there compressed, as long lists of names do to take little room."""
    return json.loads(path.read_bytes() if path.exists() else gzip.decompress(packed(path).read_bytes()))


def manifest(model: str) -> dict[str, list[int]]:
    """Name to shape of every tensor of a published checkpoint."""
    shapes: dict[str, list[int]] = read_json(DATA / "manifests" / f"{model}.json")
    return shapes


class ManifestFile:
    """Stands in for a published checkpoint: names and shapes of its tensors, without any numbers."""

    metadata: dict[str, str] = {}
    unreadable: dict[str, str] = {}

    def __init__(self, name: str, path: str = "", without: str = "") -> None:
        """``without`` leaves out the tensors with this in their names; the tables of the schedule, which need numbers, are never there."""
        self.path = Path(path or f"{name}.ckpt")
        self.shapes = {each: shape for each, shape in manifest(name).items() if not without or without not in each}

    def names(self) -> list[str]:
        return list(self.shapes)

    def shape(self, tensor: str) -> tuple[int, ...]:
        return tuple(self.shapes[tensor])

    def __contains__(self, tensor: object) -> bool:
        return tensor in self.shapes and tensor not in ("scale_arr", "alphas_cumprod")


def fps(tensors: Mapping[str, Tensor], case: str) -> Tensor | None:
    """Frames per second, or the frame stride, of a recorded case of the UNet."""
    return next((tensors[name] for name in (f"{case}.fs", f"{case}.fps") if name in tensors), None)


def error(ours: Tensor, golden: Tensor) -> float:
    """Largest difference, relative to the golden tensor's largest magnitude.

    Raises:
        AssertionError: their shapes differ.
    """
    assert ours.shape == golden.shape, (ours.shape, golden.shape)
    largest = golden.double().abs().max().item()
    return (ours.double() - golden.double()).abs().max().item() / (largest or 1.0)


def pixel_error(ours: Tensor, golden: Tensor) -> float:
    """Largest difference of a pixel between -1 and 1 after clamping.

    Raises:
        AssertionError: their shapes differ.
    """
    assert ours.shape == golden.shape, (ours.shape, golden.shape)
    return (ours.float().clamp(-1, 1) - golden.float().clamp(-1, 1)).abs().max().item()
