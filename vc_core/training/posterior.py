"""Latents of training, which are drawn from the autoencoder's posterior; at inference its mean is taken."""

from __future__ import annotations

import torch
from torch import Tensor

#: Bounds of the log variance, as in the authors' code.
LOG_VARIANCE = (-30.0, 20.0)


def posterior_sample(moments: Tensor, noise: Tensor) -> Tensor:
    """A sample of the posterior (Kingma and Welling, arXiv:1312.6114): mean + exp(log variance / 2) * noise.

    Args:
        moments: mean and log variance, one after the other, ``[B, 2 C, ...]``.
        noise: ``[B, C, ...]``, normal.

    Returns:
        ``[B, C, ...]``, in the autoencoder's scale.
    """
    mean, log_variance = moments.chunk(2, dim=1)
    return mean + torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCE)) * noise
