"""Adapters are told by their tensors, loaded beside a model, listed, and look in at its passes."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import vc_core
from vc_core.__main__ import main
from vc_core.adapters.adapter import Adapter
from vc_core.adapters.table import ADAPTERS, AdapterKind, load_adapter
from vc_core.checkpoint import CheckpointError
from vc_core.config import load_config
from vc_core.models.hooks import Hooks, PassInputs, Site, TemporalHooks

BUNDLED = "videocrafter_tiny_t2v"
SETTINGS = {"frames": 3, "steps": 2, "seed": 1}


class Shift(Adapter):
    """Adds a learned vector between the attentions of the temporal transformer after the first convolution."""

    def __init__(self, width: int, layers) -> None:
        super().__init__()
        self.shift = layers.linear(width, width)

    def hooks(self, inputs: PassInputs) -> Hooks | None:
        return ShiftHooks(self.shift) if "positive" in inputs.roles else None


class ShiftHooks(Hooks, TemporalHooks):
    def __init__(self, shift: nn.Module) -> None:
        self.shift = shift

    def temporal(self, site: Site) -> TemporalHooks | None:
        return self if site.part == "init" else None

    def between(self, x: Tensor) -> Tensor:
        return x + self.shift(x)


@pytest.fixture
def width(monkeypatch) -> int:
    """With the kind in the table; the width of the bundled model's first temporal transformer."""
    kind = AdapterKind(
        "Shift", "shift_adapter.shift.weight", "shift_adapter.",
        lambda config, checkpoint, layers: Shift(config.unet.init_attention_width, layers),
    )
    monkeypatch.setitem(ADAPTERS, "shift", kind)
    return load_config("tiny_t2v").unet.init_attention_width


def write(path, width: int, scale: float = 1.0):
    weight = torch.eye(width) * scale
    save_file({"shift_adapter.shift.weight": weight, "shift_adapter.shift.bias": torch.zeros(width)}, path)
    return path


def test_an_adapter_changes_the_clip_and_an_idle_one_does_not(width, tmp_path):
    plain = vc_core.load(BUNDLED).text_to_video("a red circle", **SETTINGS)
    idle = vc_core.load(BUNDLED, adapters=[write(tmp_path / "idle.safetensors", width, 0.0)])
    assert list(idle.adapters) == ["idle"]
    assert (idle.text_to_video("a red circle", **SETTINGS) - plain).abs().max() <= 1e-4
    acting = vc_core.load(BUNDLED, adapters=[write(tmp_path / "acting.safetensors", width)])
    assert (acting.text_to_video("a red circle", **SETTINGS) - plain).abs().max() > 1e-3


def test_hooks_of_the_caller_act_like_an_adapter(width, tmp_path):
    adapter = load_adapter(write(tmp_path / "shift.safetensors", width), load_config("tiny_t2v"))
    beside = vc_core.load(BUNDLED, adapters=[tmp_path / "shift.safetensors"]).text_to_video("a red circle", **SETTINGS)
    assert torch.equal(vc_core.load(BUNDLED).text_to_video("a red circle", hooks=[adapter.hooks], **SETTINGS), beside)


def test_adapters_are_listed_and_used_by_the_command_line(width, tmp_path, capsys):
    path = write(tmp_path / "shift.safetensors", width)
    assert main(["info", BUNDLED, "--adapter", str(path)]) == 0
    assert f"adapter shift (Shift): 2 tensors, {(width * width + width) / 1e6:.1f} million weights" in capsys.readouterr().out
    target = tmp_path / "clip.webp"
    options = ["--adapter", str(path), "--frames", "2", "--steps", "1", "--output", str(target)]
    assert main(["generate", BUNDLED, "a red circle", *options]) == 0
    assert target.is_file()


def test_files_that_are_no_fitting_adapter_are_refused(width, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"something.else": torch.zeros(1)}, other)
    with pytest.raises(CheckpointError, match=r"no adapter for this family\. Known kinds: .*Shift"):
        vc_core.load(BUNDLED, adapters=[other])
    with pytest.raises(CheckpointError, match=rf"shift.weight is \[8, 8\], expected \[{width}, {width}\]"):
        vc_core.load(BUNDLED, adapters=[write(tmp_path / "small.safetensors", 8)])
