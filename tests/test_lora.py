"""LoRAs merged into a model, written, and on the command line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import vc_core
from harness import goldens
from tests.loras import FIRST_DIFFUSERS, KOHYA, MOTION, PEFT, PREFIX, QUERY, TEXT, UNET, first_diffusers, pair, plain_file, write
from vc_core.__main__ import main
from vc_core.checkpoint import open_checkpoint
from vc_core.errors import InputError
from vc_core.family.model_file import ModelFile
from vc_core.lora.files import open_lora
from vc_core.lora.merging import LoraSetting, with_loras
from vc_core.lora.writing import save_lora


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return goldens.write_checkpoint("t2v_512_v2", tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def model(path) -> ModelFile:
    return ModelFile.open(path)


def test_several_add_up(tmp_path, model):
    file = plain_file(tmp_path)
    down, up = pair(QUERY, PEFT, UNET[f"{QUERY}.weight"]).values()
    name = f"{QUERY}.weight"
    merged = with_loras(model, [LoraSetting(file, 0.5), LoraSetting(file, -2.0, alpha=4.0)]).tensors("unet")
    expected = model.tensors("unet")[name].float() + (0.5 * 2 / 4 - 2.0) * (up @ down)
    assert torch.allclose(merged[name], expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_strength_0_changes_no_bit_of_a_loaded_model(tmp_path, path, dtype):
    file = plain_file(tmp_path)
    plain, zero = vc_core.load(path, dtype=dtype), vc_core.load(path, dtype=dtype, loras=[LoraSetting(file, 0.0)])
    weights = plain.unet.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in zero.unet.state_dict().items())
    changed = vc_core.load(path, dtype=dtype, loras=[file]).unet.state_dict()
    assert [name for name in weights if not torch.equal(weights[name], changed[name])] == [
        name for name in weights if name.startswith(QUERY) and "weight" in name
    ]


def test_python_reports_what_matched(tmp_path, path):
    lines: list[str] = []
    vc_core.load(path, loras=[plain_file(tmp_path)], report=lines.append)
    assert lines == ["plain.safetensors: 1 of 1 layers matched, rank 4", "alpha 2: from the file"]


def test_what_is_written_is_read(tmp_path):
    place = "text_model.encoder.layers.0.mlp.fc1"
    layers = {QUERY: (torch.randn(3, 64), torch.randn(64, 3), 1.5)}
    layers[place] = torch.randn(2, TEXT[place][1]), torch.randn(TEXT[place][0], 2), 2.0
    save_lora(tmp_path / "new.safetensors", layers, {"title": "style"}, torch.float32)
    with safe_open(tmp_path / "new.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "title": "style"}
        assert f"diffusion_model.{QUERY}.lora_A.weight" in file.keys() and f"diffusion_model.{QUERY}.alpha" in file.keys()  # noqa: SIM118
    lora = open_lora(tmp_path / "new.safetensors").match(UNET, TEXT)
    for name, layer in (*lora.unet.items(), *lora.text.items()):
        down, up, alpha = layers[name]
        assert torch.equal(layer.down, down) and torch.equal(layer.up, up) and layer.alpha == alpha


@pytest.mark.parametrize("shape", [(64, 1), (1, 64)])
def test_a_dora_scales_rows_or_columns(tmp_path, model, shape):
    """Of strength s, the weights lie at s between those without it and those of strength 1."""
    name = f"{QUERY}.weight"
    down, up = pair(QUERY, PEFT, UNET[name]).values()
    scale = torch.rand(shape) + 0.5
    file = save_lora(tmp_path / "dora.safetensors", {QUERY: (down, up, 4.0)}, dtype=torch.float32, dora_scales={QUERY: scale})
    plain = model.tensors("unet")[name].float()
    changed = plain + up @ down
    norm = plain.norm(dim=1, keepdim=True) if shape == (64, 1) else changed.norm(dim=0, keepdim=True)
    for strength in (1.0, 0.3):
        merged = with_loras(model, [LoraSetting(file, strength)]).tensors("unet")[name]
        assert torch.allclose(merged, (1 - strength) * plain + strength * scale * changed / norm, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({}, "there are no layers"),
        ({QUERY: (torch.ones(2, 8), torch.ones(8, 3), 1.0)}, "have no common rank"),
        ({QUERY: (torch.full((2, 8), 1e6), torch.ones(8, 2), 1.0)}, "too large for float16"),
        ({QUERY: (torch.ones(2, 8), torch.ones(8, 2), math.nan)}, "NaN"),
    ],
)
def test_what_is_not_written(tmp_path, layers, message):
    with pytest.raises(InputError, match=message):
        save_lora(tmp_path / "new.safetensors", layers)
    assert not list(tmp_path.iterdir())


def test_a_setting_of_the_command_line(tmp_path):
    file = tmp_path / "a:1.safetensors"
    file.touch()
    assert LoraSetting.parse(str(file)) == LoraSetting(str(file))
    assert LoraSetting.parse(f"{file}:0.5") == LoraSetting(str(file), 0.5)
    assert LoraSetting.parse(f"{file}:-0.5:8") == LoraSetting(str(file), -0.5, alpha=8.0)
    assert LoraSetting.parse("C:\\loras\\a.pt:2") == LoraSetting("C:\\loras\\a.pt", 2.0)
    with pytest.raises(InputError, match="strength of the LoRA a.pt is nan; it must be a finite number"):
        LoraSetting.parse("a.pt:nan")


def test_generate_with_a_lora(tmp_path, path, capsys):
    file = plain_file(tmp_path)
    command = ["generate", str(path), "a cat", "--frames", "2", "--height", "16", "--width", "16", "--steps", "1"]
    assert main([*command, "--output", str(tmp_path / "a.png"), "--lora", f"{file}:0.5", "--lora", f"{file}:1:3"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("plain.safetensors: 1 of 1 layers matched, rank 4") == 2
    assert "alpha 2: from the file" in printed and "alpha 3: as you chose" in printed


def test_generate_with_a_lora_of_another_model_writes_nothing(tmp_path, path, capsys):
    file = write(tmp_path, pair(MOTION, FIRST_DIFFUSERS, (8, 8)))
    target = tmp_path / "a.png"
    assert main(["generate", str(path), "a cat", "--steps", "1", "--output", str(target), "--lora", str(file)]) == 1
    assert "an AnimateDiff motion LoRA" in capsys.readouterr().err and not target.exists()


def test_convert_merges(tmp_path, path, model, capsys):
    file, target = plain_file(tmp_path), tmp_path / "merged.safetensors"
    assert main(["convert", str(path), str(target), "--dtype", "float32", "--lora", f"{file}:0.5"]) == 0
    assert "plain.safetensors: 1 of 1 layers matched" in capsys.readouterr().out
    expected = with_loras(model, [LoraSetting(file, 0.5)]).tensors("unet")
    merged = load_file(target)
    assert all(torch.equal(merged[PREFIX + name], value.float()) for name, value in expected.items())
    assert not torch.equal(merged[f"{PREFIX}{QUERY}.weight"], model.tensors("unet")[f"{QUERY}.weight"].float())


def test_convert_writes_the_lora_alone(tmp_path, path, model, capsys):
    """Of any layout, in the plain one, with the alpha that was taken; a strength becomes part of it."""
    tensors = first_diffusers() | pair("lora_unet_camera", KOHYA, (8, 8))
    source, target = write(tmp_path, tensors, lora_alpha="8", r="4", title="style"), tmp_path / "plain.safetensors"
    assert main(["convert", str(path), str(target), "--dtype", "float32", "--lora", f"{source}:0.5", "--lora-only"]) == 0
    printed = capsys.readouterr().out
    assert "8 of 9 layers matched (4 of the text encoder)" in printed and "lora_unet_camera" in printed
    checkpoint = open_checkpoint(target)
    assert all(name.startswith(("diffusion_model.", "text_encoder.")) for name in checkpoint)
    assert checkpoint.metadata == {"format": "pt", "title": "style"}
    assert {float(checkpoint.tensor(name)) for name in checkpoint if name.endswith(".alpha")} == {4.0}
    for part in ("unet", "text_encoder"):
        first = with_loras(model, [LoraSetting(source, 0.5)]).tensors(part)
        second = with_loras(model, [LoraSetting(target)]).tensors(part)
        assert all(torch.allclose(first[name].float(), second[name].float(), atol=1e-6) for name in first)


def test_a_dora_is_written_alone_as_it_is(tmp_path, path, capsys):
    down, up = pair(QUERY, PEFT, UNET[f"{QUERY}.weight"]).values()
    scales = {QUERY: torch.rand(64, 1)}
    file = save_lora(tmp_path / "dora.safetensors", {QUERY: (down, up, 4.0)}, dtype=torch.float32, dora_scales=scales)
    target = tmp_path / "plain.safetensors"
    command = ["convert", str(path), str(target), "--dtype", "float32", "--lora-only", "--lora"]
    assert main([*command, f"{file}:0.5"]) == 1
    assert "is a DoRA, whose strength can't be a part of its alpha" in capsys.readouterr().err
    assert main([*command, str(file)]) == 0
    written, source = load_file(target), load_file(file)
    assert written.keys() == source.keys() and all(torch.equal(written[name], source[name]) for name in written)


@pytest.mark.parametrize("count", [0, 2])
def test_one_lora_is_written_alone(tmp_path, path, count, capsys):
    options = [part for _ in range(count) for part in ("--lora", str(plain_file(tmp_path)))]
    assert main(["convert", str(path), str(tmp_path / "new.safetensors"), *options, "--lora-only"]) == 1
    assert "give --lora once with --lora-only" in capsys.readouterr().err
    assert not (tmp_path / "new.safetensors").exists()


def test_a_lora_is_not_written_over_itself(tmp_path, path, capsys):
    file = plain_file(tmp_path)
    before = file.read_bytes()
    assert main(["convert", str(path), str(file), "--lora", str(file), "--lora-only"]) == 1
    assert "is the LoRA to convert itself" in capsys.readouterr().err and file.read_bytes() == before
