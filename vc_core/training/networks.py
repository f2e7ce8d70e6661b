"""The network that is trained, what of it is trained, and how its passes save memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..models.attention import CrossAttention, SelfAttention, TemporalAttention
from ..models.conditioning import Conditioning
from ..models.projector import Projector
from ..models.temporal_conv import SpatialTemporalConvolution, TemporalConvolution
from ..models.transformers import SpatialTransformer, TemporalTransformer
from ..models.unet import ResidualBlock, UNet
from .layers import training_attention

#: Dropout of the published training, in residual blocks and before the last three convolutions over time.
PUBLISHED_DROPOUT = 0.1
#: The projections of an attention, and those of a feed-forward, by the ends of their names.
ATTENTION_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "to_k_ip", "to_v_ip")
FEED_FORWARD_LAYERS = ("ff.net.0.proj", "ff.net.2")


class Denoiser(nn.Module):
    """A UNet, with the projector that makes its image tokens from an image tower's features, where the model has one."""

    def __init__(self, unet: UNet, projector: Projector | None = None) -> None:
        super().__init__()
        self.unet, self.projector = unet, projector

    def forward(self, x: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """As :meth:`vc_core.models.unet.UNet.forward`; with a projector, features ``[B, n, width]`` are in place of image tokens."""
        if self.projector is not None and conditioning.image_tokens is not None:
            conditioning = replace(conditioning, image_tokens=self.projector(conditioning.image_tokens))
        return self.unet(x, timesteps, conditioning)


def prepare_for_training(denoiser: Denoiser, dropout: float = 0.0, checkpointing: bool = False) -> Denoiser:
    """Set the denoiser's attention function, its dropout of activations and its checkpointing of gradients. Changes and returns it.

    Args:
        dropout: probability, at the published places (see :data:`PUBLISHED_DROPOUT`); in evaluation mode there is none.
        checkpointing: whether the blocks' activations are computed again in the backward pass in place of stored (Chen et al.,
            arXiv:1604.06174).
    """
    for module in denoiser.modules():
        if isinstance(module, (SelfAttention, CrossAttention, TemporalAttention)):
            module.attention = training_attention
        elif isinstance(module, ResidualBlock) and dropout:
            module.out_layers[2] = nn.Dropout(dropout)
        elif isinstance(module, TemporalConvolution) and dropout:
            for stage in (module.conv2, module.conv3, module.conv4):
                stage[2] = nn.Dropout(dropout)
        elif isinstance(module, SpatialTemporalConvolution) and dropout:
            for each in (*list(module.conv)[1:], module.conv_last):
                each[2] = nn.Dropout(dropout)  # type: ignore[operator]
        if checkpointing and isinstance(module, (ResidualBlock, SpatialTransformer, TemporalTransformer)):
            module.forward = partial(_checkpointed, module.forward)  # type: ignore[method-assign]
    return denoiser


def _checkpointed(forward: Callable[..., Tensor], *inputs: object) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    out: Tensor = checkpoint(forward, *inputs, use_reentrant=False)
    return out


def lora_targets(unet: UNet, spatial: bool, temporal: bool, feed_forward: bool = True) -> list[str]:
    """The names of the linear layers that a LoRA changes.

    Args:
        spatial, temporal: of the transformers over space, of those over time.
        feed_forward: also the feed-forwards' layers, beside those of attention.
    """
    ends = ATTENTION_LAYERS + (FEED_FORWARD_LAYERS if feed_forward else ())
    kinds = (*((SpatialTransformer,) if spatial else ()), *((TemporalTransformer,) if temporal else ()))
    return [name for name in _layers_in(unet, kinds) if name.endswith(tuple(f".{end}" for end in ends))]


def _layers_in(unet: UNet, kinds: tuple[type[nn.Module], ...]) -> Iterator[str]:
    for name, module in unet.named_modules():
        if isinstance(module, kinds):
            yield from (f"{name}.{inner}" for inner, layer in module.named_modules() if isinstance(layer, nn.Linear))
