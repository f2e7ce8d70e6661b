"""What a GPU's kernels and memory make of a run: attention with limits, compiled models, decoding under a limit of memory.

Stand-ins have the limits here; the numbers are the CPU's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import dedent

import pytest
import torch
from safetensors.torch import save_file

import vc_core
from harness import goldens
from harness.bench import BUNDLED, T2V, T2V_V1, Bench, apart, core_latent, same
from harness.client import ComfyError, Progress
from harness.goldens import TOLERANCE
from harness.graphs import out
from harness.server import TEST_NODES, Server, running
from harness.works_with.lora import low_rank, unet_matrices, write_lora
from tests.comfyui.conftest import PACK_NAME
from tests.comfyui.test_options import SIZE

#: As the package of that name, with the limits that its kernels have; exact otherwise.
SAGE = dedent('''
    import json
    import os

    import torch

    def sageattn(q, k, v, is_causal=False, attn_mask=None, tensor_layout="HND", sm_scale=None, **kwargs):
        if tensor_layout == "NHD":
            q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        with open(os.environ["SAGE_CALLS"], "a") as file:
            file.write(json.dumps([list(q.shape), list(k.shape)]) + "\\n")
        if q.shape[-1] not in (64, 96, 128):
            raise ValueError(f"Unsupported head_dim: {q.shape[-1]}")
        assert q.shape[2] == k.shape[2], "lengths of queries and keys differ"
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=sm_scale)
        return out.transpose(1, 2) if tensor_layout == "NHD" else out
''')


@pytest.fixture(scope="module")
def with_sage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ComfyUI with --use-sage-attention and that package, and with a VAE in float16."""
    packages = tmp_path_factory.mktemp("packages")
    (packages / "sageattention").mkdir()
    (packages / "sageattention" / "__init__.py").write_text(SAGE)
    base = tmp_path_factory.mktemp("with_sage")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(packages))
        patched.setenv("SAGE_CALLS", str(base / "calls"))
        flags = ["--use-sage-attention", "--fp16-vae"]
        with running(base, pack_name=PACK_NAME, custom_nodes=TEST_NODES, flags=flags) as server:
            yield server


