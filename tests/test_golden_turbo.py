"""T2V-Turbo computes what its reference computes: tables, the consistency step, the merged LoRA, networks and whole runs."""

from __future__ import annotations

import pytest
import torch

from harness import golden_turbo, goldens
from harness.golden_turbo import CONDITIONS, V1, V2
from harness.goldens import PASS_TOLERANCE, PIXEL_TOLERANCE, RUN_TOLERANCE, recording
from vc_core.checkpoint.reading import open_tensor_list
from vc_core.config import load_config
from vc_core.diffusion.noise import RecordedNoise
from vc_core.diffusion.samplers import boundary_scalings, clean_and_noise, noised, tables_and_update
from vc_core.diffusion.schedule import Schedule
from vc_core.family.parts import part_shapes
from vc_core.lora.turbo_list import layers_of, pairs_by_layer
from vc_core.models.text_encoder import tokenize
from vc_core.models.time_embedding import scale_embedding

RECORDED = goldens.models(goldens.TURBO)
CASES = [
    (name, case, condition)
    for name in RECORDED
    for case in sorted(recording(name).read("unet").groups())
    for condition in CONDITIONS
    if f"{case}.y_{condition}" in recording(name).read("unet")
]
RUNS = [(name, run) for name in RECORDED for run in golden_turbo.runs(recording(name))]
#: Of a table of sines at angles up to 15000: the last bit of a processor's exp is as much.
TABLE_TOLERANCE = 1e-3

pytestmark = pytest.mark.golden


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in RECORDED, reason=f"{name} is not among the recordings")


def schedule() -> Schedule:
    return Schedule.from_config(load_config(V2).schedule)


@needs(V2)
def test_tables_of_the_schedule():
    golden = goldens.read(V2, "schedule")
    alphas = schedule().alphas_cumprod
    assert torch.equal(alphas, golden["alphas_cumprod"])
    betas = 1 - alphas.double() / torch.cat([torch.ones(1), alphas[:-1]])
    assert torch.allclose(betas, golden["betas"].double(), rtol=1e-3, atol=1e-7)  # what float32 leaves of a ratio near 1
    for key in {name.rsplit(".", 1)[0] for name in golden if "." in name}:
        timesteps = golden[f"{key}.timesteps"]
        if key != "boundary":
            original, steps = map(int, key.split("."))
            assert schedule().consistency(steps, original).flip(0).tolist() == timesteps.tolist(), key
        skip, out = boundary_scalings(timesteps)
        assert torch.allclose(skip, golden[f"{key}.c_skip"], rtol=1e-6, atol=1e-12), key
        assert torch.allclose(out, golden[f"{key}.c_out"], rtol=1e-6, atol=1e-12), key


@needs(V2)
def test_embeddings_of_scales():
    """Half precision's tables of motion are computed in their type, whose rounding is a part of the model; guidance's are float32's."""
    golden = goldens.read(V2, "embeddings")
    guidance, motion = scale_embedding(golden["guidance"]), scale_embedding(golden["motion"])
    assert (guidance - golden["guidance.float32"]).abs().max() <= TABLE_TOLERANCE
    assert (guidance.bfloat16().float() - golden["guidance.bfloat16"]).abs().max() <= TABLE_TOLERANCE + 2**-8
    assert (motion - golden["motion.float32"]).abs().max() <= TABLE_TOLERANCE
    for dtype in ("bfloat16", "float16"):
        assert torch.equal(scale_embedding(golden["motion"], getattr(torch, dtype)).float(), golden[f"motion.{dtype}"]), dtype


@needs(V2)
def test_steps(agrees):
    golden = goldens.read(V2, "step")
    for key in {name.rsplit(".", 1)[0] for name in golden}:
        original, steps = map(int, key.split("."))
        timesteps = schedule().consistency(steps, original)
        tables, update = tables_and_update("consistency", schedule(), timesteps, 0.0)
        noise = golden[f"{key}.noise"] if f"{key}.noise" in golden else torch.zeros_like(golden[f"{key}.x"])
        for place, (x, e, drawn) in enumerate(zip(golden[f"{key}.x"], golden[f"{key}.e"], noise, strict=True)):
            index = steps - 1 - place
            clean = clean_and_noise(x, e, tables, index)
            one = tables_and_update("consistency", schedule(), timesteps[index : index + 1], 0.0)[1]
            denoised = one(*clean, 0, drawn)
            agrees(V2, "predictions", denoised, golden[f"{key}.denoised"][place], PASS_TOLERANCE)
            following = update(*clean, index, drawn)
            if index == 0:  # the reference noises the result once more to its own timestep, and uses that for nothing
                assert torch.equal(following, denoised)
                following = noised(denoised, drawn, schedule(), int(timesteps[0])) if steps > 1 else denoised
            agrees(V2, "predictions", following, golden[f"{key}.x_next"][place], PASS_TOLERANCE)


