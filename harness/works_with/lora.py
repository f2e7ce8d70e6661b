"""LoRA, merging and saving."""

from __future__ import annotations

import torch
from safetensors.torch import save_file
from torch import Tensor

from .. import goldens
from ..bench import BUNDLED, DYNAMICRAFTER, I2V, SWAN, T2V, T2V_V1, TITLES, Bench, Link, apart, core_latent, same
from ..graphs import out
from .table import LORA, Check, row

RANK, ALPHA, STRENGTH = 2, 3.0, 0.7


def low_rank(weights: dict[str, Tensor], size: float) -> dict[str, tuple[Tensor, Tensor]]:
    """Two factors ``[out, rank, ...]`` and ``[rank, in, ...]`` for each weight."""
    draw = torch.manual_seed(3)
    factors = {}
    for name, weight in weights.items():
        up = torch.randn(weight.shape[0], RANK, *[1] * (weight.ndim - 2), generator=draw)
        down = torch.randn(RANK, *weight.shape[1:], generator=draw)
        factors[name] = size * up * weight.float().std(), down
    return factors


def added(weight: Tensor, up: Tensor, down: Tensor, strength: float) -> Tensor:
    """``W + strength * B A``."""
    return weight.float() + strength * (up.flatten(1) @ down.flatten(1)).view_as(weight)


def unet_matrices(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every weight of the UNet that has a matrix's two sides, by its name there without ``.weight``."""
    prefix, end = "model.diffusion_model.", ".weight"
    found = {name: value for name, value in weights.items() if name.startswith(prefix) and name.endswith(end) and value.ndim > 1}
    return {name[len(prefix) : -len(end)]: value for name, value in found.items()}


def write_lora(bench: Bench, name: str, tensors: dict[str, Tensor]) -> str:
    """A file in the server's folder of LoRAs."""
    folder = bench.comfyui.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / f"{bench.name}_{name}.safetensors")
    return f"{bench.name}_{name}.safetensors"


@row(
    LORA, "LoraLoader, kohya's names (lora_unet_..., lora_te_...)",
    "every matrix of UNet and text encoder, at strength s the weights W + s alpha / rank B A, at 0 the identity", T2V, T2V_V1,
)
def kohya_lora(bench: Bench) -> Check:
    weights = dict(goldens.weights(bench.name))
    lora: dict[str, Tensor] = {}
    for name, (up, down) in low_rank(unet_matrices(weights), 0.1).items():
        stem, full = "lora_unet_" + name.replace(".", "_"), f"model.diffusion_model.{name}.weight"
        lora |= {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down, f"{stem}.alpha": torch.tensor(ALPHA)}
        weights[full] = added(weights[full], up, down, STRENGTH * ALPHA / RANK)
    tower = "cond_stage_model.model.transformer.resblocks.0"
    width = weights[f"{tower}.attn.out_proj.weight"].shape[0]
    # kohya's names are those of transformers, which has apart what OpenCLIP keeps in one matrix.
    places = {"self_attn_out_proj": ("attn.out_proj.weight", 0), "mlp_fc1": ("mlp.c_fc.weight", 0), "mlp_fc2": ("mlp.c_proj.weight", 0)}
    places |= {f"self_attn_{part}_proj": ("attn.in_proj_weight", width * index) for index, part in enumerate("qkv")}
    for name, (stored, start) in places.items():
        matrix = weights[f"{tower}.{stored}"].float()
        rows = slice(start, start + width) if "in_proj" in stored else slice(None)
        ((up, down),) = low_rank({name: matrix[rows]}, 0.3).values()
        lora |= {f"lora_te_text_model_encoder_layers_0_{name}.lora_{side}.weight": part for side, part in (("up", up), ("down", down))}
        matrix[rows] = added(matrix[rows], up, down, STRENGTH)
        weights[f"{tower}.{stored}"] = matrix
    changed = bench.checkpoint(f"{bench.name}_changed", weights)
    file = write_lora(bench, "kohya", lora)
    bench.save("plain", latent=bench.authors())
    for strength in (0.0, STRENGTH):
        loaded = bench.add(
            "LoraLoader", model=bench.model, clip=bench.clip, lora_name=file, strength_model=strength, strength_clip=strength
        )
        positive = bench.with_fps(bench.encode(SWAN, out(loaded, 1)))
        bench.save(f"{strength:g}", latent=bench.authors(model=out(loaded), positive=positive))

    def check(results: dict[str, Tensor]) -> None:
        assert torch.equal(results["0"], results["plain"])
        same(results[f"{STRENGTH:g}"], core_latent(changed))
        assert apart(results[f"{STRENGTH:g}"], results["plain"]) > 0.05

    return check


@row(
    LORA,
    "LoraLoaderModelOnly, plain names (diffusion_model....)",
    "with lora_up and lora_down, or lora_A and lora_B",
    T2V,
    I2V,
    DYNAMICRAFTER,
)
def plain_lora(bench: Bench) -> Check:
    weights = dict(goldens.weights(bench.name))
    styles = {"updown": ("lora_up", "lora_down"), "ab": ("lora_B", "lora_A")}
    loras: dict[str, dict[str, Tensor]] = {style: {} for style in styles}
    for name, (up, down) in low_rank(unet_matrices(weights), 0.1).items():
        for style, sides in styles.items():
            loras[style] |= {f"diffusion_model.{name}.{side}.weight": part for side, part in zip(sides, (up, down), strict=True)}
        weights[f"model.diffusion_model.{name}.weight"] = added(weights[f"model.diffusion_model.{name}.weight"], up, down, STRENGTH)
    bench.save("plain", latent=bench.authors())
    bench.save("expected", latent=bench.authors(model=out(bench.load(f"{bench.name}_changed_plain", weights))))
    for style, lora in loras.items():
        file = write_lora(bench, style, lora)
        loaded = bench.add("LoraLoaderModelOnly", model=bench.model, lora_name=file, strength_model=STRENGTH)
        bench.save(style, latent=bench.authors(model=out(loaded)))

    def check(results: dict[str, Tensor]) -> None:
        for style in styles:
            same(results[style], results["expected"])
        assert apart(results["expected"], results["plain"]) > 0.05

    return check


