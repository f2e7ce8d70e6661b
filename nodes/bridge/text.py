"""Text in a conditioning: one for all frames, one for each video, or one for each frame (prompt schedules)."""

from __future__ import annotations

from typing import Any

import comfy.conds
import comfy.utils
from torch import Tensor

#: Condition of a pass: whether texts differ within a video.
TEXT_PER_FRAME_KEY = "text_per_frame"


class AnyOf(comfy.conds.CONDConstant):
    """Whether something holds for any of the conditionings that run in one batch."""

    def can_concat(self, other: Any) -> bool:
        return isinstance(other, AnyOf)

    def concat(self, others: list[Any]) -> bool:
        return any(each.cond for each in (self, *others))


def text_of_frames(text: Tensor, batch: int, frames: int) -> Tensor:
    """A text for each frame of a batch, ``[batch, tokens, width]``.

    Args:
        text: ``[n, tokens, width]``, for each of several videos or for the frames of one. As in core, fewer than there are frames are
            repeated from the first one on, and more are left out.
        batch: frames of all videos.
        frames: frames of each video.
    """
    videos = batch // frames
    return text.repeat_interleave(frames, dim=0) if len(text) == videos > 1 else comfy.utils.repeat_to_batch_size(text, batch)


def check_text(text: Tensor, width: int, title: str) -> None:
    """
    Args:
        width: of the model's text tokens.
        title: the model's.

    Raises:
        ValueError: text of another shape, or with NaN or infinite numbers.
    """
    if text.ndim != 3 or text.shape[-1] != width or not text.numel():
        raise ValueError(
            f"The conditioning has the shape {list(text.shape)}; {title} needs [batch, tokens, {width}], from the text encoder of Stable "
            "Diffusion 2. Connect CLIPTextEncode with the CLIP of the model's own loader."
        )
    if not text.isfinite().all():
        raise ValueError(
            "The conditioning has NaN or infinite numbers: look for a prompt weight that is no plain number, such as (red:inf), and for a "
            "damaged text encoder or textual inversion."
        )