@needs(V1)
def test_the_list_of_version_1(tmp_path):
    """Its order, its two pickles and the sums of all merged weights."""
    recorded = recording(V1)
    order = recorded.json("lora_order.json")
    shapes = part_shapes(golden_turbo.load(V1).config, "unet")
    assert layers_of(dict(sorted(shapes.items()))) == [layer for layer, *_ in order]
    matrices = open_tensor_list(golden_turbo.write_list(recorded, tmp_path / "unet_lora.pt"))
    pairs = pairs_by_layer(matrices, shapes)
    assert [[layer, list(shapes[f"{layer}.weight"]), list(up.shape), list(down.shape)] for layer, (down, up) in pairs.items()] == order
    parameters = open_tensor_list(recorded.path("unet_lora_parameters.pt"))
    assert all(torch.equal(one.read(), other.read()) for one, other in zip(parameters, matrices, strict=False))
    merged = dict(golden_turbo.load(V1).unet.named_parameters())
    golden = recorded.read("merged")
    for name in golden:
        if name != "sums":
            assert goldens.error(merged[name.removeprefix("merged.")], golden[name]) <= 1e-6, name
    sums = [[weight.double().sum(), weight.double().square().sum().sqrt()] for weight in (merged[f"{each[0]}.weight"] for each in order)]
    assert torch.allclose(torch.tensor(sums, dtype=torch.float64), golden["sums"], rtol=1e-5, atol=1e-4)


@needs(V1)
def test_the_published_list_of_version_1():
    listed = recording(V1).json("published.json")["tensors"]
    shapes = part_shapes(load_config(V1), "unet")
    assert [[layer, list(shapes[f"{layer}.weight"])] for layer in layers_of(shapes)] == [each[:2] for each in listed]
    assert list(pairs_by_layer([torch.empty(shape, device="meta") for each in listed for shape in each[2:]], shapes)) == [
        each[0] for each in listed
    ]


@needs(V2)
def test_the_published_tensors_of_version_2():
    listed = recording(V2).json("published.json")["tensors"]
    assert part_shapes(load_config(V2), "unet") == {name: tuple(shape) for name, shape in listed}


@pytest.mark.parametrize("name", RECORDED)
def test_tokens_and_text(name, agrees):
    golden, prompts = goldens.read(name, "encoders"), goldens.prompts(name)
    assert torch.equal(tokenize(prompts)[:, 0], golden["tokens"])
    agrees(name, "text", golden_turbo.load(name).encode_text(list(prompts)), golden["text"], PASS_TOLERANCE)


@pytest.mark.parametrize("name, case, condition", CASES)
def test_unet(name, case, condition, agrees):
    """With what goes into the embedding of time, of which the scales are a part."""
    recorded, model = recording(name), golden_turbo.load(name)
    seen: list[torch.Tensor] = []
    handle = model.unet.time_embed.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    try:
        ours = golden_turbo.run_unet(model, recorded, case, condition)
    finally:
        handle.remove()
    agrees(name, "UNet", seen[0], recorded.read("unet")[f"{case}.emb_{condition}"], PASS_TOLERANCE)
    agrees(name, "UNet", ours, recorded.read("unet")[f"{case}.y_{condition}"], PASS_TOLERANCE)


@pytest.mark.parametrize("name, run", RUNS)
def test_runs(name, run, agrees):
    golden = goldens.read(name, "sampling")
    result = golden_turbo.run_sampling(recording(name), run)
    for ours, theirs in zip(result.predictions, golden[f"{run}.denoised"], strict=True):
        agrees(name, "predictions", ours, theirs[None], RUN_TOLERANCE)
    agrees(name, "latent", result.latent, golden[f"{run}.latent"], RUN_TOLERANCE)
    if f"{run}.video" in golden:
        agrees(name, "pixels / 255", result.video, golden[f"{run}.video"], PIXEL_TOLERANCE)


@pytest.mark.parametrize("run", golden_turbo.runs(recording(V2)) if V2 in RECORDED else [])
def test_the_network_s_output_at_each_step(run, agrees):
    """Below the threshold the branch of motion still runs, with a scale of 0: 3e-4 of the latent if it is left out."""
    golden, described = goldens.read(V2, "sampling"), golden_turbo.settings(recording(V2), run)
    if f"{run}.e" not in golden:
        pytest.skip("not recorded")
    model, outputs = golden_turbo.load(V2), []
    handle = model.unet.out.register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    try:
        golden_turbo.run_sampling(recording(V2), run)
    finally:
        handle.remove()
    assert described["timesteps"] == schedule().consistency(described["steps"], described["origin_steps"]).flip(0).tolist()
    for ours, theirs in zip(outputs, golden[f"{run}.e"], strict=True):
        agrees(V2, "predictions", ours.transpose(0, 1), theirs, RUN_TOLERANCE)  # [t, c, h, w] in the UNet


@needs(V2)
def test_one_step_uses_no_noise():
    model, shape = golden_turbo.load(V2), (1, 4, 2, 4, 4)
    text = model.encode_text(["a swan"])
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    conditioning = golden_turbo.Conditioning(text)
    results = [model.sample(conditioning, conditioning, noise=RecordedNoise(start, [noise]), steps=1) for noise in (start, 0 * start)]
    assert torch.equal(*results)
