"""What the core promises beyond the reference's numbers: seeds, batches, long prompts, and errors that help."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from einops import rearrange

import vc_core
from harness import goldens
from vc_core import networks
from vc_core.__main__ import parser, sampling_options
from vc_core.config import load_config, published
from vc_core.diffusion.guidance import Guidance, guide
from vc_core.diffusion.noise import RecordedNoise, SeededNoise
from vc_core.errors import InputError
from vc_core.kernels.casting import computing_type
from vc_core.models.autoencoder import Autoencoder
from vc_core.models.conditioning import Conditioning
from vc_core.models.text_encoder import tokenize
from vc_core.sampling import Sampling

SMALL = {"frames": 3, "height": 16, "width": 16, "steps": 2}
START, VIDEO = torch.zeros(1, 4, 3, 2, 2), torch.zeros(1, 3, 3, 16, 16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return vc_core.load(goldens.write_checkpoint("t2v_512_v2", tmp_path_factory.mktemp("model") / "model.safetensors"))


def test_a_seed_decides(model):
    first = model.text_to_video("a cat", seed=5, **SMALL)
    assert torch.equal(first, model.text_to_video("a cat", seed=5, **SMALL))
    assert not torch.equal(first, model.text_to_video("a cat", seed=6, **SMALL))


def test_a_video_is_the_same_in_a_batch(model):
    # Larger than elsewhere here: where a norm's groups hold a number or two, it blows rounding up.
    size = SMALL | {"height": 64, "width": 64}
    both = model.text_to_video(["a cat", "a dog"], seed=5, **size)
    assert both.shape == (2, 3, 3, 64, 64)
    alone = model.text_to_video("a cat", seed=5, **size), model.text_to_video("a dog", seed=6, **size)
    assert (both - torch.cat(alone)).abs().max() <= goldens.PIXEL_TOLERANCE


def test_deep_features_are_reused_where_asked_for(model):
    """With whole steps only nothing changes; a video doesn't change with the runs before it."""
    plain = model.text_to_video("a cat", **SMALL)
    assert torch.equal(plain, model.text_to_video("a cat", deep_cache_interval=1, **SMALL))
    reused = model.text_to_video("a cat", deep_cache_interval=2, **SMALL)
    assert not torch.equal(plain, reused)
    assert torch.equal(reused, model.text_to_video("a cat", deep_cache_interval=2, **SMALL))


def test_given_noise_replaces_the_seed(model):
    noise = [torch.randn(1, 4, 3, 2, 2) for _ in range(3)]
    runs = [model.text_to_video("a cat", seed=seed, noise=RecordedNoise(noise[0], noise[1:]), steps=2) for seed in (1, 2)]
    assert torch.equal(*runs)


def test_a_long_prompt_is_read_to_its_end(model):
    words = " ".join(["swan"] * 300)
    tokens = tokenize([words])
    assert tokens.shape == (1, 4, 77) and (tokens[0, :, 0] == 49406).all()
    assert ((tokens != 0) & (tokens < 49406)).sum() == 300
    assert model.encode_text([words]).shape == (1, 308, 32)
    ends = [model.text_to_video(f"{words} {last}", **SMALL) for last in ("pond", "moving")]
    assert not torch.allclose(*ends)


def test_repeating_a_text_changes_nothing(model):
    """The negative's text is repeated to the positive's length; attention cannot tell."""
    text, x, timestep = model.encode_text(["a cat"]), torch.randn(1, 4, 3, 4, 4), torch.tensor([400])
    once, thrice = (model.unet(x, timestep, Conditioning(each)) for each in (text, text.repeat(1, 3, 1)))
    assert goldens.error(thrice, once) < 1e-5


