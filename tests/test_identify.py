"""Models are told apart by their tensors, whatever their sizes."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

import vc_core
from harness import goldens
from vc_core.checkpoint import CheckpointError
from vc_core.checkpoint.reading import open_checkpoint
from vc_core.config import load_config
from vc_core.diffusion.schedule import Schedule
from vc_core.errors import ConfigError
from vc_core.family.identify import identify
from vc_core.family.model_file import ModelFile, meta_networks
from vc_core.family.parts import PARTS
from vc_core.models.conditioning import Conditioning

#: Sizes that are in none of the published or recorded models.
OTHER_SIZES = {
    "unet": {
        "model_channels": 64, "channel_mult": [1, 3, 2], "num_res_blocks": 2, "attention_resolutions": [2], "head_channels": 32,
        "transformer_depth": 2, "context_dim": 64, "max_relative_position": 5, "temporal_conv": False, "fps_embedding": True,
    },
    "autoencoder": {"channels": 32, "channel_mult": [1, 2, 1], "num_res_blocks": 2},
    "text_encoder": {"width": 64, "heads": 1, "layers": 4, "embed_dim": 48, "vocab_size": 49408},
    "schedule": {"scale_end": 0.45, "scale_steps": 250},
}


PREFIXES = {name: part.prefix for name, part in PARTS.items()}


def write(config, path, prefixes=PREFIXES, parts=("unet", "autoencoder", "text_encoder"), buffers=True):
    """A file of random weights of a configuration."""
    torch.manual_seed(0)
    tensors = {}
    for part in parts:
        shapes = meta_networks(config)[part].state_dict()
        tensors |= {prefixes[part] + name: torch.randn(value.shape) * 0.05 for name, value in shapes.items()}
    if buffers:
        schedule = Schedule.from_config(config.schedule)
        tensors |= {"alphas_cumprod": schedule.alphas_cumprod, "scale_arr": schedule.scale}
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("name", goldens.MODELS)
def test_the_recorded_models_are_recognized(name, tmp_path):
    config = identify(open_checkpoint(goldens.write_checkpoint(name, tmp_path / "model.safetensors")))
    published = load_config(name)
    assert config.title == f"A model of the form of {name}"
    assert config.schedule == published.schedule and config.unet.default_fps == published.unet.default_fps
    recorded = goldens.recording(name)
    unet = recorded.reference_config["unet_config"]["params"]
    assert (config.unet.model_channels, config.unet.head_channels) == (unet["model_channels"], unet["num_head_channels"])
    assert config.unet.channel_mult == unet["channel_mult"] and config.unet.num_res_blocks == unet["num_res_blocks"]
    assert config.text_encoder.heads == recorded.configuration["text_encoder"]["heads"]


@pytest.mark.parametrize("name", goldens.MODELS)
def test_a_published_file_is_recognized_by_its_manifest(name):
    assert identify(goldens.ManifestFile(name)) == load_config(name)


def without_schedule(path):
    """A community file: the UNet and the projector of a DynamiCrafter, nothing else."""
    kept = ("model.", "image_proj_model.")
    tensors = {name: value for name, value in goldens.weights("dynamicrafter_512_v1").items() if name.startswith(kept)}
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("stem, name", [
    ("dynamicrafter_512_v1_pruned", "dynamicrafter_512_v1"),
    ("dynamicrafter_1024_v1_bf16", "dynamicrafter_1024_v1"),
    ("dynamicrafter_512_interp_v1_bf16", "dynamicrafter_512_interp_v1"),
    ("DynamiCrafter_Interp", "dynamicrafter_512_interp_v1"),
])
def test_models_of_the_same_tensors_are_told_apart_by_their_file(stem, name, tmp_path):
    config = ModelFile.open(without_schedule(tmp_path / f"{stem}.safetensors")).config
    assert (config.schedule, config.keyframes) == (load_config(name).schedule, load_config(name).keyframes)


def test_a_file_that_could_be_several_models_asks_which(tmp_path):
    path = without_schedule(tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match="could be any of dynamicrafter_1024_v1, dynamicrafter_512_interp_v1, dynamicrafter_512_v1"):
        ModelFile.open(path)
    chosen = ModelFile.open(path, {"name": "dynamicrafter_1024_v1"}).config
    assert chosen.schedule.scale_end == 0.3 and chosen.unet.default_fps == 10


@pytest.mark.parametrize("layout", ["state_dict", "module", "bare"])
def test_published_ckpt_layouts_load(layout, tmp_path):
    """Pickled, under ``state_dict``, under ``module`` with a prefix of 16 characters, or bare; beside it what trainers leave."""
    weights = goldens.weights("t2v_512_v2")
    trained = {"epoch": 3, "callbacks": {"checkpoint": {"best": 1.0}}, "optimizer_states": [{"state": {0: torch.zeros(2)}}]}
    content = {
        "state_dict": trained | {"state_dict": weights},
        "module": trained | {"module": {"_forward_module." + name: value for name, value in weights.items()}},
        "bare": weights,
    }[layout]
    torch.save(content, tmp_path / "model.ckpt")
    model = vc_core.load(tmp_path / "model.ckpt")
    golden = goldens.read("t2v_512_v2", "unet")
    ours = model.unet(golden["0.x"], golden["0.timesteps"], Conditioning(golden["0.context"], fps=golden["0.fps"]))
    assert goldens.error(ours, golden["0.y"]) <= goldens.PASS_TOLERANCE


def test_other_sizes_are_read_off_and_run(tmp_path):
    config = load_config(OTHER_SIZES)
    model = vc_core.load(write(config, tmp_path / "other.safetensors"))
    ours, theirs = asdict(model.config), asdict(config)
    for part in ("unet", "autoencoder", "text_encoder", "schedule"):
        changed = {key: value for key, value in theirs[part].items() if ours[part][key] != value}
        assert changed in ({}, {"default_fps": theirs["unet"]["default_fps"]}), part
    video = model.text_to_video("a dog", frames=5, height=24, width=40, steps=3)
    assert video.shape == (1, 3, 5, 24, 40) and video.isfinite().all()


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""])
def test_a_file_of_the_unet_alone(prefix, tmp_path):
    path = write(load_config(OTHER_SIZES), tmp_path / "unet.safetensors", {"unet": prefix}, parts=["unet"], buffers=False)
    model = vc_core.load(path)
    x, text = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 77, 64)
    assert model.unet(x, torch.tensor([7]), Conditioning(text)).shape == x.shape
    with pytest.raises(CheckpointError, match="no text encoder"):
        model.encode_text(["a dog"])
    with pytest.raises(CheckpointError, match="no autoencoder"):
        model.decode(x)


def test_a_given_configuration_fills_what_tensors_do_not_tell(tmp_path):
    path = write(load_config(OTHER_SIZES), tmp_path / "model.safetensors")
    assert ModelFile.open(path).config.text_encoder.heads == 1
    assert ModelFile.open(path, {"text_encoder": {"heads": 4}}).config.text_encoder.heads == 4


def test_a_contradicting_configuration_is_refused_with_both_values(tmp_path):
    path = write(load_config(OTHER_SIZES), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="unet.head_channels is 32 by the tensors and 64 by the configuration"):
        vc_core.load(path, config={"unet": {"head_channels": 64}})
    with pytest.raises(CheckpointError, match="scale_arr ends at 0.450000, the configuration's at 0.700000"):
        vc_core.load(path, config={"schedule": {"scale_end": 0.7}})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tables_in_half_precision_are_recognized(dtype, tmp_path):
    tensors = {name: value.to(dtype) for name, value in goldens.weights("t2v_512_v2").items()}
    save_file(tensors, tmp_path / "model.safetensors")
    assert ModelFile.open(tmp_path / "model.safetensors").config.schedule == load_config("t2v_512_v2").schedule


def test_another_noise_schedule_is_refused(tmp_path):
    config = load_config(OTHER_SIZES | {"schedule": {"linear_end": 0.013}})
    with pytest.raises(CheckpointError, match="trained with another noise schedule.*alphas_cumprod ends at"):
        vc_core.load(write(config, tmp_path / "model.safetensors"))


def test_wrong_tensors_are_all_listed(tmp_path):
    tensors = dict(goldens.weights("t2v_512_v2"))
    prefix = "model.diffusion_model."
    width = len(tensors.pop(prefix + "out.0.bias"))
    tensors[prefix + "out.0.weight"] = torch.ones(7)
    tensors[prefix + "extra"] = torch.ones(1)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        vc_core.load(tmp_path / "model.safetensors")
    for line in (f"missing {prefix}out.0.bias [{width}]", f"unexpected {prefix}extra", f"{prefix}out.0.weight is [7], expected [{width}]"):
        assert line in str(error.value)


def test_other_models_are_refused(tmp_path):
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}, tmp_path / "sd.safetensors")
    with pytest.raises(CheckpointError, match="without temporal transformers"):
        vc_core.load(tmp_path / "sd.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no UNet of the VideoCrafter family.*start with weight"):
        vc_core.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "config, message",
    [
        ("no_such_model", "no configuration 'no_such_model'"),
        ({"unet": {"widht": 3}}, "unet.widht"),
        ({"unet": {"model_channels": "wide"}}, "unet.model_channels"),
        ({"unet": {"model_channels": 48}}, "48 channels at level 0"),
        ({"unet": {"head_channels": 48}}, "must be a multiple of head_channels, 48"),
        ({"text_encoder": {"heads": 7}}, "must be a multiple of heads, 7"),
        ({"text_encoder": {"width": 512}}, "they must be equal"),
    ],
)
def test_bad_configurations(config, message):
    with pytest.raises(ConfigError, match=message):
        load_config(config)
