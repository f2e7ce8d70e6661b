"""Reading images: the right pixels of every kind, a refusal in words of everything else; fitting as torchvision does."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torchvision import transforms

from harness.comfyui import REPOSITORY
from harness.images import apng, png_chunk, progressive_bomb, tiff
from vc_core.errors import InputError
from vc_core.media.images import ImageFileError, check_images, fit_image, read_image

#: Four pixels of clear colours, and their greys.
COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)
GREYS = np.array([[0, 51], [153, 255]], dtype=np.uint8)


def blocks(pixels: np.ndarray, side: int = 16) -> np.ndarray:
    """Each pixel as a square, so that lossy formats keep it."""
    return pixels.repeat(side, 0).repeat(side, 1)


def saved(tmp_path: Path, image: Image.Image, suffix: str, **options: object) -> np.ndarray:
    """The centres of the four squares of what is read, from 0 to 255."""
    path = tmp_path / f"image{suffix}"
    image.save(path, **options)
    return centres(read_image(path))


def centres(read: torch.Tensor) -> np.ndarray:
    assert read.dtype == torch.float32 and read.shape[0] == 3
    height, width = read.shape[1:]
    picked = read[:, [height // 4, 3 * height // 4]][:, :, [width // 4, 3 * width // 4]]
    return ((picked + 1) * 127.5).permute(1, 2, 0).numpy()


RGB, GREY = Image.fromarray(blocks(COLOURS)), Image.fromarray(blocks(GREYS))
GREY_RGB = GREYS[..., None].repeat(3, -1)
DEEP = blocks(GREYS).astype(np.uint16) * 257
KINDS = {
    "png": (RGB, ".png", {}, COLOURS, 0),
    "png, grey": (GREY, ".png", {}, GREY_RGB, 0),
    "png, grey and alpha": (GREY.convert("LA"), ".png", {}, GREY_RGB, 0),
    "png, black and white": (Image.fromarray(blocks(GREYS > 100)), ".png", {}, np.where(GREY_RGB > 100, 255, 0), 0),
    "png, palette": (RGB.quantize(4), ".png", {}, COLOURS, 0),
    "png, palette and alpha": (RGB.quantize(4), ".png", {"transparency": 2}, COLOURS, 0),
    "png, alpha": (RGB.convert("RGBA"), ".png", {}, COLOURS, 0),
    "png, 16 bits": (Image.fromarray(DEEP), ".png", {}, GREY_RGB, 0.01),
    "png, smallest": (RGB, ".png", {"compress_level": 9}, COLOURS, 0),
    "jpeg": (RGB, ".jpg", {"quality": 100, "subsampling": 0}, COLOURS, 3),
    "jpeg, grey": (GREY, ".jpg", {"quality": 100}, GREY_RGB, 1),
    "jpeg, progressive": (RGB, ".jpg", {"quality": 100, "subsampling": 0, "progressive": True}, COLOURS, 3),
    "jpeg, cmyk": (RGB.convert("CMYK"), ".jpg", {"quality": 100}, COLOURS, 6),
    "jpeg, restarts": (RGB, ".jpg", {"quality": 100, "subsampling": 0, "restart_marker_blocks": 1}, COLOURS, 3),
    "jpeg, named png": (RGB, ".png", {"format": "JPEG", "quality": 100, "subsampling": 0}, COLOURS, 3),
    "webp": (RGB, ".webp", {"lossless": True}, COLOURS, 0),
    "webp, alpha": (RGB.convert("RGBA"), ".webp", {"lossless": True}, COLOURS, 0),
    "webp, lossy": (RGB, ".webp", {"quality": 100}, COLOURS, 6),
    "webp, animated": (RGB, ".webp", {"lossless": True, "save_all": True, "append_images": [GREY.convert("RGB")]}, COLOURS, 0),
    "gif": (RGB, ".gif", {}, COLOURS, 0),
    "gif, animated": (RGB, ".gif", {"save_all": True, "append_images": [GREY]}, COLOURS, 0),
    "gif, interlaced": (GREY, ".gif", {"interlace": 1}, GREY_RGB, 0),
    "png, animated": (RGB, ".png", {"save_all": True, "append_images": [GREY.convert("RGB")]}, COLOURS, 0),
    "bmp": (RGB, ".bmp", {}, COLOURS, 0),
    "bmp, grey": (GREY, ".bmp", {}, GREY_RGB, 0),
    "bmp, palette": (RGB.quantize(4), ".bmp", {}, COLOURS, 0),
    "bmp, black and white": (Image.fromarray(blocks(GREYS > 100)), ".bmp", {}, np.where(GREY_RGB > 100, 255, 0), 0),
    "tiff": (RGB, ".tif", {}, COLOURS, 0),
    "tiff, lzw": (RGB, ".tif", {"compression": "tiff_lzw"}, COLOURS, 0),
    "tiff, deflate": (RGB, ".tif", {"compression": "tiff_adobe_deflate"}, COLOURS, 0),
    "tiff, packbits": (RGB, ".tif", {"compression": "packbits"}, COLOURS, 0),
    "tiff, jpeg": (RGB, ".tif", {"compression": "jpeg", "quality": 100}, COLOURS, 6),
    "tiff, fax": (Image.fromarray(blocks(GREYS > 100)), ".tif", {"compression": "group4"}, np.where(GREY_RGB > 100, 255, 0), 0),
    "tiff, cmyk": (RGB.convert("CMYK"), ".tif", {}, COLOURS, 0),
    "tiff, ycbcr": (RGB.convert("YCbCr"), ".tif", {}, COLOURS, 2),
    "tiff, palette": (RGB.quantize(4), ".tif", {}, COLOURS, 0),
    "tiff, alpha": (RGB.convert("RGBA"), ".tif", {}, COLOURS, 0),
    "tiff, 16 bits": (Image.fromarray(DEEP), ".tif", {}, GREY_RGB, 0.01),
    "tiff, pages": (RGB, ".tif", {"save_all": True, "append_images": [GREY.convert("RGB")]}, COLOURS, 0),
    "tiff, floats to 1": (Image.fromarray(blocks(GREYS).astype(np.float32) / 255), ".tif", {}, GREY_RGB, 0.01),
    "tiff, floats to 255": (Image.fromarray(blocks(GREYS).astype(np.float32)), ".tif", {}, GREY_RGB, 0.01),
    "tiff, 32 bits to 255": (Image.fromarray(blocks(GREYS).astype(np.int32)), ".tif", {}, GREY_RGB, 0.01),
    "tiff, 32 bits to 65535": (Image.fromarray(DEEP.astype(np.int32)), ".tif", {}, GREY_RGB, 0.01),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_every_kind_has_its_pixels(kind, tmp_path):
    image, suffix, options, expected, tolerance = KINDS[kind]
    found = saved(tmp_path, image, suffix, **options)
    assert np.abs(found - expected).max() <= tolerance + 1e-4


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("kind", "white"), [("u1", 255), ("u2", 65535), ("i4", 255), ("i4", 65535), ("f4", 1), ("f4", 255)])
def test_tiffs_of_either_byte_order(order, kind, white, tmp_path):
    values = blocks(GREYS).astype(np.float64) * (white / 255)
    (tmp_path / "image.tif").write_bytes(tiff(values.astype(order + kind)))
    assert np.abs(centres(read_image(tmp_path / "image.tif")) - GREY_RGB).max() <= 0.01


def test_lab(tmp_path):
    """White, black and the grey of L* = 53.585, which is 128 in sRGB."""
    lightness = Image.fromarray(blocks(np.array([[255, 0], [137, 137]], dtype=np.uint8)))
    neutral = Image.new("L", lightness.size, 128)
    found = saved(tmp_path, Image.merge("LAB", [lightness, neutral, neutral]), ".tif")
    assert np.abs(found - np.array([[255, 0], [128, 128]])[..., None]).max() <= 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(orientation, suffix, tmp_path):
    """The EXIF standard's table: where row 0 and column 0 of the stored image are in the upright one."""
    upright = np.array([[0, 80, 160], [240, 120, 40]], dtype=np.uint8)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(blocks(stored)))
    exif = Image.Exif()
    exif[0x112] = orientation
    image.save(tmp_path / f"image{suffix}", exif=exif, **({"quality": 100} if suffix == ".jpg" else {"lossless": True}))
    read = ((read_image(tmp_path / f"image{suffix}") + 1) * 127.5).numpy()
    assert read.shape == (3, 32, 48)
    assert np.abs(read[:, 8::16, 8::16] - upright).max() <= 3


