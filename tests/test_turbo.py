"""T2V-Turbo beyond its recorded numbers: its files, its schedule, its settings, and what it shares with the base model."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import vc_core
from harness import golden_turbo, goldens
from harness.golden_turbo import GUIDANCE, V1, V2, ZERO
from vc_core.__main__ import main
from vc_core.checkpoint import CheckpointError
from vc_core.checkpoint.reading import open_tensor_list
from vc_core.config import load_config
from vc_core.diffusion.denoiser import GuidedDenoiser
from vc_core.diffusion.schedule import Schedule
from vc_core.errors import ConfigError, InputError
from vc_core.family.model_file import ModelFile
from vc_core.family.two_files import NO_GUIDANCE_BASE
from vc_core.fetch import published_files
from vc_core.kernels.operations import operations_for
from vc_core.lora.turbo_list import layers_of, pairs_by_layer
from vc_core.media.video import read_video
from vc_core.models.conditioning import Conditioning
from vc_core.models.layers import LayerFactory
from vc_core.models.time_embedding import scale_embedding
from vc_core.models.unet import UNet
from vc_core.sampling import Sampling, advice

SMALL = {"frames": 2, "height": 16, "width": 16}
STEPS = (1, 4, 8, 16, 26, 49, 50)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Version 1's list, and its base without the layer of guidance, as published; version 2's UNet and the file with its encoders."""
    folder = tmp_path_factory.mktemp("turbo")
    v1, whole = goldens.recording(V1), goldens.recording(V2).weights
    golden_turbo.write_base(v1, folder / "videocrafter2.safetensors", drawn=False)
    (folder / "unet_lora.pt").write_bytes(golden_turbo.write_list(v1, folder / "unet_lora.pt").read_bytes())
    encoders = {name: weight for name, weight in whole.items() if name.startswith(("first_stage_model.", "cond_stage_model."))}
    save_file({name: weight for name, weight in whole.items() if name not in encoders}, folder / "unet_mg.safetensors")
    schedule = goldens.recording("t2v_512_v2").read("schedule")
    tables = {name: schedule[name] for name in ("alphas_cumprod", "scale_arr")}  # the base's sample scale is not this model's
    save_file(load_file(folder / "videocrafter2.safetensors") | encoders | tables, folder / "videocrafter2.safetensors")
    return folder


def schedule() -> Schedule:
    return Schedule.from_config(load_config(V2).schedule)


