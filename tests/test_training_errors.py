"""Odd settings, outputs and states of a training run: our message, and nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harness.comfyui import REPOSITORY
from tiny_world.__main__ import main
from tiny_world.settings import load_settings
from vc_core.errors import ConfigError, FileWriteError, InputError, VideoCrafterError
from vc_core.training.options import TrainingOptions, check
from vc_core.training.settings import LossSettings, TrainerSettings
from vc_core.training.state import StateError, make_folder, read_state, save_atomically
from vc_core.training.trainer import DivergedError, Pass, Trainer

NAN, INFINITE = float("nan"), float("inf")


def trainer(path: Path, **settings: object) -> Trainer:
    torch.manual_seed(1)
    module = nn.Linear(3, 1)

    def loss(network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        return (network(torch.randn(4, 3, generator=run.generator)) ** 2).mean(), {}

    return Trainer(module, loss, TrainerSettings(**{"updates": 4, "save_every": 2, **settings}), path, "test")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("updates", (-1, 10**30)), ("batch", (0, -8)), ("accumulate", (0, -1, 10**9)), ("precision", ("half", "fp16")),
        ("learning_rate", (0.0, -1e-3, NAN, INFINITE, 1e6)),
        ("weight_decay", (-0.1, NAN)), ("warmup", (-1,)), ("cooldown", (-0.1, 1.5, NAN)), ("clip_norm", (0.0, -1.0, NAN, INFINITE)),
        ("ema", (-0.1, 1.1, NAN)), ("save_every", (0, -5)), ("log_every", (0,)), ("seed", (-1, 2**64)), ("betas", ((0.9, 1.0), (NAN, 0.9))),
    ],
)
def test_odd_settings_of_the_trainer(tmp_path, name, values):
    for value in values:
        with pytest.raises(InputError, match=f"^{name} is "):
            trainer(tmp_path / "state.pt", **{name: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["prompt_dropout", "text_dropout", "image_dropout", "weight_limit"])
@pytest.mark.parametrize("value", [NAN, INFINITE, -0.5])
def test_odd_settings_of_the_loss(name, value):
    with pytest.raises(InputError, match=f"^{name} is "):
        LossSettings(**{name: value}).check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("diffusion: [1, 2", "can't be read.*not YAML"),
        ("\t- x:\n - y", "can't be read.*not YAML"),
        ("just a sentence", "can't be read.*not a mapping"),
        ("", "can't be read.*not a mapping"),
        ("model: ${oc.env:HOME}", "can't be read.*reference"),
        ('model: "\\x24{oc.env:HOME}"', "can't be read.*reference"),
        ("model: !!python/object:os.system x", "can't be read.*tag"),
        ("clip: &a {images: 3}\ndecoder: *a", "can't be read.*anchor"),
        ("clip: {trainer: {updates: many}}", "wrong at clip.trainer.updates"),
        ("clip: {trainer: {updates: -1}}", "clip.trainer.updates is -1; it must be at least 0"),
        ("clip: {trainer: {learning_rate: .nan}}", "clip.trainer.learning_rate is nan"),
        ("diffusion: {trainer: {ema: .inf}}", "diffusion.trainer.ema is inf"),
        ("diffusion: {loss: {prompt_dropout: 3}}", "diffusion.loss.prompt_dropout is 3"),
        ("diffusion: {phases: [{until: .nan}]}", r"diffusion.phases\[0\].until is nan"),
        ("autoencoder: {kl_weight: -1}", "autoencoder.kl_weight is -1"),
        ("world: {size: 0}", "world.size is 0"),
        ("world: {speed: .inf}", "world.speed is inf"),
        ("world: {fps_min: 30}", "world.fps_min is 30; it must be at most fps_max"),
        ("world: {motions: [sideways]}", "world.motions are sideways; possible are through"),
        ("colour: red", "wrong at colour"),
    ],
)
def test_broken_and_odd_settings(tmp_path, text, message):
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(VideoCrafterError, match=message):
        load_settings(tmp_path / "settings.yaml")


@pytest.mark.parametrize("name", ["../other", "a/b", "con", ""])
def test_names_that_no_file_can_have(tmp_path, name):
    """Before anything is read, so that no other file is replaced and no training lost."""
    given = TrainingOptions(model="m", data="d", output=str(tmp_path), name=name)
    if name:
        with pytest.raises(InputError, match="name is .*, which can't be a file's"):
            check(given)
    else:
        check(given)


def test_settings_that_are_no_text(tmp_path):
    (tmp_path / "settings.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can't be read"):
        load_settings(tmp_path / "settings.yaml")


def test_the_settings_that_come_with_it_are_right():
    for path in sorted((REPOSITORY / "tiny_world").glob("*.yaml")):
        assert load_settings(path).model == path.stem


def command(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["tiny_world", *map(str, arguments)])
    return main()


@pytest.mark.parametrize("below", ["", "/run"])
def test_an_output_that_is_a_file_is_said_before_the_settings_are_read(tmp_path, monkeypatch, capsys, below):
    (tmp_path / "file").write_text("mine")
    assert command(monkeypatch, "--output", f"{tmp_path}/file{below}", "--settings", tmp_path / "none.yaml") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "can't be made a folder" in error and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_that_can_not_be_written(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(FileWriteError, match="Permission denied"):
        make_folder(tmp_path / "run")


def test_odd_threads(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "--output", tmp_path, "--threads", -3) == 1
    assert "--threads is -3" in capsys.readouterr().err


def test_a_stages_file_that_is_damaged(tmp_path, monkeypatch, capsys):
    (tmp_path / "unet.pt").write_bytes(b"")
    assert command(monkeypatch, "--output", tmp_path, "--stage", "model") == 1
    assert "unet.pt: can't be read as the state of a training run" in capsys.readouterr().err


def test_states_that_are_not_ones(tmp_path):
    path = tmp_path / "state.pt"
    run = trainer(path)
    run.run()
    sound = path.read_bytes()
    foreign = tmp_path / "foreign.pt"
    save_atomically({"update": 3}, foreign)
    save_atomically({"module": [1, {"weight": torch.tensor([1.0, NAN])}]}, tmp_path / "nan.pt")
    save_atomically(torch.ones(3), tmp_path / "tensor.pt")
    wrong = {
        b"": "empty, cut or something else", sound[:-30]: "empty, cut or something else", sound[: len(sound) // 2]: "empty, cut",
        b"hello": "empty, cut or something else", foreign.read_bytes(): "is not of a run with these settings",
        (tmp_path / "nan.pt").read_bytes(): "'module.1.weight' has numbers that are NaN",
        (tmp_path / "tensor.pt").read_bytes(): "holds no state of a training run, but Tensor",
    }
    for content, message in wrong.items():
        path.write_bytes(content)
        with pytest.raises(StateError, match=message):
            trainer(path).resume()
        assert path.read_bytes() == content
    path.write_bytes(sound)
    again = trainer(path, updates=6)
    assert again.resume() and again.update == 4
    with pytest.raises(StateError, match="its updates have 1 passes, not 2"):
        trainer(path, accumulate=2).resume()


@pytest.mark.skipif(os.name != "posix", reason="links and named pipes are POSIX's")
def test_a_state_that_is_a_folder(tmp_path):
    (tmp_path / "state.pt").mkdir()
    with pytest.raises(StateError, match="can't be read"):
        trainer(tmp_path / "state.pt").resume()


def test_a_state_with_nan_never_takes_a_sound_ones_place(tmp_path):
    run = trainer(tmp_path / "state.pt")
    run.run(until=2)
    sound = (tmp_path / "state.pt").read_bytes()
    with torch.no_grad():
        next(iter(run.module.parameters())).fill_(INFINITE)
    with pytest.raises(DivergedError, match="was not written"):
        run.save()
    assert (tmp_path / "state.pt").read_bytes() == sound


def test_states_are_flushed_before_they_take_their_name(tmp_path, monkeypatch):
    events = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr("os.fsync", lambda handle: (events.append("sync"), sync(handle))[1])
    monkeypatch.setattr("os.replace", lambda *names: (events.append("replace"), replace(*names))[1])
    save_atomically({"update": 1}, tmp_path / "state.pt")
    assert events[:2] == ["sync", "replace"] and read_state(tmp_path / "state.pt") == {"update": 1}


FULL = """
import resource, sys
from pathlib import Path
import torch
from vc_core.training.state import save_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    save_atomically({"weights": torch.ones(1 << 20)}, Path(sys.argv[1]))
except ValueError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
def test_a_full_disk_leaves_the_state_before(tmp_path):
    """A limit on files' size stands in for the disk."""
    path = tmp_path / "state.pt"
    path.write_bytes(b"the state before")
    done = subprocess.run([sys.executable, "-c", FULL, path], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("FileWriteError") and "nothing was changed" in done.stdout
    assert path.read_bytes() == b"the state before" and list(tmp_path.iterdir()) == [path]
