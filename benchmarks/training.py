"""What one update of a LoRA's training takes: `python -m benchmarks.training --model t2v_512_v2 --frames 16 --height 64 --width 64`.

The UNet has its published size and drawn weights, which need no file; text and latents are drawn, too. Peak memory is that of the
process, or of the GPU.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from vc_core.config import load_config
from vc_core.devices import default_device
from vc_core.diffusion.schedule import Schedule
from vc_core.models.conditioning import Conditioning
from vc_core.models.layers import LayerFactory
from vc_core.models.unet import UNet
from vc_core.training.lora import add_lora
from vc_core.training.loss import Batch, DiffusionLoss
from vc_core.training.networks import Denoiser, prepare_for_training
from vc_core.training.options import LoraSettings
from vc_core.training.settings import LossSettings, TrainerSettings
from vc_core.training.trainer import Pass, Trainer


def main() -> None:
    """Make the updates and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default="t2v_512_v2", help="a published configuration")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--updates", type=int, default=1)
    parser.add_argument("--no-checkpointing", action="store_true", help="keep all activations")
    parser.add_argument("--device", default=default_device())
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    config = load_config(arguments.model)
    unet = _drawn(UNet(config.unet, LayerFactory(device="meta")), device, torch.bfloat16 if on_gpu else torch.float32)
    weights = sum(each.numel() for each in unet.parameters())
    print(f"{config.title}: {weights / 1e6:.0f} million weights, {_memory(device)} with them loaded")
    add_lora(unet, LoraSettings(rank=arguments.rank), 0)
    denoiser = prepare_for_training(Denoiser(unet), checkpointing=not arguments.no_checkpointing)
    loss = DiffusionLoss(Schedule.from_config(config.schedule), LossSettings(config.schedule.prediction))
    size = (config.unet.out_channels, arguments.frames, arguments.height // config.downscale, arguments.width // config.downscale)

    def drawn_loss(network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        latents = torch.randn(1, *size, generator=run.generator).to(device)
        text = torch.randn(1, 77, config.unet.context_dim, generator=run.generator).to(device)
        return loss(network, Batch(latents, Conditioning(text), Conditioning(text)), run.generator), {}

    settings = TrainerSettings(
        updates=arguments.updates, batch=1, learning_rate=1e-4, save_every=10**6, log_every=1, precision="bfloat16" if on_gpu else "float32"
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(denoiser, drawn_loss, settings, Path(folder) / "state.pt", "update", device=device)
        began = time.monotonic()
        for _ in range(arguments.updates):
            figures = trainer.step()
        seconds = (time.monotonic() - began) / arguments.updates
    checkpointing = "without" if arguments.no_checkpointing else "with"
    shape = f"{arguments.frames} frames of {arguments.width}x{arguments.height}, rank {arguments.rank}, {checkpointing} checkpointing"
    print(f"{shape}: {seconds:.1f} s an update, loss {figures['loss']:.3f}, {_memory(device)}")


def _drawn(unet: UNet, device: torch.device, dtype: torch.dtype) -> UNet:
    """The network with small random weights, without a moment in which it is in memory twice."""
    unet = unet.to(dtype).to_empty(device=device)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.02)
    return unet


def _memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"peak {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of GPU memory"
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB of memory"  # kB on Linux


if __name__ == "__main__":
    main()
