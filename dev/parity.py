"""How far the core is from the reference's recorded numbers: `python -m dev.parity` prints the README's table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

import vc_core
from tests import goldens


def errors(name: str) -> Iterator[tuple[str, float]]:
    """The largest error of each kind of tensor of one recorded model, relative to its largest magnitude."""
    with tempfile.TemporaryDirectory() as folder:
        model = vc_core.load(goldens.write_checkpoint(name, Path(folder) / "model.safetensors"))
        unet, encoders = goldens.read(name, "unet"), goldens.read(name, "encoders")
        cases = []
        for case in ("0", "1"):
            context = unet[f"{case}.context"]
            image = context[:, 77:] if context.shape[1] > 77 else None
            inputs = unet[f"{case}.x"], unet[f"{case}.timesteps"], context[:, :77]
            cases.append(goldens.error(model.unet(*inputs, image_tokens=image, fps=unet[f"{case}.fps"]), unet[f"{case}.y"]))
        yield "UNet", max(cases)
        yield "text", goldens.error(model.encode_text(list(goldens.PROMPTS)), encoders["text"])
        yield "VAE", goldens.error(model.encode(encoders["image"][:, :, None])[:, :, 0] / 0.18215, encoders["vae_mean"])
        photo = encoders.get("photo")
        yield "image tokens", float("nan") if photo is None else goldens.error(model.encode_image(photo), encoders["image_tokens"])
        make = model.text_to_video if photo is None else partial(model.image_to_video, photo[:1])
        yield from runs(name, make)


def runs(name: str, make: partial[torch.Tensor]) -> Iterator[tuple[str, float]]:
    """The same of every recorded run: predictions, last latent, and pixels out of 255."""
    golden = goldens.read(name, "sampling")
    worst = {"predictions": 0.0, "latent": 0.0, "pixels / 255": 0.0}
    for run in ("0", "1", "2"):
        steps, eta, scale, fps = golden[f"{run}.settings"].tolist()
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []

        def watch(
            step: int, steps: int, x0: torch.Tensor, x: torch.Tensor, seen: list[tuple[torch.Tensor, torch.Tensor]] = seen
        ) -> None:
            seen.append((x0, x))

        video = make(
            goldens.PROMPTS[0], goldens.PROMPTS[2], steps=int(steps), eta=eta, guidance_scale=scale, fps=fps,
            x_T=golden[f"{run}.x_T"], step_noise=golden[f"{run}.noise"], callback=watch,
        )  # fmt: skip
        predicted = [goldens.error(ours, theirs) for (ours, _), theirs in zip(seen, golden[f"{run}.pred_x0"], strict=True)]
        pixels = (video - golden[f"{run}.video"].float().clamp(-1, 1)).abs().max().item() * 127.5
        found = (max(predicted), goldens.error(seen[-1][1], golden[f"{run}.latent"]), pixels)
        worst = {kind: max(value, new) for (kind, value), new in zip(worst.items(), found, strict=True)}
    yield from worst.items()


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
