"""How alike the frames of a video are, by their embeddings in an image tower.

* Temporal consistency: the mean cosine of consecutive frames (EvalCrafter's clip_temp_score, arXiv:2310.11440).
* Background and subject consistency: VBench's formula (arXiv:2311.17982), with CLIP for the background and DINO for the subject.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .clip import Clip
from .score import Score
from .towers import Tower


def temporal_consistency(clip: Clip, tower: Tower) -> Score:
    """The mean cosine between each frame and the one before it."""
    features = clip.embedded(tower.tag, tower.image)
    return Score.mean(torch.cosine_similarity(features[1:], features[:-1]), first=1)


def consistency(clip: Clip, tower: Tower) -> Score:
    """The mean of :func:`to_first_and_previous`."""
    return Score.mean(to_first_and_previous(clip.embedded(tower.tag, tower.image)), first=1)


def to_first_and_previous(features: Tensor) -> Tensor:
    """For each frame from the second on the mean of its cosines to the frame before it and to the first, each at least 0.

    Args:
        features: ``[T, d]``, T at least 2.

    Returns:
        ``[T - 1]`` in [0, 1].
    """
    to_previous = torch.cosine_similarity(features[1:], features[:-1])
    to_first = torch.cosine_similarity(features[1:], features[:1])
    return (to_previous.clamp(min=0) + to_first.clamp(min=0)) / 2
