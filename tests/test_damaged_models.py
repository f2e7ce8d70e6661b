"""Files whose tensors can be read but are no model: misshapen, with NaN, changed on the way, or lying about themselves."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vc_core
from harness import goldens
from vc_core.checkpoint import Checkpoint, CheckpointError
from vc_core.checkpoint.convert import CONFIG_KEY
from vc_core.family.model_file import ModelFile
from vc_core.family.parts import PARTS
from vc_core.models.conditioning import Conditioning

pytestmark = pytest.mark.full

MODELS = ("t2v_512_v1", "t2v_512_v2", "i2v_512_v1", "dynamicrafter_512_v1")
UNET = "model.diffusion_model."

PREFIXES = tuple(part.prefix for part in PARTS.values())


@dataclass(frozen=True)
class Claimed:
    """A tensor of which a file says no more than the shape; `held` are its numbers where they are looked at."""

    shape: tuple[int, ...]
    held: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.held.dtype

    def read(self) -> torch.Tensor:
        return self.held

    def intact(self) -> bool:
        return True


@pytest.fixture
def identified(monkeypatch):
    """Opens a model of these tensors as a file's."""

    def run(tensors: dict[str, Claimed], metadata: dict[str, str] | None = None) -> ModelFile:
        monkeypatch.setattr("vc_core.family.two_files.open_checkpoint", lambda path: Checkpoint(path, tensors, metadata))
        return ModelFile.open("strange.ckpt")

    return run


def claimed(model: str) -> dict[str, Claimed]:
    return {name: Claimed(tuple(tensor.shape), tensor) for name, tensor in goldens.weights(model).items()}


#: What tells a model's form and sizes: a change there leads furthest astray.
TELLING = (
    "out.2.weight", "input_blocks.0.0.weight", "input_blocks.1.0.in_layers.2.weight", "input_blocks.2.0.op.weight", "latents",
    "init_attn.0.proj_in.weight", "attn2.to_k.weight", "embeddings_table", "conv_in.weight", "conv1.weight", "post_quant_conv.weight",
    "token_embedding.weight", "text_projection", "positional_embedding", "visual.proj", "proj_in.weight", "proj_out.weight", "to_q.weight",
    "layers.0.1.1.weight", "alphas_cumprod", "scale_arr",
)
TABLES = ("alphas_cumprod", "scale_arr", "positional_embedding", "token_embedding.weight", "text_projection", "proj", "latents")


@pytest.mark.parametrize("model", MODELS)
def test_any_other_shape_is_an_error_that_says_so(identified, model):
    sound, draw = claimed(model), random.Random(model)
    identified(sound)
    known = [name for name in sound if name.startswith(PREFIXES) or name in ("alphas_cumprod", "scale_arr")]
    telling = [name for name in known if name.endswith(TELLING)]
    for trial in range(24):
        name = draw.choice(telling if trial % 4 else known)
        shape = list(sound[name].shape)
        place = draw.randrange(len(shape) or 1)
        other = draw.choice([0, 1, 2, 3, 7, 33, 64, 2**20, 2**40])
        changed = draw.choice([[], [other], shape[:-1], [*shape, 1], [*shape[:place], other, *shape[place + 1 :]]])
        # Tables may have more or fewer rows: that is a model of another size.
        if tuple(changed) == sound[name].shape or name.endswith(TABLES) and len(changed) == len(shape) and 0 not in changed:
            continue
        with pytest.raises(CheckpointError):
            identified(sound | {name: replace(sound[name], shape=tuple(changed))})
            pytest.fail(f"{name} may be {changed}")


@pytest.mark.parametrize("model", MODELS)
def test_any_missing_tensor_is_an_error_that_says_so(identified, model):
    sound, draw = claimed(model), random.Random(model)
    parts = [name for name in sound if name.startswith(PREFIXES)]
    for name in [name for name in parts if name.endswith(TELLING)][:12] + draw.sample(parts, 8):
        with pytest.raises(CheckpointError):
            identified({other: tensor for other, tensor in sound.items() if other != name})
            pytest.fail(f"{name} may be missing")