@pytest.mark.full
@pytest.mark.parametrize("model", [T2V, T2V_V1, BUNDLED])
def test_an_attention_with_limits_that_the_user_chose(with_sage, model):
    """Core's choice passes through: width 64 where the model has it, every refusal falls back, and the video is the same."""
    calls = with_sage.base / "calls"
    calls.write_text("")
    bench = Bench(with_sage, model, size=SIZE)
    bench.save("latent", latent=bench.authors(cfg=2.0))
    latent = bench.results()["latent"]
    shapes = [json.loads(line) for line in calls.read_text().splitlines()]
    assert shapes, "the chosen attention was not called"
    width = vc_core.load(bench.path if model != BUNDLED else bench.path.stem.split()[0]).config.unet.head_channels
    assert {q[-1] for q, _ in shapes} == {width}
    assert {q[2] for q, _ in shapes} >= {(SIZE // 8) ** 2}, "long sequences"
    if model != BUNDLED:
        assert apart(latent, core_latent(bench.path, guidance_scale=2.0, height=SIZE, width=SIZE)) <= TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("model", [T2V, BUNDLED])
def test_a_node_s_attention_with_limits(with_sage, model):
    """A node that overrides attention with a kernel: what it refuses is computed without it, call by call."""
    bench = Bench(with_sage, model, size=SIZE)
    bench.save("plain", latent=bench.authors())
    patched = bench.add("TestRefusingAttention", model=bench.model, file=f"refused_{model}.txt")
    bench.save("limited", latent=bench.authors(model=out(patched)))
    results = bench.results()
    same(results["limited"], results["plain"])
    computed = (with_sage.base / "output" / f"refused_{model}.txt").read_text().splitlines()
    assert {json.loads(line)[-1] for line in computed} <= {64, 96, 128}


@pytest.mark.full
def test_a_frame_beyond_float16_is_an_error_that_names_it(with_sage):
    """One of 16, whose latent float16 can't hold, so that float32 doesn't help either: never black in silence."""
    torch.manual_seed(0)
    latents = torch.randn(16, 4, 8, 8)
    latents[5] *= 1e6
    save_file({"latent_tensor": latents, "latent_format_version_0": torch.tensor([])}, with_sage.base / "input" / "large.latent")
    bench = Bench(with_sage, BUNDLED)
    bench.save("image", image=bench.decode(out(bench.add("LoadLatent", latent="large.latent"))))
    with pytest.raises(ComfyError, match="1 of the frames, the first of them number 6, hold values that are no numbers"):
        bench.results()


def test_pieces_shrink_before_tiles(comfyui):
    """16 frames, 8 at once, with memory for 4 and for 1: the images are those of enough memory."""
    bench = Bench(comfyui, BUNDLED, frames=16)
    latent, vae, frame = bench.authors(), bench.vae, 8 * 8
    for name, positions in (("enough", 1 << 30), ("four", 4 * frame), ("one", frame)):
        starved = out(bench.add("TestStarvedVAE", vae=vae, times=0, positions=positions))
        bench.save(name, image=out(bench.add("VideoCrafterDecode", samples=latent, vae=starved, frames_at_once=8)))
    results = bench.results()
    for name in ("four", "one"):
        assert (results[name] - results["enough"]).abs().max() <= 1e-5


def test_the_latent_survives_a_decoding_without_memory(comfyui):
    """The second queue decodes at once, without sampling again."""
    bench = Bench(comfyui, BUNDLED, frames=16)
    vae, latent = bench.vae, bench.authors(seed=77, steps=8)
    bench.vae = out(bench.add("TestStarvedVAE", vae=vae, times=1000))
    bench.save("image", image=bench.decode(latent))
    with pytest.raises(ComfyError, match="a test said so"):
        bench.results()
    assert any(isinstance(event, Progress) and event.maximum == 8 for event in bench.events)
    bench.events.clear()
    bench.prompt[bench.vae[0]]["inputs"]["times"] = 0
    assert bench.results()["image"].isfinite().all()
    assert not any(isinstance(event, Progress) and event.maximum == 8 for event in bench.events)


def graphs(comfyui: Server, file: str) -> int:
    """How many graphs a TestCompile node compiled."""
    path = comfyui.base / "output" / file
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.full
def test_a_second_run_compiles_nothing(comfyui):
    """A model compiled as core's TorchCompileModel does it is one graph; at the same size, with another seed, no other is made."""
    bench, counts = Bench(comfyui, BUNDLED), []
    compiled = out(bench.add("TestCompile", model=bench.model, file="graphs_of_two_runs.txt"))
    for seed in (1, 2):
        bench.save(f"{seed}", latent=bench.ksampler(model=compiled, seed=seed, steps=2))
        bench.save(f"plain {seed}", latent=bench.ksampler(seed=seed, steps=2))
        results = bench.results()
        same(results[f"{seed}"], results[f"plain {seed}"])
        counts.append(graphs(comfyui, "graphs_of_two_runs.txt"))
    assert counts == [1, 1]


@pytest.mark.full
def test_other_sizes_share_a_graph(comfyui):
    """The first size has a graph of its own, as torch makes it by default; the second brings one for all."""
    bench, counts = Bench(comfyui, BUNDLED), []
    compiled = out(bench.add("TestCompile", model=bench.model, file="graphs_of_sizes.txt"))
    for frames, height, width in [(4, 48, 80), (6, 64, 112), (3, 80, 128)]:
        latent = out(bench.add("EmptyVideoCrafterLatent", width=width, height=height, length=frames, batch_size=1))
        bench.save("compiled", latent=bench.ksampler(model=compiled, steps=1, latent_image=latent))
        bench.save("plain", latent=bench.ksampler(steps=1, latent_image=latent))
        results = bench.results()
        same(results["compiled"], results["plain"])
        counts.append(graphs(comfyui, "graphs_of_sizes.txt"))
    assert counts == [1, 2, 2]


@pytest.mark.full
@pytest.mark.parametrize("order", ["LoRA, then compiled", "compiled, then LoRA"])
def test_a_compiled_model_follows_a_lora(comfyui, order):
    bench = Bench(comfyui, T2V)
    weights, lora = dict(goldens.weights(T2V)), {}
    for name, (up, down) in low_rank(unet_matrices(weights), 0.1).items():
        lora |= {f"diffusion_model.{name}.lora_up.weight": up, f"diffusion_model.{name}.lora_down.weight": down}
    file = write_lora(bench, "compiled", lora)

    def loaded(model, strength: float):
        return out(bench.add("LoraLoaderModelOnly", model=model, lora_name=file, strength_model=strength))

    def compiled(model):
        return out(bench.add("TestCompile", model=model))

    for strength in (0.0, 1.0):
        model = compiled(loaded(bench.model, strength)) if order.startswith("LoRA") else loaded(compiled(bench.model), strength)
        bench.save(f"compiled {strength}", latent=bench.ksampler(model=model, steps=2))
        bench.save(f"plain {strength}", latent=bench.ksampler(model=loaded(bench.model, strength), steps=2))
    results = bench.results()
    for strength in (0.0, 1.0):
        same(results[f"compiled {strength}"], results[f"plain {strength}"])
    assert apart(results["compiled 1.0"], results["compiled 0.0"]) > 0.05