@row(
    LORA, "CreateHookLora, CreateHookKeyframe, SetHookKeyframes, PairConditioningSetProperties",
    "as LoraLoaderModelOnly; a keyframe in the middle switches it on from there", T2V, DYNAMICRAFTER,
)
def lora_hooks(bench: Bench) -> Check:
    factors = low_rank(unet_matrices(goldens.weights(bench.name)), 0.1)
    lora = {
        f"diffusion_model.{name}.lora_{side}.weight": part
        for name, pair in factors.items()
        for side, part in zip(("up", "down"), pair, strict=True)
    }
    file = write_lora(bench, "hooked", lora)
    patched = out(bench.add("LoraLoaderModelOnly", model=bench.model, lora_name=file, strength_model=STRENGTH))

    def hooked(*keyframes: tuple[float, float]) -> Link:
        hooks = bench.add("CreateHookLora", lora_name=file, strength_model=STRENGTH, strength_clip=0.0)
        if keyframes:
            earlier: dict[str, Link] = {}
            for start, strength in keyframes:
                earlier = {"prev_hook_kf": out(bench.add("CreateHookKeyframe", start_percent=start, strength_mult=strength, **earlier))}
            hooks = bench.add("SetHookKeyframes", hooks=out(hooks), hook_kf=earlier["prev_hook_kf"])
        both = bench.add(
            "PairConditioningSetProperties", positive_NEW=bench.positive, negative_NEW=bench.negative, strength=1.0,
            set_cond_area="default", hooks=out(hooks),
        )
        return bench.ksampler(steps=4, cfg=2.0, positive=out(both), negative=out(both, 1))

    bench.save("plain", latent=bench.ksampler(steps=4, cfg=2.0))
    bench.save("loaded", latent=bench.ksampler(steps=4, cfg=2.0, model=patched))
    bench.save("hooked", latent=hooked())
    # Four steps of the normal scheduler stand at the timesteps 999, 666, 333 and 0: the third is the first past the middle.
    bench.save("switched", latent=hooked((0.0, 0.0), (0.5, 1.0)))
    bench.save("halves", latent=bench.part(2, 4, cfg=2.0, model=patched, latent_image=bench.part(0, 2, cfg=2.0)))

    def check(results: dict[str, Tensor]) -> None:
        same(results["hooked"], results["loaded"])
        same(results["switched"], results["halves"])
        assert min(apart(results["loaded"], results["plain"]), apart(results["switched"], results["loaded"])) > 0.02

    return check


@row(
    LORA, "ModelMergeSimple", "the UNet's weights are the weighted mean; an image model keeps the first one's projector", T2V, DYNAMICRAFTER
)
def merging(bench: Bench) -> Check:
    first = goldens.weights(bench.name)
    draw = torch.manual_seed(5)
    second = {
        name: value.float() + 0.1 * value.float().std() * torch.randn(value.shape, generator=draw)
        if name.startswith("model.diffusion_model.") and value.ndim > 1 else value
        for name, value in first.items()
    }
    mean = {name: 0.25 * value.float() + 0.75 * second[name].float() for name, value in first.items()}
    other = out(bench.load(f"{bench.name}_second", second))
    bench.save("plain", latent=bench.authors())
    bench.save("merged", latent=bench.authors(model=out(bench.add("ModelMergeSimple", model1=bench.model, model2=other, ratio=0.25))))
    bench.save("mean", latent=bench.authors(model=out(bench.load(f"{bench.name}_mean", mean))))

    def check(results: dict[str, Tensor]) -> None:
        same(results["merged"], results["mean"])
        assert apart(results["merged"], results["plain"]) > 0.02

    return check


@row(
    LORA, "CheckpointSave",
    "the file loads again and makes the same video, with projector and sample scale; like all files of this node it has no image encoder",
    T2V, T2V_V1, I2V, DYNAMICRAFTER, BUNDLED,
)
def saving(bench: Bench) -> Check:
    name = f"saved {TITLES[bench.name]}"  # tells nothing of the model
    bench.add("CheckpointSave", model=bench.model, clip=bench.clip, vae=bench.vae, filename_prefix=name)
    bench.comfyui.run(bench.prompt)
    written = max(bench.comfyui.base.glob(f"output/{name}_*.safetensors"))
    loader = bench.add(
        "VideoCrafterLoader", ckpt_name=written.replace(bench.comfyui.checkpoints / written.name).name, weight_dtype="default"
    )
    sampled = bench.authors(cfg=2.0)
    bench.save("latent", latent=sampled)
    bench.save("latent again", latent=bench.authors(cfg=2.0, model=out(loader)))
    bench.save("text", conditioning=bench.text)
    bench.save("text again", conditioning=bench.encode(bench.prompts[0], out(loader, 1)))
    bench.save("frames", image=bench.decode(sampled))
    bench.vae = out(loader, 2)
    bench.save("frames again", image=bench.decode(sampled))

    def check(results: dict[str, Tensor]) -> None:
        for kind in ("latent", "text", "frames"):
            same(results[f"{kind} again"], results[kind])

    return check
