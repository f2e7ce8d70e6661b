"""What a pass through a network takes of memory beside its weights, told from its configuration.

All of it grows with the positions (videos times frames times height times width), so that a count of numbers for each is enough. The
peak is at one of few places, all at full resolution; which one depends on a network's widths.
"""

from __future__ import annotations

import torch

from .config import AutoencoderConfig, UNetConfig
from .models.unet import INIT_ATTENTION_HEADS


def free_memory(device: torch.device) -> int:
    """Bytes that a GPU can still give, with what torch holds of it and doesn't use."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def numbers_per_pixel(config: AutoencoderConfig) -> int:
    """Numbers that are alive at the peak of decoding, for each pixel: the last upsampling, or the residual block after it."""
    wide = config.channels * (config.channel_mult[1] if len(config.channel_mult) > 1 else 1)
    # The block's input, its norm and the first convolution's result; or what is upsampled, that four times as large, and its convolution.
    return max(2 * wide + config.channels, 9 * wide // 4) + 2 * config.image_channels


def numbers_per_position(config: UNetConfig, frames: int = 16) -> int:
    """Numbers that are alive at the peak, for each position of the latent.

    Args:
        frames: of a video; they count where probabilities between frames are written out, for relative positions.
    """
    width, kept = config.model_channels, config.num_res_blocks  # kept: skips at full resolution that wait for their block

    def attention(inner: int) -> int:
        # The block's input, the sum so far, its norm, queries, keys, values and the result of attention.
        together = 7 * inner
        if config.max_relative_position:
            # Scaled queries and the part of the values' positions, and the probabilities with those that are summed up.
            together += 2 * inner + 2 * frames * (inner // config.head_channels)
        return width + together

    # The first temporal transformer is as wide as its heads make it.
    places = [attention(INIT_ATTENTION_HEADS * config.head_channels)]
    if 1 in config.attention_resolutions:
        places.append(attention(width) + kept * width)
    # The first residual block after the last upsampling: what comes from below with its skip, their norm, the first convolution.
    joined = width * ((config.channel_mult[1] if len(config.channel_mult) > 1 else 1) + 1)
    places.append(2 * joined + width + kept * width)
    return max(places) + 2 * config.in_channels