@pytest.mark.parametrize("computed", ["as kept", "in float32"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close(dtype, computed, tmp_path, monkeypatch):
    """Both where there are instructions for it and where the weights are kept in it alone."""
    used = dtype if computed == "as kept" else torch.float32
    monkeypatch.setattr(networks, "computing_type", lambda device, kept: used)
    half = vc_core.load(goldens.write_checkpoint("t2v_512_v2", tmp_path / "model.safetensors"), dtype=dtype)
    golden = goldens.read("t2v_512_v2", "unet")
    out = half.unet(golden["0.x"].to(used), golden["0.timesteps"], Conditioning(golden["0.context"].to(used), fps=golden["0.fps"]))
    assert out.dtype == used and {each.dtype for each in half.unet.parameters()} == {dtype}
    # A few roundings' worth: the errors of the network's some hundred operations mostly cancel.
    assert (out.float() - golden["0.y"]).std() / golden["0.y"].std() < 5 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name, from_image", [("videocrafter_tiny_t2v", False), ("videocrafter_tiny_i2v", True)])
def test_weights_stored_in_half_types_give_the_clip_of_those_weights(name, from_image, dtype, monkeypatch):
    """Computed in float32, exactly what a float32 model makes whose weights were rounded."""
    monkeypatch.setattr(networks, "computing_type", lambda device, kept: torch.float32)
    rounded = vc_core.load(name)
    for network in rounded.networks.values():
        for parameter in network.parameters():
            parameter.copy_(parameter.to(dtype))
    kept = vc_core.load(name, dtype=dtype)
    settings = {**SMALL, "steps": 2, "frames": 4}
    image = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    clips = [model.image_to_video(image, "a red circle", **settings) if from_image else model.text_to_video("a red circle", **settings)
             for model in (rounded, kept)]
    assert torch.equal(*clips)


def test_a_processor_computes_in_what_it_has_instructions_for(monkeypatch):
    known = {"_is_mkldnn_fp16_supported": lambda: False, "_is_mkldnn_bf16_supported": lambda: True}
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**known))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert computing_type("cpu", torch.bfloat16) == torch.bfloat16
    assert computing_type("cpu", torch.float16) == computing_type("cpu", torch.float32) == torch.float32
    assert computing_type("cuda", torch.float16) == torch.float16
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert computing_type("cpu", torch.bfloat16) == torch.float32


def test_guidance():
    generator = torch.Generator().manual_seed(0)
    positive, negative, still = torch.randn(3, 2, 4, 3, 5, 5, generator=generator)
    assert torch.allclose(guide(positive, negative, Guidance()), positive, atol=1e-6)
    assert torch.allclose(guide(positive, negative, Guidance(3.0)), 3 * positive - 2 * negative, atol=1e-5)
    axes = (1, 2, 3, 4)
    rescaled = guide(positive, negative, Guidance(5.0, rescale=1.0))
    assert torch.allclose(rescaled.std(axes), positive.std(axes), rtol=1e-5)
    pushed = guide(positive, negative, Guidance(temporal_scale=0.5), without_time=still)
    assert torch.allclose(pushed, 1.5 * positive - 0.5 * still, atol=1e-5)


def test_temporal_guidance_changes_the_video(model):
    plain = model.text_to_video("a cat", **SMALL)
    assert not torch.allclose(plain, model.text_to_video("a cat", temporal_guidance_scale=1.0, **SMALL), atol=1e-3)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"frames": 0}, "frames is 0; it must be at least 1"),
        ({"height": 20}, "height is 20; it must be a multiple of 8, such as 16 or 24"),
        ({"width": 0}, "width is 0; it must be a multiple of 8, such as 8 or 16"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"steps": 1001}, "steps is 1001; it can be 1 to 1000"),
        ({"fps": -1}, "fps is -1; it must be more than 0"),
        ({"deep_cache_interval": 0}, "deep_cache_interval is 0; it must be at least 1"),
        ({"deep_cache_interval": 2, "deep_cache_blocks": 99}, "blocks is 99; this model has .* it can be 1 to"),
        ({"noise": RecordedNoise(torch.zeros(2, 4, 3, 2, 2), [])}, r"The noise has the shape \[2, .* expected are latents of \[1, 4"),
        ({"noise": RecordedNoise(START, [START])}, "fewer tensors than the run has steps"),
        ({"noise": RecordedNoise(START, [START[..., :1]])}, "The noise of step 0 has the shape"),
        ({"denoise": 0.0}, "denoise is 0.0; it must be above 0"),
        ({"denoise": 0.5}, "denoise is 0.5, but there is no input video"),
        ({"video": VIDEO}, "denoise is 1, which keeps nothing of the input video"),
        ({"video": VIDEO, "denoise": 0.001}, "2 steps at a denoise of 0.001 are a part of 2000 steps, but the schedule has 1000"),
        ({"video": VIDEO.byte(), "denoise": 0.5}, r"frames is of torch.uint8; expected are floats \[B, 3, T, H, W\] in \[-1, 1\]"),
        ({"video": VIDEO + 200, "denoise": 0.5}, r"frames has values from 200 to 200; .* For 0 to 255: frames / 127.5 - 1"),
        ({"video": VIDEO * float("nan"), "denoise": 0.5}, "frames holds values that are no numbers"),
        ({"video": VIDEO[0], "denoise": 0.5}, r"frames has the shape \[3, 3, 16, 16\]"),
        ({"video": VIDEO[0], "denoise": 0.5}, r"expected are floats \[B, 3, T, H, W\]"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"temporal_guidance_scale": float("inf")}, "temporal_guidance_scale is inf"),
        ({"eta": float("nan")}, "eta is nan; it must be 0 to 1"),
        ({"image_guidance_scale": 3.0}, "takes no image: leave image_guidance_scale out"),
        ({"playback_fps": 0}, "playback_fps is 0; it must be 1 to 1000"),
        ({"sampling": Sampling.of(load_config("t2v_512_v2")), "stepps": 3}, "There is no setting 'stepps'; did you mean steps"),
        ({"spacing": "karras"}, "spacing is 'karras'; it can be uniform or uniform_trailing"),
        ({"guidance": 3.0}, "There is no setting 'guidance'; did you mean guidance_"),
        ({"negative_prompt": ["a", "b"]}, "2 prompts for 1 clips"),
    ],
)
def test_errors(model, wrong, message):
    with pytest.raises(InputError, match=message):
        model.text_to_video("a cat", **(SMALL | wrong))


