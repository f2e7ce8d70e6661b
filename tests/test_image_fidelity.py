"""Image fidelity, compared with values that follow from its definition."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from kornia.geometry import resize
from kornia.metrics import ssim
from PIL import Image

import vc_core
from harness import goldens
from harness.comfyui import REPOSITORY
from vc_core.__main__ import main
from vc_core.errors import InputError
from vc_core.evaluation.image_fidelity import measure, structure
from vc_core.media.resizing import resize_cubic
from vc_core.media.video import read_video, save_video


def flat(value: float) -> torch.Tensor:
    """An image of one brightness in [0, 1]."""
    return torch.full((1, 3, 32, 32), value * 2 - 1)


def test_structure_of_flat_images_is_their_luminance_term():
    first, second, c1 = 0.3, 0.8, 0.01**2
    expected = (2 * first * second + c1) / (first**2 + second**2 + c1)
    assert structure(flat(first), flat(second)).item() == pytest.approx(expected, abs=1e-4)


def test_a_still_video_equals_its_image():
    image = torch.rand(3, 40, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fidelity = measure(image[:, None].expand(3, 5, 40, 24), image)
    assert torch.allclose(fidelity.to_image["SSIM"], torch.ones(5), atol=1e-5)
    assert torch.allclose(fidelity.to_previous["SSIM"], torch.ones(4), atol=1e-5)


def test_a_fading_video_becomes_less_similar_frame_by_frame():
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    frames = torch.stack([image.lerp(noise, part) for part in (0.0, 0.2, 0.4, 0.6, 0.8)], dim=1)
    fidelity = measure(frames, image, embed=lambda images: images.flatten(1))
    for values in fidelity.to_image.values():
        assert (values.diff() < 0).all()
    cosine = torch.nn.functional.cosine_similarity(frames[:, 3].flatten(), image.flatten(), dim=0)
    assert fidelity.to_image["CLIP"][3] == pytest.approx(cosine.item(), abs=1e-5)


def test_table_and_plot():
    frames = torch.rand(3, 4, 16, 16) * 2 - 1
    fidelity = measure(frames, frames[:, 0])
    lines = fidelity.table().splitlines()
    assert len(lines) == 2 + 4 + 1 and lines[2].startswith("| 1 | 1.0000 |")
    plot = fidelity.plot()
    assert plot.shape == (400, 800, 3) and 0 <= plot.min() < plot.max() <= 1


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_the_command_and_saved_videos(suffix, tmp_path, capsys):
    frames = torch.rand(3, 4, 32, 32, generator=torch.Generator().manual_seed(0)).round() * 1.8 - 0.9
    save_video(frames.repeat_interleave(2, 2).repeat_interleave(2, 3), tmp_path / f"clip{suffix}", fps=8)
    assert read_video(tmp_path / f"clip{suffix}").shape == (3, 4, 64, 64)
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "image.png")
    model = goldens.write_checkpoint("i2v_512_v1", tmp_path / "model.safetensors")
    arguments = ["measure", str(model), str(tmp_path / f"clip{suffix}"), str(tmp_path / "image.png")]
    assert main([*arguments, "--plot", str(tmp_path / "plot.png")]) == 0
    out = capsys.readouterr().out
    assert "CLIP to image" in out and out.count("\n") == 7
    assert Image.open(tmp_path / "plot.png").size == (800, 400)


def test_embeddings_are_openclip_s(tmp_path):
    """The class token through the last norm and the projection, as OpenCLIP's own tower gives it."""
    from open_clip.transformer import VisionTransformer

    path = goldens.write_checkpoint("i2v_512_v1", tmp_path / "model.safetensors")
    prefix = "embedder.model.visual."
    weights = {name.removeprefix(prefix): value.float() for name, value in goldens.weights("i2v_512_v1").items() if name.startswith(prefix)}
    tower = VisionTransformer(224, 56, 64, 2, 2, 4.0, output_dim=32)
    tower.load_state_dict(weights)
    photo = goldens.read("i2v_512_v1", "encoders")["photo"]
    from vc_core.models.image_encoder import prepare_images

    with torch.inference_mode():
        assert goldens.error(vc_core.load(path).embed_image(photo), tower.eval()(prepare_images(photo))) <= 1e-5


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((300, 500), (224, 224)), ((50, 900), (224, 224)), ((224, 224), (224, 224)), ((7, 9), (64, 48)), ((97, 31), (16, 16)),
        ((600, 30), (8, 9)), ((40, 40), (1, 1)), ((2, 3), (5, 7)),
    ],
)
def test_resizing_is_kornia_s(old, new):
    images = torch.rand(2, 3, *old, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = resize(images, new, interpolation="bicubic", align_corners=True, antialias=True)
    assert (resize_cubic(images, *new) - expected).abs().max() <= 3e-6


def test_strips_make_no_difference(monkeypatch):
    """SSIM of a few rows at a time, and of the whole by kornia."""
    one, other = torch.rand(2, 2, 3, 47, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = ssim((one + 1) / 2, (other + 1) / 2, window_size=11).mean((1, 2, 3))
    for pixels in (1, 12 * 30, 23 * 30, 46 * 30, 47 * 30):
        monkeypatch.setattr("vc_core.evaluation.image_fidelity.SSIM_PIXELS", pixels)
        assert torch.allclose(structure(one, other), expected, atol=1e-6)


@pytest.mark.full
def test_measuring_takes_little_memory_and_time():
    """Once it took 21 times the frames' memory, and for an image of 36 million pixels twenty seconds."""
    program = """
import resource, time, torch
from vc_core.evaluation.image_fidelity import measure
frames, image = torch.rand(3, 24, 320, 512).mul_(2).sub_(1), torch.rand(3, 4000, 4000).mul_(2).sub_(1)
measure(frames[:, :2, :32, :32], image[:, :64, :64], lambda images: images.mean((2, 3)))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
measure(frames[:, :4], image, lambda images: images.mean((2, 3)))
measure(frames, image[:, :320, :512], lambda images: images.mean((2, 3)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200  # MB; the frames have 47


def test_images_without_numbers(monkeypatch):
    frames = torch.zeros(3, 4, 16, 16)
    with pytest.raises(InputError, match="The image holds values that are no numbers"):
        measure(frames, torch.full((3, 16, 16), float("nan")))
    frames[0, 2, 5, 5] = float("inf")
    with pytest.raises(InputError, match="1 of the frames, the first of them number 3"):
        measure(frames, torch.zeros(3, 16, 16))


def test_a_plot_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="needs matplotlib: pip install matplotlib"):
        measure(torch.zeros(3, 2, 16, 16), torch.zeros(3, 16, 16)).plot()


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="expected are frames"):
        measure(torch.zeros(4, 3, 8, 8), torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="SSIM needs at least 6 pixels"):
        measure(torch.zeros(3, 4, 5, 8), torch.zeros(3, 8, 8))
