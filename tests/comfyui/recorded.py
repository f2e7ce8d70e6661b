"""What a UNet was given and gave in ComfyUI, and the core's UNet on the same."""

from __future__ import annotations

from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor

from harness.server import Server
from vc_core.diffusion.deep_cache import DeepFeatures
from vc_core.diffusion.schedule import Schedule
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import Hooks
from vc_core.models.unet import UNet

POSITIVE, NEGATIVE = 0, 1
#: Between the latents that ComfyUI shows and those that a model sees.
LATENT_SCALE = 0.18215


class Pass:
    """One pass of several conditionings through a UNet, as a node TestRecord wrote it, with ``frames`` a video."""

    def __init__(self, tensors: dict[str, Tensor], frames: int) -> None:
        self.tensors, self.frames = tensors, frames

    @property
    def conditionings(self) -> list[int]:
        return self.tensors["conditionings"].tolist()

    def of(self, conditioning: int, name: str = "out") -> Tensor:
        """The rows of a conditioning, of what the UNet gave (or was given), ``[frames, 4, h, w]``."""
        return self.tensors[name].chunk(len(self.conditionings))[self.conditionings.index(conditioning)]

    def residuals(self, part: str) -> list[Tensor | None]:
        """What ControlNets gave for a part of the UNet, the first block's last."""
        return [self.tensors.get(f"{part}.{index}") for index in range(int(self.tensors.get(f"{part}.count", 0)))]

    @property
    def controlled(self) -> bool:
        return any(self.residuals(part) for part in ("input", "middle", "output"))

    def by_hand(self, unet: UNet, hooks: Hooks | None = None, deep: DeepFeatures | None = None) -> Tensor:
        """The core's UNet on the same, ``[n, 4, h, w]``."""
        rows = ("timesteps", "context", "fps", "image_tokens", "image_strength")
        given = {name: self.tensors[name][:: self.frames] for name in rows if name in self.tensors}
        timesteps, conditioning = given.pop("timesteps"), Conditioning(given.pop("context"), **given)
        x = rearrange(self.tensors["x"], "(n t) c h w -> n c t h w", t=self.frames)
        inputs = unet.prepare(x, timesteps, conditioning, hooks)
        hidden = unet.stem(x, conditioning, inputs)
        hidden = unet.body(hidden, inputs) if deep is None else deep.run(unet, hidden, inputs)
        out = unet.head(hidden, inputs)
        return rearrange(out, "n c t h w -> (n t) c h w")


def passes(comfyui: Server, file: str, frames: int = 4) -> list[Pass]:
    """The passes in the order in which they ran."""
    return [Pass(load_file(path), frames) for path in sorted((comfyui.base / "output" / file).iterdir())]


class Start:
    """ComfyUI's variables at the last timestep of training, where its schedulers start."""

    def __init__(self, schedule: Schedule) -> None:
        self.prediction = schedule.prediction
        self.alpha, self.scale = schedule.alphas_cumprod[-1].double(), schedule.scale[-1].double()
        kept = self.alpha.clamp(min=4.8973451890853435e-08)
        self.sigma, self.input_scale = ((1 - kept) / kept).sqrt() / self.scale, kept.sqrt() * self.scale

    def x(self, seen: Tensor) -> Tensor:
        """The sampler's sample, of what the UNet saw of it, ``[n, 4, h, w]``."""
        return seen.double() / self.input_scale

    def denoised(self, seen: Tensor, predicted: Tensor) -> Tensor:
        """What a prediction says is clean."""
        if self.prediction == "eps":
            return self.x(seen) - self.sigma * predicted.double()
        return (self.alpha.sqrt() * seen.double() - (1 - self.alpha).sqrt() * predicted.double()) / self.scale
