"""Comparisons with recordings of other sizes, texts, lengths and seeds than those in the repository; the subset that is tracked.

The recordings here are the core's own: what is tested is that everything is taken from them, not that the numbers are right.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dev import golden_subset
from harness import golden_contents, golden_runs, goldens
from harness.comfyui import REPOSITORY
from harness.goldens import Recording, Tensors
from vc_core.config import ModelConfig, load_config
from vc_core.family.model_file import meta_networks
from vc_core.family.parts import PARTS
from vc_core.models.text_encoder import tokenize

SEED = 12
CLIP = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 56, "layers": 1, "width": 48, "head_width": 12, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2},
}
TEXTS = ("An old sailor's boat, 1920: déjà-vu!", "two fish swim in an aquarium", "")
SIZES = {
    "unet": {
        "model_channels": 32,
        "channel_mult": [1, 2, 3],
        "num_res_blocks": 2,
        "attention_resolutions": [1, 2],
        "head_channels": 8,
        "context_dim": 64,
    },
    "autoencoder": {"channels": 32, "channel_mult": [1, 1, 2, 2], "num_res_blocks": 1, "scale_factor": 0.2},
    "text_encoder": {"width": 64, "heads": 4, "layers": 2, "embed_dim": 48},
}
IMAGE_SIZES = {
    "image_encoder": {"width": 48, "heads": 4, "layers": 1, "embed_dim": 48, "patch_size": 14, "image_size": 56},
    "projector": {
        "width": 32,
        "depth": 1,
        "heads": 3,
        "head_channels": 8,
        "queries": 48,
        "feature_dim": 48,
        "context_dim": 64,
        "ff_mult": 3,
    },
}
REFERENCE = {
    "t2v_512_v2": {"use_scale": True, "scale_b": 0.6, "linear_end": 0.0125},
    "dynamicrafter_512_v1": {
        "parameterization": "v",
        "rescale_betas_zero_snr": True,
        "use_dynamic_rescale": True,
        "base_scale": 0.5,
        "img_cond_stage_config": {"params": {"arch": "other_clip"}},
        "image_proj_stage_config": {"params": {"heads": 3, "dim_head": 8}},
    },
}


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def blank(root: Path, name: str) -> Recording:
    """The recording of a model of these sizes: its configuration, the list of its weights and its schedule."""
    folder = root / name
    folder.mkdir(parents=True)
    reference = {
        "scale_factor": 0.2,
        "unet_config": {"params": {}},
        "cond_stage_config": {"params": {"arch": "other_clip"}},
        **REFERENCE[name],
    }
    (folder / "config.json").write_text(json.dumps({"params": reference}))
    (root / "other_clip.json").write_text(json.dumps(CLIP))
    recorded = Recording(folder, SEED)
    sizes = SIZES if name in goldens.TEXT_TO_VIDEO else SIZES | IMAGE_SIZES
    config = load_config(sizes | {"schedule": recorded.schedule}, base=load_config(name))
    networks = meta_networks(config).items()
    shapes = [[PARTS[part].prefix + key, list(value.shape)] for part, network in networks for key, value in network.state_dict().items()]
    (folder / "manifest.json").write_text(json.dumps(shapes))
    save_file(schedule(config), folder / "schedule.safetensors")
    return recorded


def schedule(config: ModelConfig) -> dict[str, Tensor]:
    """The buffers, by the paper's formula in float64."""
    settings = config.schedule
    betas = torch.linspace(settings.linear_start**0.5, settings.linear_end**0.5, 1000, dtype=torch.float64) ** 2
    roots = (1 - betas).cumprod(0).sqrt()
    if settings.zero_terminal_snr:
        roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    scale = torch.cat([torch.linspace(1, settings.scale_end, 400, dtype=torch.float64), torch.full((1000,), settings.scale_end)])
    return {"alphas_cumprod": (roots**2).float(), "scale_arr": scale.float()}


def record_text_model(root: Path) -> None:
    """VideoCrafter2's form: one case, two runs of other lengths and numbers of videos."""
    recorded = blank(root, "t2v_512_v2")
    unet = {
        "3.x": noise(3, 4, 5, 4, 6),
        "3.timesteps": torch.tensor([3, 500, 999]),
        "3.context": noise(3, 77, 64),
        "3.fps": torch.tensor([4, 8, 30]),
    }
    encoders = {"tokens": tokenize(TEXTS)[:, 0], "image": noise(1, 3, 16, 24).clamp(-1, 1), "z": noise(1, 4, 3, 2)}
    sampling = {}
    for run, videos, steps, eta, guidance in (("0", 2, 4, 0.7, 6.0), ("7", 1, 2, 0.0, 1.0)):
        sampling |= {
            f"{run}.settings": torch.tensor([steps, eta, guidance, 12.0]),
            f"{run}.x_T": noise(videos, 4, 5, 4, 2),
            f"{run}.noise": noise(steps, videos, 4, 5, 4, 2),
        }
    write(recorded, unet=unet, encoders=encoders, sampling=sampling)
    model = goldens.load_recorded(recorded)
    unet["3.y"] = golden_runs.run_unet(model, recorded, "3")
    unet["3.unknown"] = torch.zeros(1)
    mean, _ = golden_runs.encode_moments(model, encoders["image"])
    encoders |= {"text": model.encode_text(TEXTS), "vae_mean": mean, "vae_decoded": golden_runs.decode(model, encoders["z"])}
    for run in ("0", "7"):
        result = golden_runs.run_sampling(model, recorded, run)
        sampling |= {f"{run}.pred_x0": torch.stack(result.predictions), f"{run}.latent": result.latent}
    sampling["0.video"] = golden_runs.run_sampling(model, recorded, "0").video.half()
    write(recorded, unet=unet, encoders=encoders, sampling=sampling)