def test_a_single_prompt_for_the_encoder(model):
    with pytest.raises(InputError, match="put it in a list"):
        model.encode_text("a cat")


def test_every_door_has_the_configuration_s_settings(tmp_path):
    """Python, and the command line by its options; a change to None leaves the model's own."""
    for name in (*published(), "tiny_t2v", "tiny_i2v", "tiny_dynamicrafter"):
        config = load_config(name)
        settings = Sampling.of(config, steps=None)
        for field in ("frames", "height", "width", "steps", "eta", "guidance_scale", "guidance_rescale", "spacing", "playback_fps"):
            assert getattr(settings, field) == getattr(config.sampling, field)
        assert settings.fps == config.unet.default_fps
    parsed = parser().parse_args(["generate", "videocrafter_tiny_t2v", "a red circle"])
    given = {option.name: getattr(parsed, option.name, None) for option in sampling_options()}
    assert Sampling.of(load_config("tiny_t2v"), **given) == Sampling.of(load_config("tiny_t2v"))


def test_sample_gives_the_latents_that_are_decoded(model):
    positive, negative = (Conditioning(model.encode_text([text])) for text in ("a cat", ""))
    latents = model.sample(positive, negative, seed=5, **SMALL)
    assert latents.shape == (1, 4, 3, 2, 2)
    assert torch.equal(model.decode(latents), model.text_to_video("a cat", seed=5, **SMALL))