def test_a_damaged_orientation_is_none(tmp_path):
    RGB.save(tmp_path / "image.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(9))
    assert np.array_equal(np.rint(centres(read_image(tmp_path / "image.png"))), COLOURS)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (65000, 1), (7, 3)])
def test_extreme_sizes_are_read(size, tmp_path):
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "image.png")
    read = read_image(tmp_path / "image.png")
    assert read.shape == (3, size[1], size[0])
    assert torch.allclose(read[:, -1, -1], torch.tensor([10.0, 20.0, 30.0]) / 127.5 - 1)


def test_an_interlaced_png_is_read(tmp_path):
    """Pillow writes none: the seven passes by hand, of a grey image of 8x8."""
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    rows = b"".join(b"\0" + row.tobytes() for y, dy, x, dx in passes for row in values[y::dy, x::dx])
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    content = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert np.array_equal(np.rint(((read_image(tmp_path / "image.png")[0] + 1) * 127.5).numpy()), values)


UNCLEAR = {
    "floats beyond 255": np.full((4, 4), 300, np.float32),
    "floats between": np.array([[0.0, 1.5], [20.25, 3.0]], np.float32),
    "negative floats": np.array([[-1.0, 0.5]], np.float32),
    "NaN": np.array([[np.nan, 0.5]], np.float32),
    "infinity": np.array([[np.inf, 0.5]], np.float32),
    "32 bits": np.array([[0, 2**31 - 1]], np.int32),
    "a mask": np.array([[0, 1]], np.int32),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_numbers_of_an_unclear_range_are_refused(kind, tmp_path):
    Image.fromarray(UNCLEAR[kind]).save(tmp_path / "image.tif")
    with pytest.raises(ImageFileError, match=r"image\.tif can't be read .* of which white isn't known; save it with 8 or 16 bits"):
        read_image(tmp_path / "image.tif")


def test_large_images_are_refused_from_their_header(tmp_path):
    """Of 12 bytes and so on: no pixel is decoded."""
    for suffix, content in (
        (".png", b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8000, 6251, 8, 2, 0, 0, 0)) + png_chunk(b"IDAT", b"")),
        (".gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 9, 9, 0) + b"\x02\0;"),
        (".bmp", b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)),
        (".tif", tiff(np.zeros((1, 1), np.uint8), width=60000, height=60000)),
    ):
        (tmp_path / f"image{suffix}").write_bytes(content)
        with pytest.raises(ImageFileError, match="at most 50 million pixels"):
            read_image(tmp_path / f"image{suffix}")