def record_image_model(root: Path) -> None:
    """DynamiCrafter's form: three frames, whose tokens they share out, an image of another size than the video's."""
    recorded = blank(root, "dynamicrafter_512_v1")
    encoders = {"tokens": tokenize(TEXTS[1:])[:, 0], "photo": noise(1, 3, 32, 40).clamp(-1, 1)}
    sampling = {
        "0.settings": torch.tensor([3.0, 1.0, 7.5, 20.0, 1.0, 0.6, 2.0]),
        "0.x_T": noise(1, 4, 3, 2, 4),
        "0.noise": noise(3, 1, 4, 3, 2, 4),
        "0.concat": noise(1, 4, 3, 2, 4) * torch.tensor([1.0, 0.0, 1.0])[:, None, None],
    }
    write(recorded, encoders=encoders, sampling=sampling)
    model = goldens.load_recorded(recorded)
    text = model.encode_text(TEXTS[1:])
    tokens, null = (model.encode_image(images) for images in (encoders["photo"], torch.zeros_like(encoders["photo"])))
    encoders |= {
        "text": text[:1],
        "empty": text[1:],
        "z": golden_runs.encode_latent(model, encoders["photo"]),
        "image_features": golden_runs.image_features(model, encoders["photo"]),
        "image_tokens": tokens,
        "null_image_tokens": null,
    }
    result = golden_runs.run_sampling(model, recorded, "0")
    sampling |= {"0.pred_x0": torch.stack(result.predictions), "0.latent": result.latent}
    write(recorded, encoders=encoders, sampling=sampling)


def write(recorded: Recording, **files: dict[str, Tensor]) -> None:
    for kind, tensors in files.items():
        save_file({name: value.contiguous() for name, value in tensors.items()}, recorded.folder / f"{kind}.safetensors")
    recorded.files.clear()


def compare(folder: Path, seed: int = SEED) -> tuple[int, str]:
    """What ``make test-golden`` runs, on a folder of recordings: its exit status and output."""
    files = sorted((REPOSITORY / "tests").glob("test_golden_*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-m", "golden", "-p", "no:cacheprovider", *map(str, files)]
    environment = os.environ | {"GOLDEN": str(folder), "SEED": str(seed)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recordings")
    record_text_model(root)
    record_image_model(root)
    (root / "a_model_of_later").mkdir()
    (root / "a_model_of_later" / "published.json").write_text("{}")
    return root


@pytest.mark.full
def test_other_sizes_texts_and_seeds_are_compared(folder):
    status, output = compare(folder)
    assert status == 0, output
    assert f"recordings in {folder}, weights drawn with seed 12" in output
    said = {line for line in output.splitlines() if line.startswith("Not ")}
    assert said == {
        "Not read by any test: a_model_of_later/",
        "Not read by any test: t2v_512_v2/unet.safetensors: 3.unknown",
        "Not recorded: t2v_512_v2/encoders.safetensors: vae_logvar",
        "Not recorded: t2v_512_v2/sampling.safetensors: 7.video",
        "Not recorded: dynamicrafter_512_v1/unet.safetensors",
        "Not recorded: dynamicrafter_512_v1/sampling.safetensors: 0.video",
    }


@pytest.mark.full
def test_each_wrong_number_is_a_failure(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "changed")
    for model, kind, name in (
        ("t2v_512_v2", "unet", "3.y"),
        ("t2v_512_v2", "sampling", "7.latent"),
        ("dynamicrafter_512_v1", "encoders", "image_tokens"),
    ):
        tensors = dict(Tensors(folder / model / f"{kind}.safetensors"))
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[3] += 1e-4 * tensors[name].abs().max()
        save_file(tensors, tmp_path / "changed" / model / f"{kind}.safetensors")
    status, output = compare(tmp_path / "changed")
    failed = {line.split()[1].partition("::")[2] for line in output.splitlines() if line.startswith("FAILED")}
    assert status == 1
    assert failed == {"test_unet[t2v_512_v2-3]", "test_runs[t2v_512_v2-7]", "test_image_tokens[dynamicrafter_512_v1]"}


def test_texts_are_read_from_the_tokens(folder):
    recorded = Recording(folder / "t2v_512_v2", SEED)
    assert len(recorded.prompts) == 3 and recorded.prompts[-1] == ""
    assert recorded.prompts[1] == TEXTS[1] and "déjà" in recorded.prompts[0]
    assert torch.equal(tokenize(recorded.prompts), tokenize(TEXTS))


def test_the_subset_has_the_tables_one_case_and_the_shortest_run(folder, tmp_path):
    golden_subset.copy(folder, tmp_path / "subset")
    whole, part = (Recording(root / "t2v_512_v2", SEED) for root in (folder, tmp_path / "subset"))
    assert golden_contents.runs(whole) == ["0", "7"] and golden_contents.runs(part) == ["7"]
    assert set(part.read("schedule")) == set(whole.read("schedule"))
    assert torch.equal(part.read("sampling")["7.latent"], whole.read("sampling")["7.latent"])
    assert part.shapes == whole.shapes
    taken = {path.name.removesuffix(".gz") for path in (tmp_path / "subset").rglob("*")}
    assert taken == {path.name for path in folder.rglob("*")}


def test_the_tracked_recordings_are_small():
    assert golden_subset.size(goldens.DEFAULT_FOLDER) <= golden_subset.MOST
