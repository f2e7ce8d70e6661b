"""How far the core is from the reference's recorded numbers: `python -m dev.parity` prints the table of docs/parity.md."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

import vc_core
from harness import goldens

NOT_RECORDED = float("nan")


def errors(name: str) -> Iterator[tuple[str, float]]:
    """The largest error of each kind of tensor of one recorded model, relative to its largest magnitude; nan where none is recorded."""
    with tempfile.TemporaryDirectory() as folder:
        model = vc_core.load(goldens.write_checkpoint(name, Path(folder) / "model.safetensors"))
        unet, encoders = goldens.read(name, "unet"), goldens.read(name, "encoders")
        cases = []
        for case in ("0", "1"):
            context = unet[f"{case}.context"]
            image = context[:, 77:] if context.shape[1] > 77 else None
            inputs = unet[f"{case}.x"], unet[f"{case}.timesteps"], context[:, :77]
            cases.append(goldens.error(model.unet(*inputs, image_tokens=image, fps=goldens.rate(unet, case)), unet[f"{case}.y"]))
        yield "UNet", max(cases)
        text = torch.cat([encoders["text"], encoders["empty"]]) if "empty" in encoders else encoders["text"]
        yield "text", goldens.error(model.encode_text(list(goldens.prompts(name))), text)
        photo = encoders.get("photo")
        if name in goldens.DYNAMICRAFTER:
            yield "VAE", goldens.error(model.encode(photo[:, :, None])[:, :, 0], encoders["z"])
        else:
            yield "VAE", goldens.error(model.encode(encoders["image"][:, :, None])[:, :, 0] / 0.18215, encoders["vae_mean"])
        yield "image tokens", NOT_RECORDED if photo is None else goldens.error(model.encode_image(photo), encoders["image_tokens"])
        yield from (dynamicrafter_runs if name in goldens.DYNAMICRAFTER else runs)(name, model, photo)


def runs(name: str, model: vc_core.VideoModel, photo: torch.Tensor | None) -> Iterator[tuple[str, float]]:
    """The same of every recorded run of VideoCrafter: predictions, last latent, and pixels out of 255."""
    golden = goldens.read(name, "sampling")
    make = model.text_to_video if photo is None else partial(model.image_to_video, photo[:1])
    worst = {"predictions": 0.0, "latent": 0.0, "pixels / 255": 0.0}
    for run in ("0", "1", "2"):
        steps, eta, scale, fps = golden[f"{run}.settings"].tolist()
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        video = make(
            goldens.PROMPTS[0], goldens.PROMPTS[2], steps=int(steps), eta=eta, guidance_scale=scale, fps=fps,
            x_T=golden[f"{run}.x_T"], step_noise=golden[f"{run}.noise"], callback=lambda step, total, *given, seen=seen: seen.append(given),
        )  # fmt: skip
        predicted = [goldens.error(ours, theirs) for (ours, _), theirs in zip(seen, golden[f"{run}.pred_x0"], strict=True)]
        pixels = (video - golden[f"{run}.video"].float().clamp(-1, 1)).abs().max().item() * 127.5
        found = (max(predicted), goldens.error(seen[-1][1], golden[f"{run}.latent"]), pixels)
        worst = {kind: max(value, new) for (kind, value), new in zip(worst.items(), found, strict=True)}
    yield from worst.items()


def dynamicrafter_runs(name: str, model: vc_core.VideoModel, photo: torch.Tensor) -> Iterator[tuple[str, float]]:
    """The last latent of every recorded run of DynamiCrafter, which is all that is recorded of them."""
    golden, worst = goldens.read(name, "sampling"), 0.0
    for run in ("0", "1", "2"):
        steps, eta, scale, rate, trailing, rescale, image_scale = golden[f"{run}.settings"].tolist()
        model.keyframe_latents = lambda *_, run=run: golden[f"{run}.concat"]  # type: ignore[method-assign]
        seen: list[torch.Tensor] = []
        model.image_to_video(
            photo, *goldens.prompts(name), steps=int(steps), eta=eta, guidance_scale=scale, guidance_rescale=rescale, fps=rate,
            spacing="uniform_trailing" if trailing else "uniform", image_guidance_scale=image_scale or None,
            x_T=golden[f"{run}.x_T"], step_noise=golden[f"{run}.noise"], callback=lambda step, total, x0, x, seen=seen: seen.append(x),
        )  # fmt: skip
        worst = max(worst, goldens.error(seen[-1], golden[f"{run}.latent"]))
    yield from {"predictions": NOT_RECORDED, "latent": worst, "pixels / 255": NOT_RECORDED}.items()


def main() -> None:
    """Print the table as Markdown."""
    rows = {name: dict(errors(name)) for name in goldens.MODELS}
    kinds = list(rows[goldens.MODELS[0]])
    print("| model | " + " | ".join(kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    for name, row in rows.items():
        print(f"| `{name}` | " + " | ".join("" if value != value else f"{value:.1e}" for value in row.values()) + " |")


if __name__ == "__main__":
    main()