@pytest.mark.parametrize("denoise, steps", [(1.0, 4), (0.5, 3), (0.1, 1)])
def test_video_to_video_starts_from_the_noised_input(model, denoise, steps):
    """By hand: the last steps of a longer schedule, from sqrt(a) s x_0 + sqrt(1 - a) noise."""
    video = torch.rand(1, 3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    visited = model.schedule.uniform(round(steps / denoise))[:steps]
    start, seen = SeededNoise((1, 4, 3, 2, 2), 7).start, []
    a, scale = model.schedule.alphas_cumprod[visited[-1]], model.schedule.scale[visited[-1]]
    expected = a.sqrt() * scale * model.encode(video) + (1 - a).sqrt() * start

    def watch(inputs):
        seen.append((inputs.x, int(inputs.timesteps[0])))

    text = Conditioning(model.encode_text(["a cat"]))
    settings = {"steps": steps, "denoise": denoise, "seed": 7, "guidance_scale": 1.0, "hooks": [watch]}
    latents = model.sample(text, text, model.encode(video), **settings)
    if denoise < 1:
        assert torch.equal(model.text_to_video("a cat", video=video, **settings), model.decode(latents))
        seen = seen[: len(visited)]
    assert [timestep for _, timestep in seen] == visited.flip(0).tolist()
    assert goldens.error(seen[0][0], expected) <= 1e-6


def test_an_input_video_decides_the_size(model):
    made = model.text_to_video("a cat", video=torch.zeros(1, 3, 2, 24, 32), steps=1, denoise=0.5)
    assert made.shape == (1, 3, 2, 24, 32)
    with pytest.raises(InputError, match="The input video has the shape .* for 2 clips"):
        model.text_to_video(["a cat", "a dog"], video=torch.zeros(1, 3, 2, 24, 32), steps=1, denoise=0.5)


class WithReferences(Autoencoder):
    """A decoder that adds the mean of the first reference's features to every frame."""

    takes_references = True

    def decode_video(self, z, references):
        assert [each.shape[2] for each in references] == [2] * len(references)
        frames = rearrange(self.decode(rearrange(z, "b c t h w -> (b t) c h w")), "(b t) c h w -> b c t h w", t=z.shape[2])
        return frames * 0.1 + references[0][:, :, :1].mean((1, 3, 4), keepdim=True)


def test_a_decoder_can_take_reference_images(model):
    latents, images = torch.randn(1, 4, 3, 2, 2), torch.rand(1, 3, 2, 16, 16) - 0.5
    with pytest.raises(InputError, match="decodes frames without reference images"):
        model.decode(latents, images)
    autoencoder = WithReferences(model.config.autoencoder)
    autoencoder.load_state_dict(model.networks["autoencoder"].state_dict())
    other = vc_core.VideoModel(model.config, {**model.networks, "autoencoder": autoencoder})
    features = autoencoder.encoder.features(images[:, :, 0])
    assert [each.shape[-1] for each in features] == [16, *(16 >> level for level in range(1, len(features) - 1)), 16]
    z = latents / model.config.autoencoder.scale_factor
    frames = torch.stack([autoencoder.decode(z[:, :, frame]) for frame in range(3)], dim=2)
    expected = (frames * 0.1 + features[0].mean((1, 2, 3))).clamp(-1, 1)
    assert goldens.error(other.decode(latents, images), expected) <= 1e-5


def test_runs_in_threads_do_not_see_one_another(model):
    """Passes share nothing that changes: hooks, caches and attention belong to a pass or a run."""
    settings = {**SMALL, "height": 64, "width": 64, "steps": 3, "deep_cache_interval": 2}
    alone = [model.text_to_video("a cat", seed=seed, **settings) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: model.text_to_video("a cat", seed=seed, **settings), range(4)))
    for one, other in zip(alone, together, strict=True):
        assert (one - other).abs().max() <= goldens.PIXEL_TOLERANCE


def test_a_prompt_is_the_same_beside_a_longer_one(model):
    """Its windows are repeated, which attention can't tell apart."""
    size = SMALL | {"height": 64, "width": 64}
    alone = model.text_to_video("a cat", seed=5, **size)
    beside = model.text_to_video(["a cat", " ".join(["swan"] * 100)], seed=5, **size)
    assert (beside[:1] - alone).abs().max() <= goldens.PIXEL_TOLERANCE


def test_the_largest_seeds_have_batches(model):
    assert torch.equal(SeededNoise((2, 4, 1, 2, 2), 2**64 - 1).start[1], SeededNoise((1, 4, 1, 2, 2), 0).start[0])


def test_no_prompts_are_refused(model):
    with pytest.raises(InputError, match="There are no prompts"):
        model.text_to_video([])


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda image: (image * 127 + 127).byte(), r"is of torch.uint8; .* For 8 bits: \w+.float\(\) / 127.5 - 1"),
        (lambda image: image * 127 + 127, r"has values from .* For 0 to 255"),
        (lambda image: image / 0, "holds values that are no numbers"),
        (lambda image: image[:, :2], r"has the shape \[1, 2, 20, 20\]"),
    ],
)
@pytest.mark.parametrize("name", ["image", "end_image"])
def test_images_of_other_values(name, wrong, message):
    """Bytes were read as far beyond white."""
    model = vc_core.load("videocrafter_tiny_dynamicrafter")
    image = torch.linspace(-1, 1, 3 * 20 * 20).reshape(1, 3, 20, 20)
    with pytest.raises(InputError, match=f"{name} {message}"):
        model.image_to_video(**({"image": image, "end_image": image} | {name: wrong(image)}), prompt="", frames=2, steps=1)
