"""Fine-tuning from clips to a file: resuming, several processes, what is written, and that the file does what was trained."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import DistributedType
from safetensors import safe_open
from safetensors.torch import load_file

import vc_core
from harness import goldens
from harness.comfyui import REPOSITORY
from harness.judge import as_pixels, foreground, judge
from tests.training_clips import CYAN, write_clips
from vc_core.__main__ import main
from vc_core.errors import ConfigError, InputError
from vc_core.family.bundled import bundled_models
from vc_core.lora.writing import UNET_PREFIX
from vc_core.models.conditioning import Conditioning
from vc_core.training.finetune import Run
from vc_core.training.lora import ExportError, check_export, merged_weights, without_lora
from vc_core.training.options import PRESETS, read_options
from vc_core.training.settings import TrainerSettings
from vc_core.training.state import read_state
from vc_core.training.trainer import Interrupted, Trainer, make_accelerator

#: The settings of a run that takes a second.
QUICK = {
    "model": "videocrafter_tiny_t2v", "device": "cpu", "preset": "style", "clips.frames": 2, "clips.height": 32, "clips.width": 32,
    "clips.strides.stride_max": 2, "clips.buckets": "false", "trainer.updates": 4, "trainer.batch": 2, "trainer.accumulate": 1,
    "trainer.warmup": 0, "trainer.save_every": 2, "trainer.learning_rate": 0.01, "lora.rank": 4, "checkpointing": "false",
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_clips(tmp_path_factory.mktemp("training") / "clips", 6)


def changes(clips: Path, output: Path, **settings: object) -> list[str]:
    named = {name.replace("__", "."): value for name, value in settings.items()}
    values = {**QUICK, "data": clips, "output": output, "cache": clips.parent / "cache", **named}
    return [f"{name}={value}" for name, value in values.items()]


def run_of(clips: Path, output: Path, **settings: object) -> Run:
    return Run(read_options(None, changes(clips, output, **settings)), lambda line: None)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = read_state(folder / "state.pt")["module"]
    return weights


# --- going on with a run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{"trainer__accumulate": 2}, {"dropout": 0.1, "lora__dropout": 0.2, "trainer__ema": 0.9, "checkpointing": "true"}]
)
def test_a_resumed_run_is_equal_to_the_bit(clips, tmp_path, settings):
    whole = run_of(clips, tmp_path / "whole", **settings)
    path = whole.train()
    first = run_of(clips, tmp_path / "parts", **settings)
    first.trainer.run(until=2)
    said = []
    second = Run(read_options(None, changes(clips, tmp_path / "parts", **settings)), said.append)
    learned, expected = load_file(second.train()), load_file(path)
    assert learned.keys() == expected.keys() and all(torch.equal(learned[name], value) for name, value in expected.items())
    assert f"Resumed after update 2 of 4, in epoch {settings.get('trainer__accumulate', 1)}." in said  # 8 or 4 samples of 6 clips
    expected = weights_of(tmp_path / "whole")
    for name, value in weights_of(tmp_path / "parts").items():
        assert torch.equal(value, expected[name]), name


def test_curves_go_on_where_they_were(clips, tmp_path):
    first = run_of(clips, tmp_path)
    first.train()
    rows = list(csv.DictReader((tmp_path / "loss.csv").open()))
    assert [row["update"] for row in rows] == ["1", "2", "3", "4"] and float(rows[0]["loss"]) > 0
    assert rows[0]["epoch"] == "1" and rows[-1]["epoch"] == "2"  # 8 samples of 6 clips
    with (tmp_path / "loss.csv").open("a") as file:
        file.write("5,0.5,0.1,0.1,4\n6,0.")  # of updates that no state has, the last one cut
    run_of(clips, tmp_path, trainer__updates=6).train()
    assert [row["update"] for row in csv.DictReader((tmp_path / "loss.csv").open())] == [str(number) for number in range(1, 7)]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG") and list((tmp_path / "tensorboard").iterdir())
    uses = {row["clip"]: int(row["used"]) for row in csv.DictReader((tmp_path / "clips.csv").open())}
    assert len(uses) == 6 and sum(uses.values()) == 6 * 2 and max(uses.values()) - min(uses.values()) <= 1


def command(*arguments: str, processes: int = 1) -> list[str]:
    spread = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    return [sys.executable, *spread, "-m", "vc_core", "train", *(part for each in arguments for part in ("--set", each))]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.full
def test_two_processes_are_one(clips, tmp_path):
    """The same clips in an update, shared out among two processes by gloo, give the same weights up to rounding."""
    run_of(clips, tmp_path / "one", trainer__accumulate=2).train()
    arguments = command(*changes(clips, tmp_path / "two", trainer__accumulate=2), processes=2)
    done = subprocess.run(arguments, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert max(goldens.error(two[name], one[name]) for name in one) < 1e-5
    assert done.stdout.count("training 4/4") == 1  # one process speaks


def test_passes_that_can_not_be_shared_out(monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.num_processes", property(lambda self: 2))
    with pytest.raises(InputError, match="accumulate is 3; it must be a multiple of the number of processes, which is 2"):
        make_accelerator(TrainerSettings(accumulate=3), "cpu")


def test_what_splits_weights_is_refused(monkeypatch):
    monkeypatch.setattr("accelerate.Accelerator.distributed_type", property(lambda self: DistributedType.FSDP))
    with pytest.raises(InputError, match="accelerate is set up for FSDP"):
        make_accelerator(TrainerSettings(), "cpu")


def test_stages_of_one_process_have_their_own_precisions(tmp_path):
    """As the stages of `tiny_world` have. The weights stay float32."""
    seen = []
    for precision in ("float32", "bfloat16", "float32"):
        def loss(network, run):
            made = network(torch.ones(2, 3))
            seen.append(made.dtype)
            return made.float().square().mean(), {}

        network = torch.nn.Linear(3, 4)
        Trainer(network, loss, TrainerSettings(updates=1, precision=precision), tmp_path / f"{len(seen)}.pt").run()
        assert network.weight.dtype == torch.float32 and torch.isfinite(network.weight).all()
    assert seen == [torch.float32, torch.bfloat16, torch.float32]


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.full
def test_sigterm_saves_and_the_run_goes_on(clips, tmp_path):
    arguments = command(*changes(clips, tmp_path, trainer__updates=100_000, trainer__log_every=1))
    process = subprocess.Popen(arguments, cwd=REPOSITORY, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("training 3/"):
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM and "stopped after update" in errors and "Traceback" not in errors
    update = read_state(tmp_path / "state.pt")["update"]
    assert update >= 3
    run = run_of(clips, tmp_path, trainer__updates=100_000)
    assert run.trainer.resume() and run.trainer.update == update


# --- what is written ------------------------------------------------------------------------------------------------


def inputs() -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 4, 5, 4, 6, generator=generator), torch.randn(2, 77, 32, generator=generator)
    return x, torch.tensor([30, 700]), Conditioning(text, fps=torch.tensor([8.0, 12.0]))


@pytest.mark.parametrize("settings", [{}, {"lora__dora": "true"}, {"preset": "motion", "lora__alpha": 2}, {"preset": "subject"}])
def test_a_lora_merged_is_what_was_trained(clips, tmp_path, settings):
    run = run_of(clips, tmp_path, **settings)
    path = run.train()
    unet = run.denoiser.unet.eval()
    file = load_file(path)
    with torch.no_grad():
        trained = unet(*inputs())
        with without_lora(unet):
            base = unet(*inputs())
            merged = torch.func.functional_call(unet, merged_weights(unet, file), inputs())
    assert goldens.error(merged, trained) < 1e-5 < 1e-3 < goldens.error(base, trained)
    fresh = vc_core.load(bundled_models()["videocrafter_tiny_t2v"]).unet  # nothing of the base was changed
    with torch.no_grad():
        assert goldens.error(base, fresh(*inputs())) < 1e-6


def test_what_a_lora_says_of_itself(clips, tmp_path):
    path = run_of(clips, tmp_path, clips__trigger="zwx", name="mine", trainer__updates=1).train()
    assert path == tmp_path / "mine.safetensors"
    with safe_open(path, "pt") as file:
        said, names = file.metadata(), list(file.keys())
    assert said["vc_core.base_model"] == "tiny_t2v" and said["vc_core.rank"] == "4" and said["vc_core.trigger_words"] == "zwx"
    assert str(tmp_path) not in str(said)  # no folder of this machine
    stem = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q"
    assert {f"{stem}.lora_A.weight", f"{stem}.lora_B.weight", f"{stem}.alpha"} <= set(names)
    assert all(".1.transformer_blocks" in name for name in names)  # spatial ones alone


def test_presets_train_what_they_say(clips, tmp_path):
    trained = {}
    for preset in ("style", "motion", "subject"):
        run = run_of(clips, tmp_path / preset, preset=preset)
        trained[preset] = {name for name, each in run.denoiser.named_parameters() if each.requires_grad}
        assert all("lora_" in name for name in trained[preset])
    assert not trained["style"] & trained["motion"]
    assert {"init_attn" in name for name in trained["motion"]} == {True, False}
    assert not any(".ff." in name for name in trained["subject"]) and any(".ff." in name for name in trained["style"])


def test_a_whole_model(clips, tmp_path):
    run = run_of(clips, tmp_path, preset="full", trainer__updates=2, dropout=0.1)
    assert all(each.requires_grad for each in run.denoiser.parameters())
    assert run.denoiser.unet.input_blocks[1][0].out_layers[2].p == 0.1 and run.denoiser.unet.middle_block[0].temopral_conv.conv4[2].p == 0.1
    model = vc_core.load(run.train())
    x, t, conditioning = inputs()
    with torch.no_grad():
        assert goldens.error(model.unet(x, t, conditioning), run.denoiser.unet.eval()(x, t, conditioning)) < 5e-3  # written in float16
    assert model.text_to_video("a red circle", steps=2, frames=2).shape == (1, 3, 2, 64, 64)


def test_a_projector(clips, tmp_path):
    run = run_of(clips, tmp_path, model="videocrafter_tiny_i2v", preset="projector", trainer__updates=2)
    before = {name: value.clone() for name, value in run.denoiser.state_dict().items()}
    model = vc_core.load(run.train())
    moved = {name for name, value in run.denoiser.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("projector.") for name in moved)
    assert "image_encoder" in model.networks
    with pytest.raises(InputError, match="no projector to train"):
        run_of(clips, tmp_path / "other", preset="projector")


@pytest.mark.parametrize("model", ["videocrafter_tiny_i2v", "videocrafter_tiny_dynamicrafter"])
def test_models_that_start_from_an_image(clips, tmp_path, model):
    run = run_of(clips, tmp_path, model=model, trainer__updates=2)
    batch = run.clip_loss.batch(run.set.clips[:2], torch.Generator().manual_seed(0))
    assert batch.conditioning.image_tokens is not None and batch.empty.image_tokens is not None
    if model.endswith("dynamicrafter"):
        concat, latents = batch.conditioning.concat, batch.latents
        assert concat is not None and concat.shape == latents.shape
        first = concat[:, :, 0]
        assert any(torch.equal(first, latents[:, :, frame]) for frame in range(2))
    run.train()


def test_a_lora_that_was_not_trained_is_said_to_do_nothing(clips, tmp_path):
    said = []
    Run(read_options(None, changes(clips, tmp_path, trainer__updates=0)), said.append).train()
    assert "This LoRA changes nothing" in said[-1]


def test_a_file_that_is_not_what_was_trained_is_noticed(clips, tmp_path):
    run = run_of(clips, tmp_path)
    path = run.train()
    with torch.no_grad():
        next(each for name, each in run.denoiser.unet.named_parameters() if "lora_B" in name).add_(0.1)
    with pytest.raises(ExportError, match="another model than the one that was trained"):
        check_export(path, run.denoiser.unet)


@pytest.mark.full
def test_validation_clips(clips, tmp_path):
    prompts = "[a red circle moving left]"
    run = run_of(clips, tmp_path, validation__every=3, validation__prompts=prompts, validation__steps=2)
    run.train()
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["000003_0.mp4", "000004_0.mp4"]
    run_of(clips, tmp_path / "without").train()
    for name, value in weights_of(tmp_path / "without").items():  # they change nothing of the run
        assert torch.equal(value, weights_of(tmp_path)[name])


# --- settings -------------------------------------------------------------------------------------------------------


def test_the_command_line_and_a_file_of_settings(clips, tmp_path, capsys):
    (tmp_path / "settings.yaml").write_text(
        "preset: motion\nmodel: videocrafter_tiny_t2v\ntrainer: {updates: 1, batch: 2, accumulate: 1}\nlora: {rank: 2}\n"
        "clips: {frames: 4, height: 32, width: 32}\ncheckpointing: false\n"
    )
    arguments = ["train", str(tmp_path / "settings.yaml"), "--data", str(clips), "--output", str(tmp_path / "out"), "--rank", "3"]
    assert main([*arguments, "--device", "cpu", "--trigger", "a: [b", "--set", f"cache={clips.parent / 'cache'}"]) == 0
    said = capsys.readouterr().out
    assert "6 clips are used" in said and "training 1/1" in said
    written = (tmp_path / "out" / "settings.yaml").read_text()
    assert "rank: 3" in written and "updates: 1" in written and "preset: motion" in written and "a: [b" in written
    assert (tmp_path / "out" / "motion.safetensors").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["preset=fast"], "preset is 'fast'; it can be style, motion"),
        (["colour=red"], "wrong at colour"),
        (["trainer.updates=many"], "wrong at trainer.updates"),
        (["lora.rank=0"], "lora.rank is 0; it must be at least 1"),
        (["clips.strides.stride_min=9"], "stride_min is 9; it must be at most stride_max"),
        (["lora.temporal=false", "lora.spatial=false"], "both false"),
        (["weights=int8"], "weights is 'int8'; it can be float32, bfloat16"),
        (["loss.prompt_dropout=0.9", "loss.text_dropout=0.9"], "together"),
        (["model=''"], "model is missing"),
        (["data=${oc.env:HOME}"], "is no setting"),
        (["nonsense"], "is no setting"),
    ],
)
def test_wrong_settings(given, message):
    with pytest.raises((ConfigError, InputError), match=message):
        read_options(None, ["model=m", "data=d", "output=o", *given])


def test_presets_are_valid():
    for preset in PRESETS:
        assert read_options(None, ["model=m", "data=d", "output=o", f"preset={preset}"]).preset == preset


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "bfloat16"}, "which is for a LoRA with trainer.precision bfloat16"),
        ({"clips__height": 30}, "height is 30; it must be a multiple of 8"),
        ({"validation__every": 1}, "validation.prompts is empty"),
        ({"validation__every": 1, "validation__prompts": "[a]", "validation__image": "x.png"}, "takes no image"),
    ],
)
def test_settings_that_do_not_fit_the_model(clips, tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        run_of(clips, tmp_path, **settings)


def test_a_state_of_another_run_is_refused(clips, tmp_path):
    run_of(clips, tmp_path).train()
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(InputError, match="is not of a run with these settings"):
        run_of(clips, tmp_path, lora__rank=8).train()
    assert (tmp_path / "state.pt").read_bytes() == before


def test_an_interrupted_run_says_so(clips, tmp_path):
    run = run_of(clips, tmp_path)
    run.trainer._stop = True
    with pytest.raises(Interrupted, match="stopped after update 0"):
        run.trainer.run()


# --- what is learned ------------------------------------------------------------------------------------------------


def colour_of_shape(video: torch.Tensor) -> np.ndarray:
    """The mean colour of the shape in a clip ``[3, T, H, W]``, 0 to 255."""
    frames = as_pixels(video.numpy()).astype(np.float64)
    masks = [foreground(frame) for frame in frames]
    return np.mean([frame[mask].mean(0) for frame, mask in zip(frames, masks, strict=True) if mask.any()], axis=0)


@pytest.mark.full
def test_a_new_colour_is_learned_from_twenty_clips(tmp_path, record_property):
    """Before, "cyan" is white; after, it is nearly the clips' colour, the direction is the prompt's, and red is still red."""
    clips = write_clips(tmp_path / "clips", 20)
    settings = {
        "model": "videocrafter_tiny_t2v", "data": clips, "output": tmp_path / "run", "preset": "style", "device": "cpu",
        "clips.strides.stride_max": 1, "checkpointing": "false", "trainer.updates": 150, "trainer.learning_rate": 0.003,
    }
    lora = load_file(Run(read_options(None, [f"{name}={value}" for name, value in settings.items()]), lambda line: None).train())
    model = vc_core.load(bundled_models()["videocrafter_tiny_t2v"])
    prompts = ("a cyan circle moving right", "a cyan square moving up", "a red circle moving left")
    before = [model.text_to_video(prompt, seed=5, fps=12)[0] for prompt in prompts]
    weights = model.unet.state_dict()
    for layer in {name.removesuffix(".alpha") for name in lora if name.endswith(".alpha")}:
        up, down, alpha = (lora[f"{layer}.{end}"] for end in ("lora_B.weight", "lora_A.weight", "alpha"))
        weights[f"{layer.removeprefix(UNET_PREFIX)}.weight"] += float(alpha) / len(down) * up @ down
    model.unet.load_state_dict(weights)
    after = [model.text_to_video(prompt, seed=5, fps=12)[0] for prompt in prompts]
    for index, prompt in enumerate(prompts):
        record_property(prompt, [colour_of_shape(before[index]).tolist(), colour_of_shape(after[index]).tolist()])
    for index in (0, 1):
        assert np.linalg.norm(colour_of_shape(before[index]) - CYAN) > 180  # white, or another colour that it knows
        assert np.linalg.norm(colour_of_shape(after[index]) - CYAN) < 90
    verdicts = [judge(as_pixels(video.numpy())) for video in after]
    assert [verdict.direction for verdict in verdicts] == ["right", "up", "left"] and verdicts[2].colour == "red"