@pytest.mark.parametrize(
    "description, said",
    [
        ("[" * 5000, "not YAML"),
        ("just text", "impossible model"),
        ("[1, 2]", "not a mapping of names to values"),
        ("{unet: {heads: 3}}", "unet.heads"),
        ("{text_encoder: {heads: 0}}", "text_encoder.heads is 0"),
        ("{text_encoder: {heads: -2}}", "text_encoder.heads is -2"),
        ("{schedule: {timesteps: 1000000000000}}", "schedule.timesteps is 1000000000000"),
        ("{schedule: {scale_steps: 10000000}}", "schedule.scale_steps is 10000000"),
        ("{schedule: {linear_end: .nan}}", "schedule.linear_end is nan"),
        ("{unet: {channel_mult: []}}", r"unet.channel_mult is \[\]|by the tensors"),
        ("title: ${oc.env:PATH}", "has a reference"),
        ("a: &a [x, x]\nb: &b [*a, *a]\ntitle: [*b, *b]", "an anchor, an alias or a tag"),
        ("title: " + "x" * 100_000, "100007 characters"),
        ("!!python/object/apply:os.system ['true']", "an anchor, an alias or a tag"),
        ("{sampling: {spacing: odd}}", "sampling.spacing"),
        ("projector: {heads: 0}", "projector.heads is 0"),
    ],
)
@pytest.mark.parametrize("model", ["t2v_512_v2"])
def test_descriptions_of_itself_that_a_file_may_not_have(identified, model, description, said):
    with pytest.raises(CheckpointError, match=said):
        identified(claimed(model), {CONFIG_KEY: description})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", [UNET + "out.2.bias", "first_stage_model.post_quant_conv.weight", "cond_stage_model.model.text_projection"]
)
def test_nan_and_infinity_are_found_when_a_model_is_loaded(tmp_path, name, value):
    broken = goldens.weights("t2v_512_v2")[name].clone()
    broken.view(-1)[-1] = value
    save_file(goldens.weights("t2v_512_v2") | {name: broken}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{name}' has 1 numbers of {broken.numel()} that are NaN or infinite"):
        load_all(tmp_path / "model.safetensors")


def test_a_bit_flipped_on_the_way_is_found_when_a_model_is_loaded(tmp_path):
    name = UNET + "out.2.bias"
    marked = torch.full_like(goldens.weights("t2v_512_v2")[name], 3.0)
    torch.save(goldens.weights("t2v_512_v2") | {name: marked}, tmp_path / "model.ckpt")
    content = bytearray((tmp_path / "model.ckpt").read_bytes())
    content[content.index(marked.numpy().tobytes())] ^= 1
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"'{name}' does not have the checksum"):
        load_all(tmp_path / "model.ckpt")


def load_all(path: Path) -> None:
    model = vc_core.load(path)
    _ = model.unet, model.encode_text(["a dog"]), model.decode(torch.zeros(1, 4, 1, 8, 8))


def test_a_model_as_lightning_saves_it_loads_by_its_tensors_alone(tmp_path):
    """With what its trainer keeps beside them: callbacks, hyper-parameters, loops, the states of optimizers and schedulers."""
    weights = goldens.weights("t2v_512_v2")
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    content = {
        "epoch": 9, "global_step": 80000, "pytorch-lightning_version": "1.9.3",
        "state_dict": weights,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_loop.batch_progress": {"total": {"ready": 5}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5), "dirpath": Path("checkpoints")}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
        "NativeMixedPrecisionPlugin": {"scale": 65536.0, "_growth_tracker": 12},
        "hparams_name": "kwargs",
        "hyper_parameters": {"unet_config": {"target": "lvdm.UNetModel", "params": {"in_channels": 4}}, "betas": (0.9, 0.999)},
    }
    torch.save(content, tmp_path / "model.ckpt")
    model = vc_core.load(tmp_path / "model.ckpt")
    golden = goldens.read("t2v_512_v2", "unet")
    ours = model.unet(golden["0.x"], golden["0.timesteps"], Conditioning(golden["0.context"], fps=golden["0.fps"]))
    assert goldens.error(ours, golden["0.y"]) <= goldens.PASS_TOLERANCE
