"""Memory: what a pass through a network takes beside its weights, and how much is computed at once.

A pass takes a number of activations for each position (videos times frames times height times width). That number is computed
from the configuration, to within 25 % for the published sizes. The peak is in one of a few layers, all at full resolution; which
one depends on the network's widths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .choices import current
from .config import AutoencoderConfig, UNetConfig

#: Share of a GPU's free memory that all passes of guidance may take together, and that one chunk of the autoencoder's may take.
GUIDANCE_SHARE, AUTOENCODER_SHARE = 0.8, 0.5
#: Pixels that a CPU decodes at once, at least a frame; more is no faster.
CPU_PIXELS = 256 * 256
#: Activations inside a feed-forward that a CPU computes at once, few enough for the allocator to reuse their memory.
CPU_FEED_FORWARD_ELEMENTS = 2**22


def free_memory(device: torch.device) -> int:
    """Free bytes of a GPU, including what torch has reserved and doesn't use."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there is too little memory: Python's own, a GPU's, or that of torch's allocators."""
    known = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in known)
    )


def passes_fit(config: UNetConfig, positions: int, frames: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether passes over so many positions of the latent run in one batch.

    By default they do if a GPU has the memory for it, and never on a CPU, where it is no faster.
    """
    if current().passes_together is not None:
        return bool(current().passes_together)
    if device.type != "cuda":
        return False
    return positions * activations_per_position(config, frames) * dtype.itemsize < GUIDANCE_SHARE * free_memory(device)


def frames_at_once(config: AutoencoderConfig, pixels: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many frames of so many pixels go through the autoencoder at once, at least 1."""
    if current().frames_at_once is not None:
        return max(1, int(current().frames_at_once or 1))
    at_once = CPU_PIXELS
    if device.type == "cuda":
        at_once = int(AUTOENCODER_SHARE * free_memory(device) / (activations_per_pixel(config) * dtype.itemsize))
    return max(1, at_once // pixels)


def feed_forward_chunks(x: Tensor, config: UNetConfig) -> int:
    """How many chunks a feed-forward computes ``x`` ``[..., width]`` in, one after the other.

    Each chunk reads the layer's weights again, which costs little where there are most tokens, since layers are narrow there.
    """
    at_full_resolution = x.shape[-1] <= config.init_attention_width
    chunks = current().feed_forward_chunks if at_full_resolution else 1
    if x.device.type == "cpu":
        chunks = max(chunks, 8 * x.numel() // CPU_FEED_FORWARD_ELEMENTS)
    return chunks


def activations_per_pixel(config: AutoencoderConfig) -> int:
    """Activations alive at the peak of decoding, for each pixel: in the last upsampling, or the residual block after it."""
    wide = config.channels * (config.channel_mult[1] if len(config.channel_mult) > 1 else 1)
    # The block's input, its norm and the first convolution's result; or the upsampling's input, its result, four times as
    # large, and the convolution of that.
    return max(2 * wide + config.channels, 9 * wide // 4) + 2 * config.image_channels


def activations_per_position(config: UNetConfig, frames: int = 16) -> int:
    """Activations alive at the peak of a UNet pass, for each position of the latent.

    Args:
        frames: of a video; used for models with relative positions, which store the probabilities between frames.
    """
    width, skips = config.model_channels, config.num_res_blocks  # skips at full resolution that wait for their output block

    def attention(inner: int) -> int:
        # The block's input, the sum so far, its norm, queries, keys, values and the result of attention.
        together = 7 * inner
        if config.max_relative_position or config.causal_frames:
            # Scaled queries, the values' relative part, and the probabilities with their sum.
            together += 2 * inner + 2 * frames * (inner // config.head_channels)
        return width + together

    peaks = [attention(config.init_attention_width)] if config.init_attention else []
    if 1 in config.attention_resolutions:
        peaks.append(attention(width) + skips * width)
    # The first residual block after the last upsampling: the hidden state with its skip, their norm, the first convolution.
    joined = width * ((config.channel_mult[1] if len(config.channel_mult) > 1 else 1) + 1)
    peaks.append(2 * joined + width + skips * width)
    return max(peaks) + 2 * config.in_channels
