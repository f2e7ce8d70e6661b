"""Measures by towers, and the towers themselves against open_clip's and timm's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from harness import goldens
from tests.evaluation_clips import drawn, texture
from vc_core.evaluation.clip import Clip
from vc_core.evaluation.consistency import consistency, temporal_consistency
from vc_core.evaluation.evaluator import evaluate
from vc_core.evaluation.measures import chosen
from vc_core.evaluation.quality import Aesthetic, aesthetic_quality
from vc_core.evaluation.score import NotMeasured
from vc_core.evaluation.text_alignment import text_alignment
from vc_core.evaluation.tools import make_tools
from vc_core.evaluation.towers import Tower, clip_pixels, dino_tower, model_tower, openai_tower


def colours(images: torch.Tensor) -> torch.Tensor:
    """An embedding whose cosines are known: the mean color in [0, 1]."""
    return (images.mean((2, 3)) + 1) / 2


def flat(*shades: tuple[int, int, int]) -> np.ndarray:
    return np.stack([np.full([16, 16, 3], shade, np.uint8) for shade in shades])


def test_consistency_by_hand():
    """Red, yellow, green: cosines of 45 degrees to the frame before; green is at right angles to the first."""
    clip = Clip(flat((255, 0, 0), (255, 255, 0), (0, 255, 0)))
    tower, half = Tower("colors", colours), 2**-0.5
    assert temporal_consistency(clip, tower).value == pytest.approx(half, abs=1e-5)
    score = consistency(clip, tower)
    assert score.curve == pytest.approx((half, half / 2), abs=1e-5) and score.value == pytest.approx(0.75 * half, abs=1e-5)


def test_text_alignment_by_hand():
    clip = Clip(flat((255, 0, 0), (255, 255, 0)), prompt="red")
    tower = Tower("colors", colours, lambda _: torch.tensor([3.0, 0.0, 0.0]))
    assert text_alignment(clip, tower).curve == pytest.approx((1, 2**-0.5), abs=1e-5)
    with pytest.raises(NotMeasured, match="text tower"):
        text_alignment(clip, Tower("colors", colours))


def test_the_towers_of_a_file_are_open_clip_s(tmp_path):
    """Both embeddings as open_clip's own CLIP gives them, with the same weights."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
    from open_clip.tokenizer import SimpleTokenizer

    path = goldens.write_checkpoint("i2v_512_v1", tmp_path / "model.safetensors")
    tower = model_tower(path)
    weights = {name: value.float() for name, value in goldens.weights("i2v_512_v1").items()}
    visual = {name.replace("embedder.model.", ""): value for name, value in weights.items() if name.startswith("embedder.model.visual.")}
    prefix = "cond_stage_model.model."
    text = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    width, embed = text["text_projection"].shape
    layers = len({name.split(".")[2] for name in text if "resblocks" in name})
    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=56, image_size=224)
    from vc_core.family.model_file import ModelFile

    heads = ModelFile.open(path).config.text_encoder.heads
    network = CLIP(embed, vision, CLIPTextCfg(context_length=77, vocab_size=49408, width=width, heads=heads, layers=layers))
    network.load_state_dict({**text, **visual}, strict=False)
    photo = goldens.read("i2v_512_v1", "encoders")["photo"]
    prompt = "a cat " * 60  # longer than the window
    with torch.inference_mode():
        image, words = network.eval().encode_image(clip_pixels(photo)), network.encode_text(SimpleTokenizer()([prompt]))
    assert goldens.error(tower.image(photo), image) <= 1e-5
    assert goldens.error(tower.text(prompt)[None], words) <= 1e-5


def test_pixels_for_clip_are_open_clip_s():
    """Up to Pillow's rounding to 8 bits."""
    from open_clip.transform import image_transform

    picture = texture(150, 200)
    ours = clip_pixels(torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1)[0]
    theirs = image_transform(224, is_train=False)(Image.fromarray(picture))
    assert ours.shape == theirs.shape and (ours - theirs).abs().max() < 0.03


def test_the_bundled_towers_tell_right_from_wrong_prompts():
    tower = model_tower("videocrafter_tiny_i2v")
    clips = drawn()
    for clip in clips:
        right, wrong = text_alignment(clip, tower).value, []
        for other in _wrong(clip.prompt):
            clip.prompt = other  # the same clip, whose frames are embedded once
            wrong.append(text_alignment(clip, tower).value)
        assert right > max(wrong)


def _wrong(prompt: str) -> list[str]:
    _, shade, shape, *_ = prompt.split()
    return [prompt.replace(shade, other) for other in ("red", "green", "blue", "yellow", "white", "purple") if other != shade] + [
        prompt.replace(shape, other) for other in ("circle", "square", "triangle") if other != shape
    ]


def test_a_text_to_video_model_has_no_image_tower():
    assert model_tower("videocrafter_tiny_t2v") is None
    tools = make_tools(chosen(["text_alignment"]), "videocrafter_tiny_t2v")
    scores = evaluate(Clip(texture(64, 96)[None], prompt="a red circle"), chosen(["text_alignment"]), tools)
    assert "a text-to-video model's file lacks" in scores.skipped["text_alignment"]


@pytest.mark.full
def test_openai_s_clip_and_the_aesthetic_head(tmp_path):
    """With weights drawn at random, in the published architectures: through our files, and by open_clip itself."""
    import open_clip

    torch.manual_seed(0)
    network = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
    save_file(network.state_dict(), tmp_path / "b32.safetensors")
    tower = openai_tower("clip-b32", tmp_path / "b32.safetensors")
    images = torch.from_numpy(texture(64, 96)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        image = network.encode_image(clip_pixels(images))
        words = network.encode_text(open_clip.get_tokenizer("ViT-B-32-quickgelu")(["a cat"]))
    assert tower.tag == "CLIP ViT-B/32"
    assert goldens.error(tower.image(images), image) < 1e-5 and goldens.error(tower.text("a cat")[None], words) < 1e-5
    head = {"weight": torch.randn(1, 512), "bias": torch.randn(1)}
    save_file(head, tmp_path / "head.safetensors")
    clip = Clip(texture(64, 96)[None])
    score = aesthetic_quality(clip, Aesthetic(tower, tmp_path / "head.safetensors", width=512))
    expected = torch.nn.functional.normalize(tower.image(clip.images(0, 1)), dim=-1) @ head["weight"].T + head["bias"]
    assert score.value == pytest.approx(expected.item() / 10, abs=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (64, 100)])
def test_dino_is_timm_s(tmp_path, size):
    """With weights drawn at random, in the smallest of the architectures."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0).eval()
    save_file(network.state_dict(), tmp_path / "dino.safetensors")
    tower = dino_tower(tmp_path / "dino.safetensors", architecture="vit_tiny_patch16_224")
    images = torch.from_numpy(texture(*size)).permute(2, 0, 1)[None] / 127.5 - 1
    assert tower.image(images).shape == (1, 192)
    if size == (64, 64):
        from torchvision.transforms import functional as transforms

        resized = transforms.resize((images + 1) / 2, [224], antialias=True)
        expected = network(transforms.normalize(resized, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        assert goldens.error(tower.image(images), expected) < 1e-4
