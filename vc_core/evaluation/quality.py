"""Aesthetic and imaging quality as in VBench (arXiv:2311.17982), with weights that the user has.

* Aesthetic quality: LAION's linear head ``sa_0_4_vit_l_14_linear.pth`` on OpenAI's CLIP ViT-L/14, over 10.
* Imaging quality: MUSIQ (Ke et al., arXiv:2108.05997) trained on SPAQ, by pyiqa, over 100.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clip import AT_ONCE, Clip
from .flow import load_weights
from .optional import library
from .score import Score
from .towers import Tower

#: The longest side that MUSIQ is given.
MUSIQ_SIDE = 512


class Aesthetic:
    """LAION's linear head behind a tower.

    Args:
        tower: CLIP ViT-L/14.
        path: the head's file, with ``weight [1, 768]`` and ``bias [1]``.

    Raises:
        CheckpointError: the file can't be read, or holds something else.
    """

    tag = "CLIP ViT-L/14"

    def __init__(self, tower: Tower, path: Path, width: int = 768) -> None:
        self.tower, self.head = tower, load_weights(nn.Linear(width, 1), path, "LAION's linear aesthetic head")


@torch.inference_mode()
def aesthetic_quality(clip: Clip, aesthetic: Aesthetic) -> Score:
    """The mean over the frames of LAION's score over 10."""
    return Score.mean(aesthetic.head(clip.embedded(aesthetic.tower.tag, aesthetic.tower.image))[:, 0] / 10)


class Musiq:
    """MUSIQ by pyiqa.

    Args:
        path: ``musiq_spaq_ckpt-358bb6af.pth``.

    Raises:
        MissingLibrary: pyiqa is not installed.
    """

    tag = "MUSIQ"

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        create: Any = library("pyiqa", "pyiqa").create_metric
        self._model, self._device = create("musiq-spaq", pretrained_model_path=str(path), device=torch.device(device)), device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Images ``[N, 3, H, W]`` in [0, 1] -> scores ``[N]``, about 0 to 100."""
        return torch.cat([self._model(image[None].to(self._device)).flatten().cpu() for image in images])


def imaging_quality(clip: Clip, musiq: Musiq) -> Score:
    """The mean over the frames of MUSIQ's score over 100, of frames made smaller to at most 512 pixels on the longer side."""
    scale = min(1.0, MUSIQ_SIDE / max(clip.height, clip.width))
    sides = [int(side * scale) for side in (clip.height, clip.width)]
    scores = []
    for start in range(0, len(clip), AT_ONCE):
        images = (clip.images(start, start + AT_ONCE) + 1) / 2
        if scale < 1:
            images = F.interpolate(images, sides, mode="bilinear", antialias=True, align_corners=False)
        scores.append(musiq(images))
    return Score.mean(torch.cat(scores) / 100)