@pytest.mark.parametrize("steps", STEPS)
def test_timesteps_fall_on_the_solver_s(steps):
    """Also where the number of steps doesn't divide the solver's."""
    visited = schedule().consistency(steps, 50).flip(0)
    assert len(visited) == steps and visited[0] == 999 and (visited.diff() < 0).all()
    assert ((visited + 1) % 20 == 0).all() and (visited.diff() == -20 * (50 // steps)).all()
    assert int(visited[-1]) == {4: 279, 26: 499}.get(steps, int(visited[-1]))


@pytest.mark.parametrize("steps, original", [(51, 50), (0, 50), (201, 200), (1, 0), (1, 1001)])
def test_more_steps_than_the_solver_s_are_refused(steps, original):
    expected = "original_steps is" if original in (0, 1001) else f"steps is {steps}; with consistency spacing it can be 1 to {original}"
    with pytest.raises(InputError, match=expected):
        schedule().consistency(steps, original)


def test_a_part_of_a_run_is_the_end_of_a_longer_one():
    assert schedule().visited(4, "consistency", 0.5).tolist() == schedule().consistency(8).tolist()[:4]
    with pytest.raises(InputError, match="4 steps at a denoise of 0.01 are a part of 400 steps, but the schedule has 200"):
        schedule().visited(4, "consistency", 0.01)


@pytest.mark.parametrize("original", [50, 200])
@pytest.mark.parametrize("start", [1000, 940, 400])
def test_an_earlier_start_is_the_solver_s_up_to_it(start, original):
    """As a solver of these steps alone would be taken from: none after the start, the last one first, evenly apart."""
    apart, steps = 1000 // original, 6
    visited = schedule().visited(steps, "consistency", original_steps=original, start=start)
    assert len(visited) == steps and visited[-1] == start - 1
    assert visited.diff().tolist() == [apart * (start // apart // steps)] * (steps - 1)


@pytest.mark.parametrize(
    "steps, start, message",
    [
        (5, 82, "steps is 5; with consistency spacing it can be 1 to 4, the number of steps up to start_timestep 82 from which"),
        (1, 19, "start_timestep is 19; with consistency spacing it can be 20 to 1000"),
        (1, 1001, "start_timestep is 1001; it can be 1 to 1000"),
    ],
)
def test_an_earlier_start_before_the_solver_s_steps(steps, start, message):
    with pytest.raises(InputError, match=message):
        schedule().visited(steps, "consistency", original_steps=50, start=start)


@pytest.mark.parametrize("name", [V1, V2])
def test_no_condition_is_the_base_model_bit_by_bit(name):
    """Without scales the new layers take no part; nor do they where their weights are zero."""
    model = golden_turbo.load(name)
    layers = LayerFactory(operations_for("cpu"))
    plain = UNet(replace(model.unet.config, guidance_embedding=False, motion_embedding=False), layers)
    weights = {key: value for key, value in model.unet.state_dict().items() if key in plain.state_dict()}
    plain.load_state_dict(weights)
    x, text, timesteps = torch.randn(1, 4, 4, 8, 8), model.encode_text(["a swan"]), torch.tensor([749])
    scales = {"guidance": torch.tensor([7.5]), "motion": torch.tensor([0.05])}
    with torch.inference_mode():
        expected = plain(x, timesteps, Conditioning(text))
        assert torch.equal(model.unet(x, timesteps, Conditioning(text)), expected)
        assert torch.equal(plain(x, timesteps, Conditioning(text, **scales)), expected)  # a model ignores what it has no input for
        assert not torch.equal(model.unet(x, timesteps, Conditioning(text, **scales)), expected)
        zero = UNet(model.unet.config, layers)
        zero.load_state_dict({key: weights.get(key, torch.zeros_like(value)) for key, value in model.unet.state_dict().items()})
        assert torch.equal(zero(x, timesteps, Conditioning(text, **scales)), expected)


def test_motion_guidance_is_zero_below_its_timesteps_and_per_frame():
    """A scale of 0 is another condition than none. With a timestep per frame each frame has its own."""
    model = golden_turbo.load(V2)
    embed, text = model.unet.embed, model.encode_text(["a swan"])
    x, guidance = torch.zeros(1, 4, 2, 8, 8), torch.tensor([7.5])

    def embedded(timesteps: list[list[int]] | list[int], motion: float | None, stop: float | None = None) -> torch.Tensor:
        rows = {"motion": None if motion is None else torch.tensor([motion]), "motion_stop": None if stop is None else torch.tensor([stop])}
        with torch.inference_mode():
            return embed(x, torch.tensor(timesteps), Conditioning(text, guidance=guidance, **rows))

    assert torch.equal(embedded([499], 0.05, 500.0), embedded([499], 0.0))
    assert torch.equal(embedded([500], 0.05, 500.0), embedded([500], 0.05))
    assert not torch.equal(embedded([499], 0.0), embedded([499], None)) and not torch.equal(embedded([499], 0.0), embedded([499], 0.05))
    both = embedded([[500, 499]], 0.05, 500.0)
    assert torch.allclose(both, torch.cat([embedded([500], 0.05), embedded([499], 0.0)]), atol=1e-6)
    with pytest.raises(InputError, match="motion is given without guidance"):
        model.unet(x, torch.tensor([1]), Conditioning(text, motion=torch.tensor([0.1])))


def test_a_scale_s_embedding_by_hand():
    """Sines first; the last of 128 frequencies is exactly 1/10000."""
    row = scale_embedding(torch.tensor([0.5]))[0].double()
    assert row[0] == pytest.approx(torch.tensor(500.0).double().sin().item(), abs=1e-6)
    assert row[127] == pytest.approx(torch.tensor(0.05).double().sin().item(), abs=1e-6)
    assert row[255] == pytest.approx(torch.tensor(0.05).double().cos().item(), abs=1e-6)


def test_videos_of_a_batch_have_scales_of_their_own():
    model = golden_turbo.load(V2)
    text = model.encode_text(["a swan", "a dog"])
    x, timesteps, guidance = torch.randn(2, 4, 3, 8, 8), torch.tensor([999, 749]), torch.tensor([5.0, 12.0])
    with torch.inference_mode():
        together = model.unet(x, timesteps, Conditioning(text, guidance=guidance))
        rows = [slice(0, 1), slice(1, 2)]
        apart = [model.unet(x[row], timesteps[row], Conditioning(text[row], guidance=guidance[row])) for row in rows]
    assert goldens.error(together, torch.cat(apart)) <= 1e-5


class TestFiles:
    def test_version_1_in_two_files(self, files, caplog):
        """What no file has is zero, and said. The base's sample scale is not taken over."""
        with caplog.at_level(logging.WARNING):
            file = ModelFile.open(files / "unet_lora.pt", base=files / "videocrafter2.safetensors")
        assert file.notes == (NO_GUIDANCE_BASE,) and NO_GUIDANCE_BASE in caplog.text
        assert file.config.unet.guidance_embedding and not file.config.unet.motion_embedding
        assert file.config.schedule == load_config(V1).schedule and file.config.unet.default_fps == 16
        expected = golden_turbo.load(V1, ZERO).unet.state_dict()
        assert all(torch.equal(weight, expected[name]) for name, weight in file.tensors("unet").items())

    def test_a_base_with_the_layer_is_used(self, tmp_path, files, caplog):
        base = golden_turbo.write_base(goldens.recording(V1), tmp_path / "base.safetensors")
        file = ModelFile.open(files / "unet_lora.pt", base=base)
        assert not file.notes and not caplog.records
        assert not torch.equal(file.tensors("unet")["time_cond_proj.weight"], golden_turbo.load(V1, ZERO).unet.time_cond_proj.weight)

    def test_version_2_in_two_files(self, files):
        """Its UNet is the file's own, the encoders are the base's."""
        model = vc_core.load(files / "unet_mg.safetensors", base=files / "videocrafter2.safetensors")
        whole = golden_turbo.load(V2)
        assert model.config.unet.motion_embedding and model.config.unet.default_fps == 8
        assert all(torch.equal(weight, whole.unet.state_dict()[name]) for name, weight in model.unet.state_dict().items())
        assert torch.equal(model.encode_text(["a swan"]), whole.encode_text(["a swan"]))
        alone = ModelFile.open(files / "unet_mg.safetensors")
        assert list(alone.parts) == ["unet"] and alone.config.unet == model.config.unet

    def test_converting_writes_one_complete_file(self, files, tmp_path, capsys):
        target, base = tmp_path / "turbo.safetensors", str(files / "videocrafter2.safetensors")
        assert main(["convert", str(files / "unet_lora.pt"), str(target), "--base", base, "--dtype", "float32"]) == 0
        one, two = vc_core.load(target), golden_turbo.load(V1, ZERO)
        assert one.config.unet.guidance_embedding and one.config.sampling.sampler == "consistency"
        assert all(torch.equal(weight, two.unet.state_dict()[name]) for name, weight in one.unet.state_dict().items())

    @pytest.mark.parametrize("command", ["info", "generate"])
    def test_a_list_by_itself_says_what_it_needs(self, files, command, capsys):
        arguments = ["a swan"] if command == "generate" else []
        assert main([command, str(files / "unet_lora.pt"), *arguments]) == 1
        error = capsys.readouterr().err
        assert "a list of 496 tensors without names" in error and "VideoCrafter2's" in error and "--base" in error

    def test_a_base_that_is_not_needed(self, files):
        base = files / "videocrafter2.safetensors"
        with pytest.raises(CheckpointError, match="has all parts of a model.*leave the base out"):
            ModelFile.open(base, base=base)

    def test_another_base(self, files, tmp_path):
        base = goldens.write_checkpoint("t2v_1024_v1", tmp_path / "base.safetensors")
        with pytest.raises(CheckpointError, match=r"a list of 496 tensors.*for each of the \d+ layers of this UNet"):
            ModelFile.open(files / "unet_lora.pt", base=base)

    @pytest.mark.parametrize("kind, message", [
        ("one is left out", "a list of 495 tensors"),
        ("two change places", r"time_embed.0 is \[128, 32\], its pair is up \[5, 32\] and down \[128, 5\]"),
        ("one is of no rank", r"up \[128, 0\] and down \[0, 32\]"),
        ("a number", "is a scalar|its pair is up"),
    ])
    def test_a_list_that_does_not_fit(self, files, tmp_path, kind, message):
        matrices = [each.read() for each in open_tensor_list(files / "unet_lora.pt")]
        if kind == "one is left out":
            del matrices[7]
        elif kind == "two change places":
            matrices[0], matrices[1] = matrices[1], matrices[0]
        elif kind == "one is of no rank":
            matrices[0], matrices[1] = matrices[0][:, :0].clone(), matrices[1][:0].clone()
        else:
            matrices[1] = torch.tensor(1.0)
        torch.save(matrices, tmp_path / "list.pt")
        with pytest.raises(CheckpointError, match=message):
            ModelFile.open(tmp_path / "list.pt", base=files / "videocrafter2.safetensors")

    def test_numbers_that_are_none_are_refused(self, files, tmp_path):
        matrices = [each.read() for each in open_tensor_list(files / "unet_lora.pt")]
        matrices[0][0, 0] = torch.nan
        torch.save(matrices, tmp_path / "list.pt")
        file = ModelFile.open(tmp_path / "list.pt", base=files / "videocrafter2.safetensors")
        with pytest.raises(CheckpointError, match="time_embed.0.weight.*NaN"):
            file.tensors("unet")

    @pytest.mark.parametrize("content", [[], ["a"], [torch.zeros(1), 3], (torch.zeros(1),), {"a": torch.zeros(1)}, torch.zeros(1)])
    def test_only_lists_of_tensors_are_lists(self, tmp_path, content):
        torch.save(content, tmp_path / "other.pt")
        assert open_tensor_list(tmp_path / "other.pt") is None

    def test_motion_guidance_needs_guidance(self):
        with pytest.raises(ConfigError, match="motion_embedding is true and unet.guidance_embedding is not"):
            load_config({"unet": {"motion_embedding": True}})


def test_the_list_s_order_does_not_depend_on_the_file_s():
    prefix = "model.diffusion_model."
    shapes = {name.removeprefix(prefix): shape for name, shape in goldens.recording(V1).shapes.items() if name.startswith(prefix)}
    shuffled = dict(sorted(shapes.items(), key=lambda item: hash(item[0])))
    assert layers_of(shapes) == layers_of(shuffled)
    assert "time_cond_proj" in layers_of(shapes) and not any(name.startswith("init_attn.0.proj") for name in layers_of(shapes))
    with pytest.raises(CheckpointError, match="The file is a list of 0 tensors"):
        pairs_by_layer([], shapes)


class TestSettings:
    def test_the_model_s_own(self):
        for name, fps in ((V1, 16.0), (V2, 8.0)):
            own = Sampling.of(load_config(name))
            assert (own.sampler, own.spacing, own.steps, own.original_steps) == ("consistency", "consistency", 8, 200)
            assert (own.guidance_scale, own.distilled_guidance, own.motion_guidance, own.fps) == (1.0, 7.5, 0.05, fps)
        assert Sampling.of(load_config("t2v_512_v2")).sampler == "ddim"

    @pytest.mark.parametrize("setting", [
        {"sampler": "lcm"}, {"spacing": "karras"}, {"original_steps": 0}, {"distilled_guidance": -1}, {"distilled_guidance": float("nan")},
        {"motion_guidance": 2}, {"motion_share": 1.5}, {"motion_share": float("nan")},
    ])
    def test_settings_that_are_wrong(self, setting):
        with pytest.raises(InputError, match=f"{next(iter(setting))} is "):
            Sampling.of(load_config(V2), **setting)

    def test_conditions_are_the_settings_where_there_are_none(self):
        config, text = load_config(V2).unet, torch.zeros(2, 77, 1024)
        given = Sampling.of(load_config(V2), motion_share=0.3).conditions(Conditioning(text, guidance=torch.tensor([4.0])), config)
        assert given.guidance.tolist() == [4.0] and given.motion.tolist() == pytest.approx([0.05] * 2) and given.fps.tolist() == [8.0] * 2
        assert given.motion_stop.tolist() == pytest.approx([700.0] * 2)
        off = Sampling.of(load_config(V2), motion_guidance=-1).conditions(Conditioning(text), config)
        assert off.motion is None and off.motion_stop is None and off.guidance is not None
        plain = Sampling().conditions(Conditioning(text), load_config("t2v_512_v2").unet)
        assert plain.guidance is None and plain.motion is None

    @pytest.mark.parametrize("changes, parts", [
        ({"steps": 50}, ["50 steps are set", "such as 8"]),
        ({"guidance_scale": 12.0}, ["The CFG scale is 12", "burns colours"]),
        ({"guidance_scale": 5.0}, ["The CFG scale is 5"]),
        ({"sampler": "ddim"}, ["The sampler is ddim", "distilled for consistency"]),
        ({"steps": 16}, []),
        ({}, []),
    ])
    def test_advice(self, changes, parts):
        config = load_config(V2)
        run = Sampling.of(config, **changes)
        found = advice(config, run.sampler, run.steps, run.guidance_scale)
        assert len(found) == bool(parts) and all(part in found[0] for part in parts)
        assert advice(load_config("t2v_512_v2"), "ddim", 50, 12.0) == []

    def test_cfg_is_honoured_with_a_warning_and_at_1_the_negative_is_not_read(self, caplog):
        model = golden_turbo.load(V2)
        red = model.text_to_video("a swan", "red", steps=2, guidance_scale=5.0, **SMALL)
        assert "The CFG scale is 5" in caplog.text and "negative prompt is not read" not in caplog.text
        assert not torch.equal(red, model.text_to_video("a swan", "blue", steps=2, guidance_scale=5.0, **SMALL))
        caplog.clear()
        alone = model.text_to_video("a swan", "red", steps=2, **SMALL)
        assert "negative prompt is not read" in caplog.text and "CFG scale is 5" not in caplog.text
        caplog.clear()
        assert torch.equal(alone, model.text_to_video("a swan", steps=2, **SMALL)) and not caplog.records

    def test_one_pass_a_step(self, monkeypatch):
        passes, run = [], GuidedDenoiser._run
        monkeypatch.setattr(GuidedDenoiser, "_run", lambda self, *args, **kwargs: passes.append(1) or run(self, *args, **kwargs))
        golden_turbo.load(V2).text_to_video("a swan", "red", steps=4, **SMALL)
        assert len(passes) == 4

    def test_scales_change_the_video_and_a_seed_decides(self):
        model = golden_turbo.load(V2)
        first = model.text_to_video("a swan", seed=5, steps=2, **SMALL)
        assert torch.equal(first, model.text_to_video("a swan", seed=5, steps=2, **SMALL))
        scales = {"distilled_guidance": 3.0, "motion_guidance": 0.2, "motion_share": 0.0, "fps": 16}
        for changes in ({"motion_guidance": -1.0}, *({name: value} for name, value in scales.items())):
            assert not torch.equal(first, model.text_to_video("a swan", seed=5, steps=2, **SMALL, **changes)), changes

    def test_video_to_video(self):
        model, video = golden_turbo.load(V2), torch.rand(1, 3, 2, 16, 16) * 2 - 1
        made = model.text_to_video("a swan", video=video, steps=2, denoise=0.5)
        assert made.shape == video.shape and made.isfinite().all()


def test_generate(files, tmp_path, capsys):
    target = tmp_path / "clip.mp4"
    arguments = ["--base", str(files / "videocrafter2.safetensors"), "--steps", "2", "--frames", "2", "--height", "16", "--width", "16"]
    scales = ["--distilled-guidance", "5", "--motion-guidance", "0.1", "--motion-share", "0.3", "--original-steps", "50"]
    assert main(["generate", str(files / "unet_mg.safetensors"), "a swan", *arguments, *scales, "--output", str(target)]) == 0
    assert read_video(target).shape == (3, 2, 16, 16)
    arguments[arguments.index("--steps") + 1] = "51"
    assert main(["generate", str(files / "unet_mg.safetensors"), "a swan", *arguments, *scales, "--output", str(target)]) == 1
    assert "--steps is 51; with consistency spacing it can be 1 to 50" in capsys.readouterr().err


def test_published_files_name_their_base():
    files = published_files()
    assert files[V1].base == files[V2].base == "t2v_512_v2" and files[V1].file == "unet_lora.pt" and files[V2].file == "unet_mg.pt"
    assert GUIDANCE.endswith("time_cond_proj.weight") and not files["t2v_512_v2"].base
