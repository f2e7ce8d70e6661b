"""A LoRA of a UNet by peft: put in, read out, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError, VideoCrafterError
from ..lora.writing import UNET_PREFIX
from ..models.conditioning import Conditioning
from ..models.unet import UNet
from .networks import lora_targets
from .options import LoraSettings
from .trainer import generator_of

ADAPTER = "default"


class ExportError(VideoCrafterError):
    """A file that was written doesn't do what was trained."""


def add_lora(unet: UNet, settings: LoraSettings, seed: int) -> None:
    """Put a new LoRA into a UNet, whose own weights are frozen. It starts without effect: the ups are zero.

    Raises:
        InputError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("Training a LoRA needs accelerate and peft: pip install 'comfyui-videocrafter[train]'.") from error
    targets = lora_targets(unet, settings.spatial, settings.temporal, settings.feed_forward)
    unet.requires_grad_(False)
    torch.manual_seed(generator_of(seed, 3).initial_seed() % 2**63)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, use_dora=settings.dora, lora_dropout=settings.dropout, target_modules=targets  # type: ignore[arg-type]
    )
    inject_adapter_in_model(config, unet)
    for name, parameter in unet.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def lora_layers(unet: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers with a LoRA, by their names in the UNet."""
    return ((name, module) for name, module in unet.named_modules() if ADAPTER in getattr(module, "lora_A", {}))


def lora_weights(unet: nn.Module) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Down ``[rank, in]``, up ``[out, rank]`` and alpha of each layer with a LoRA, by its name."""
    return {
        name: (layer.lora_A[ADAPTER].weight.detach(), layer.lora_B[ADAPTER].weight.detach(), float(layer.lora_alpha[ADAPTER]))
        for name, layer in lora_layers(unet)
    }


def dora_scales(unet: nn.Module) -> dict[str, Tensor]:
    """What ComfyUI reads as ``dora_scale`` ``[out, 1]``, for each layer of a DoRA; empty for other LoRAs.

    With W the layer's weight, C its change and m the norm that was trained, a DoRA's weight is m (W + C) / |W + C|, the norms being of
    rows. ComfyUI computes s (W + C) / |W|, so s is m |W| / |W + C|.
    """
    found = {}
    for name, layer in lora_layers(unet):
        if ADAPTER in layer.lora_magnitude_vector:
            base, change = layer.base_layer.weight.detach().float(), layer.get_delta_weight(ADAPTER).detach().float()
            magnitude = layer.lora_magnitude_vector[ADAPTER].weight.detach()[:, None]
            found[name] = magnitude * base.norm(dim=1, keepdim=True) / (base + change).norm(dim=1, keepdim=True)
    return found


@contextmanager
def without_lora(unet: nn.Module) -> Iterator[None]:
    """While this is open, the LoRA has no effect."""
    layers = [layer for _, layer in lora_layers(unet)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged_weights(unet: nn.Module, file: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that a file's LoRA makes of those of the layers, by the names of the layers' parameters."""
    merged = {}
    for name, layer in lora_layers(unet):
        up, down, alpha = (file[f"{UNET_PREFIX}{name}.{end}"] for end in ("lora_B.weight", "lora_A.weight", "alpha"))
        base = layer.base_layer.weight
        weight = base.double() + (float(alpha) / down.shape[0] * up.double() @ down.double()).to(base.device)
        scale = file.get(f"{UNET_PREFIX}{name}.dora_scale")
        if scale is not None:
            weight = weight * scale.double().to(base.device) / base.double().norm(dim=1, keepdim=True)
        merged[f"{name}.base_layer.weight"] = weight.to(base.dtype)
    return merged


@torch.no_grad()
def check_export(path: Path, unet: UNet) -> float:
    """Load a file that was written and compare a pass of the UNet merged with it with one of the UNet that was trained.

    Returns:
        The largest difference, relative to the largest number.

    Raises:
        ExportError: they differ.
    """
    file = load_file(path)
    missing = [name for name, _ in lora_layers(unet) if f"{UNET_PREFIX}{name}.lora_A.weight" not in file]
    if missing:
        raise ExportError(f"{path} lacks {len(missing)} of the layers that were trained, such as {missing[0]}. It is of no use: tell us.")
    parameter = next(unet.parameters())
    generator = torch.Generator().manual_seed(0)
    config = unet.config
    x = torch.randn(1, config.in_channels, 2, 8, 8, generator=generator).to(parameter)
    text = torch.randn(1, 8, config.context_dim, generator=generator).to(parameter)
    inputs = x, torch.tensor([500], device=parameter.device), Conditioning(text)
    was_training = unet.training
    unet.eval()
    trained = unet(*inputs).float()
    with without_lora(unet):
        merged = torch.func.functional_call(unet, merged_weights(unet, file), inputs).float()
    unet.train(was_training)
    error = float((merged - trained).abs().max() / trained.abs().max().clamp(min=1e-12))
    if not error <= (1e-4 if parameter.dtype == torch.float32 else 0.1):
        raise ExportError(f"{path} makes another model than the one that was trained (off by {error:.1e}). It is of no use: tell us.")
    return error


def changes_nothing(unet: nn.Module) -> bool:
    """Whether all ups are zero, and it is no DoRA, so that the LoRA has no effect."""
    return not any(bool(up.any()) for _, up, _ in lora_weights(unet).values()) and not dora_scales(unet)
