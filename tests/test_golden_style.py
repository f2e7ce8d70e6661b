"""StyleCrafter's adapter and temporal file against the authors' runs."""

from __future__ import annotations

import pytest
import torch

from harness import golden_methods, golden_style, goldens
from harness.golden_style import FOLDER, StyleRun, adapter
from harness.goldens import PASS_TOLERANCE, PIXEL_TOLERANCE, RUN_TOLERANCE
from vc_core.adapters.style import attention_names
from vc_core.config import load_config
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import PassInputs
from vc_core.models.image_encoder import prepare_images
from vc_core.style import style_square

RECORDED = bool(golden_methods.recorded(FOLDER))
pytestmark = [pytest.mark.golden, pytest.mark.skipif(not RECORDED, reason="not recorded")]


def cases(kind: str) -> list[str]:
    return sorted(goldens.read(FOLDER, kind).groups()) if RECORDED else []


@pytest.mark.parametrize("case", cases("encoders"))
@torch.inference_mode()
def test_features_tokens_and_scales(case):
    golden, numbers = goldens.read(FOLDER, "encoders"), golden_style.settings("tokens")[int(case)]["pictures"]
    if f"{case}.clip_pixels" in golden:  # each eighth row and column
        pixels = prepare_images(style_square(golden_style.picture(numbers[0]))[None])[..., ::8, ::8]
        assert goldens.error(pixels, golden[f"{case}.clip_pixels"]) <= PASS_TOLERANCE
    features = golden_style.features(numbers).flatten(0, 1)[None]
    assert goldens.error(features, golden[f"{case}.features"].float()) <= 1e-3  # one unit of float16
    tokens = adapter().image_context_model(golden[f"{case}.features"].float())
    assert goldens.error(tokens, golden[f"{case}.tokens"]) <= PASS_TOLERANCE
    assert goldens.error(adapter().image_context_model(features), golden[f"{case}.tokens"]) <= RUN_TOLERANCE
    scales = adapter().scale_predictor(golden[f"{case}.tokens"], golden["text"])
    assert goldens.error(scales[..., None], golden[f"{case}.scales"]) <= PASS_TOLERANCE


@torch.inference_mode()
def test_texts():
    golden, model = goldens.read(FOLDER, "encoders"), golden_style.load(False)
    prompt = golden_style.settings("runs")[0]["prompt"]
    assert goldens.error(model.encode_text([prompt]), golden["text"]) <= PASS_TOLERANCE
    assert goldens.error(model.encode_text([""]), golden["empty"]) <= PASS_TOLERANCE


@pytest.mark.parametrize("case", cases("layers"))
@torch.inference_mode()
def test_cross_attentions(case):
    """Each alone: text only, with the style, without its scale, and with a weight."""
    golden, settings = goldens.read(FOLDER, "layers"), golden_style.settings("layers")[int(case)]
    layer = golden_style.load(False).unet.get_submodule(settings["layer"].removeprefix("model.diffusion_model."))
    name = settings["adapter"].removeprefix("kv_attn_layers.")
    assert adapter().numbers[name] == settings["index"]
    context, scale = golden[f"{case}.context"], golden[f"{case}.scales"][:, settings["index"], 0]
    text, style = layer.streams(context[:, :77]), adapter().kv_attn_layers[name]
    strengths = {"text": None, "styled": 1 + scale, "unscaled": torch.ones(2), "weight_0.6": 0.6 * (1 + scale)}
    for kind, strength in strengths.items():
        streams = text if strength is None else [*text, style.stream(context[:, 77:], strength)]
        assert goldens.error(layer(golden[f"{case}.x"], streams), golden[f"{case}.{kind}"]) <= PASS_TOLERANCE, kind


@torch.inference_mode()
def test_the_temporal_file():
    golden = goldens.read(FOLDER, "temporal_file")
    for temporal, name in ((False, "before"), (True, "after")):
        made = golden_style.load(temporal).unet(golden["x"], golden["timesteps"], Conditioning(golden["context"]))
        assert goldens.error(made, golden[name]) <= PASS_TOLERANCE


@pytest.mark.parametrize("case", cases("unet"))
@pytest.mark.parametrize("styled", [True, False])
def test_unet(case, styled):
    golden = goldens.read(FOLDER, "unet")
    assert goldens.error(golden_style.run_unet(case, styled), golden[f"{case}.{'y' if styled else 'plain'}"]) <= PASS_TOLERANCE


@pytest.mark.parametrize("run", golden_methods.runs(FOLDER))
def test_runs(run):
    recorded = StyleRun(run)
    ours = golden_style.run_sampling(recorded)
    assert len(ours.predictions) == recorded.settings["passes"]
    for predicted, golden in zip(ours.predictions, recorded.tensor("pred_x0"), strict=True):
        assert goldens.error(predicted, golden) <= RUN_TOLERANCE
    assert goldens.error(ours.latent, recorded.tensor("latent")) <= RUN_TOLERANCE
    assert goldens.pixel_error(ours.video, recorded.tensor("video")) <= PIXEL_TOLERANCE


@pytest.mark.parametrize("run", golden_methods.runs(FOLDER))
@torch.inference_mode()
def test_tokens_and_scales_of_runs(run):
    recorded = StyleRun(run)
    tokens = adapter().image_context_model(golden_style.features(recorded.settings["pictures"]).flatten(0, 1)[None])
    assert goldens.error(tokens, recorded.tensor("style")) <= RUN_TOLERANCE
    text = golden_style.load(False).encode_text([recorded.settings["prompt"]])
    scales = adapter().scale_predictor(recorded.tensor("style"), text)
    assert goldens.error(scales[..., None], recorded.tensor("scales")) <= PASS_TOLERANCE


@pytest.mark.skipif(not (goldens.FOLDER / FOLDER / "published.json").exists(), reason="the list is not in tests/data")
def test_the_published_files_names_and_shapes():
    published = goldens.recording(FOLDER).json("published.json")
    config = load_config(golden_style.FORM)
    names = attention_names(config)
    assert len(names) == 16
    shapes = dict(published["adapter"])
    for name, width in names.items():
        assert shapes[f"kv_attn_layers.{name}.to_k_style.weight"] == [width, 1024]
        assert shapes[f"kv_attn_layers.{name}.norm_style.weight"] == [width]
    assert len(shapes) == 139 and len({module for module, _, _ in published["temporal"]}) == 17


def test_with_a_strength_of_0_nothing_is_hooked():
    """So that the run is the base model's to the bit."""
    golden = goldens.read(FOLDER, "unet")
    x = golden["0.x"]
    style = golden_style.Style(adapter(), golden_style.features([0]), 0.0)
    assert style(PassInputs(("positive",) * 2, x, golden["0.timesteps"], Conditioning(golden["0.context"]))) is None