@pytest.mark.full
def test_50_million_pixels_are_read(tmp_path):
    """In a process of its own, whose memory stays below 5 times the pixels in float32 (without the libraries)."""
    Image.new("L", (10000, 5000), 100).save(tmp_path / "image.png", compress_level=1)
    program = """
import resource, sys, torch
from pathlib import Path
from vc_core.media.images import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = read_image(Path(sys.argv[1]))
assert image.shape == (3, 5000, 10000) and abs(image[0, 0, 0] - (100 / 127.5 - 1)) < 1e-6
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "image.png"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1200  # MB; the result has 572


def test_other_formats_are_refused_whatever_their_name(tmp_path, monkeypatch):
    """PostScript would start Ghostscript."""
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: started.append(a))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    contents = {"postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "text": b"hello", "empty": b""}
    for name, form in (("tga", "TGA"), ("ppm", "PPM"), ("ico", "ICO"), ("pcx", "PCX"), ("jpeg 2000", "JPEG2000"), ("sgi", "SGI")):
        buffer = io.BytesIO()
        RGB.save(buffer, form)
        contents[name] = buffer.getvalue()
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        with pytest.raises(ImageFileError, match=f"{name}.png can't be read as an image: it is damaged, or none of PNG, JPEG"):
            read_image(tmp_path / f"{name}.png")
    assert not started


def test_a_png_with_large_texts_is_named(tmp_path):
    for name, late in (("early", False), ("late", True)):
        texts = PngImagePlugin.PngInfo()
        texts.add_text("workflow", "x" * 3_000_000, zip=True)
        RGB.save(tmp_path / f"{name}.png", pnginfo=texts)
        if late:
            content = (tmp_path / "late.png").read_bytes()
            at = content.index(b"zTXt") - 4
            end = at + 12 + struct.unpack(">I", content[at : at + 4])[0]
            (tmp_path / "late.png").write_bytes(content[:at] + content[end:-12] + content[at:end] + content[-12:])
        with pytest.raises(ImageFileError, match=rf"{name}\.png can't be read as an image: its texts \(metadata\) are larger than any"):
            read_image(tmp_path / f"{name}.png")


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path):
    """Each takes the time of a whole image: 20 kB would take seconds, and a larger file minutes."""
    (tmp_path / "image.jpg").write_bytes(progressive_bomb(1000, 2500))
    with pytest.raises(ImageFileError, match="scans; of this size at most 2000 are possible"):
        read_image(tmp_path / "image.jpg")
    (tmp_path / "image.jpg").write_bytes(progressive_bomb(64, 100))
    assert read_image(tmp_path / "image.jpg").shape == (3, 64, 64)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        for path in (tmp_path / "pipe.png", tmp_path / "socket.png", tmp_path, Path("/dev/zero"), Path("/dev/null")):
            with pytest.raises(ImageFileError, match="is no image: it is a folder, a pipe or a device"):
                read_image(path)
    for path in (tmp_path / "none.png", tmp_path / ("x" * 300), tmp_path / "a\0b", tmp_path / "pipe.png" / "x"):
        with pytest.raises(ImageFileError, match="There is no image"):
            read_image(path)


def test_names_reach_no_terminal_as_they_are(tmp_path):
    path = tmp_path / "a\x1b[31m\nerror: \u202eb.png"
    path.write_bytes(b"nothing")
    for each in (path, tmp_path / "\x9b\udcff.png"):
        with pytest.raises(ImageFileError) as caught:
            read_image(each)
        assert str(caught.value).isprintable()
    assert r"a\x1b[31m\nerror: \u202eb.png" in str(pytest.raises(ImageFileError, read_image, path).value)


def test_damaged_files_of_every_format_give_our_error(tmp_path):
    """Cut at any place, or with one byte changed: pixels, or an error of ours."""
    generator = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for suffix in (".png", ".jpg", ".webp", ".gif", ".bmp", ".tif"):
        RGB.save(tmp_path / f"image{suffix}")
        content = (tmp_path / f"image{suffix}").read_bytes()
        variants = [content[:length] for length in generator.integers(0, len(content), 25)]
        for place, value in zip(generator.integers(0, len(content), 50), generator.integers(0, 256, 50), strict=True):
            variants.append(content[:place] + bytes([value]) + content[place + 1 :])
        for variant in variants:
            (tmp_path / "damaged").write_bytes(variant)
            try:
                assert read_image(tmp_path / "damaged").ndim == 3
                outcomes["read"] += 1
            except ImageFileError as error:
                assert str(tmp_path / "damaged") in str(error)
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


def test_first_frame_of_an_animation_with_a_hidden_image(tmp_path):
    """An APNG's default image may be none of its frames; readers that know no animations show it."""
    (tmp_path / "image.png").write_bytes(apng(GREYS))
    assert read_image(tmp_path / "image.png").shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("size", "target"),
    [((1080, 1920), (320, 512)), ((1920, 1080), (512, 320)), ((360, 640), (576, 1024)), ((335, 600), (320, 512)), ((400, 711), (256, 256)),
     ((300, 300), (256, 256)), ((97, 331), (64, 128)), ((320, 571), (320, 512))],
)
def test_images_are_fitted_as_torchvision_does(size, target):
    """The authors' transforms, where they leave no black bars; smooth images, as photos are."""
    generator = torch.Generator().manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, size[0] // 8, size[1] // 8, generator=generator), size=size, mode="bilinear")
    authors = transforms.Compose([transforms.Resize(min(target), antialias=True), transforms.CenterCrop(target)])
    assert (fit_image(image, *target) - authors(image)).abs().max() <= 2e-6


