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