def test_a_wide_image_is_568_wide():
    """320 * 16 / 9 = 568.9 truncated: of 56 columns too many, 28 go on each side. Rounded up, the columns would shift."""
    ramp = torch.linspace(0, 1, 1920).expand(1, 3, 1080, 1920)
    centre = (torch.arange(512) + 28 + 0.5) * 1920 / 568 - 0.5
    assert torch.allclose(fit_image(ramp, 320, 512)[0, 0, 0], (centre / 1919).float(), atol=2e-4)  # at 569, the last is off by 0.0016


@pytest.mark.parametrize(("size", "target"), [((3, 100), (64, 48)), ((100, 3), (64, 48)), ((9, 40), (16, 80)), ((40, 10), (8, 96))])
def test_cutting_before_resizing_gives_the_same(size, target):
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    scale = max(target[0] / size[0], target[1] / size[1])
    whole = tuple(max(side, int(scale * each + 1e-9)) for side, each in zip(target, size, strict=True))
    expected = transforms.CenterCrop(target)(torch.nn.functional.interpolate(image, size=whole, mode="bilinear", antialias=True))
    assert (fit_image(image, *target) - expected).abs().max() <= 2e-6


@pytest.mark.parametrize("size", [(1, 65500), (65500, 1), (2, 5_000_000)])
@pytest.mark.full
def test_a_line_takes_no_memory(size):
    """Resized as a whole, 1x65500 pixels at 512x320 would be 206 GB."""
    program = """
import resource, sys, torch
from vc_core.media.images import fit_image
image = torch.rand(1, 3, int(sys.argv[1]), int(sys.argv[2]))
fit_image(torch.rand(1, 3, 10, 10), 320, 512)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert fit_image(image, 320, 512).shape == (1, 3, 320, 512)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
    done = subprocess.run([sys.executable, "-c", program, *map(str, size)], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100  # MB


WRONG = {
    "8 bits": (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "is of torch.uint8"),
    "0 to 255": (torch.full((1, 3, 8, 8), 200.0), "has values from 200 to 200"),
    "NaN": (torch.full((1, 3, 8, 8), float("nan")), "no numbers"),
    "one NaN": (torch.zeros(1, 3, 8, 8).index_fill(3, torch.tensor([5]), float("nan")), "no numbers"),
    "infinity": (torch.full((1, 3, 8, 8), -float("inf")), "no numbers"),
    "channels last": (torch.zeros(1, 8, 8, 3), "has the shape"),
    "nothing": (torch.zeros(1, 3, 0, 8), "has the shape"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_images_from_python_are_checked(kind):
    images, message = WRONG[kind]
    with pytest.raises(InputError, match=message):
        check_images(images, "image")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_images_in_their_range_pass(dtype):
    check_images(torch.linspace(-1.05, 1.05, 192).reshape(1, 3, 8, 8).to(dtype))
