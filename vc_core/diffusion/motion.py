"""Motion strength: what the layers over time add to each frame, scaled. A method without training, for any model of the family."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import InputError
from ..models.hooks import HookFactory, Hooks, PassInputs

#: The parts of a UNet that can be chosen; ``init`` is the temporal transformer after the first convolution.
PARTS = ("init", "input", "middle", "output")
LARGEST = 10.0


def motion_strength(
    strength: float | Sequence[float], mask: Tensor | None = None, parts: Collection[str] = PARTS
) -> HookFactory:
    """Hooks that scale what the layers over time add.

    Args:
        strength: 0 to 10; 1 changes nothing, 0 leaves the layers out. Or one for each frame, of which the last stays.
        mask: ``[h, w]``, or ``[T, h, w]`` for each frame, in [0, 1] and of any size: where it is 0, the strength is 1.
        parts: the chosen :data:`PARTS`.

    Raises:
        InputError: a strength or a part that isn't possible, or a mask of another shape.
    """
    strengths = [float(strength)] if isinstance(strength, (int, float)) else [float(each) for each in strength]
    wrong = next((each for each in strengths if not 0 <= each <= LARGEST), None)
    if not strengths or wrong is not None:
        raise InputError(f"strength is {wrong}; it must be 0 to {LARGEST:g}, or a list of such numbers.")
    if set(parts) - set(PARTS):
        raise InputError(f"parts is {', '.join(sorted(parts))}; it can be {', '.join(PARTS)}.")
    if mask is not None and (mask.ndim not in (2, 3) or not mask.numel()):
        raise InputError(f"The mask has the shape {list(mask.shape)}; it must be [height, width] or [frames, height, width].")
    scale = torch.tensor(strengths)[:, None, None]
    if mask is not None:
        masks = mask[None] if mask.ndim == 2 else mask
        length = max(len(scale), len(masks))
        scale = 1 + (_held(scale, range(length)) - 1) * _held(masks.float().cpu().clamp(0, 1), range(length))
    if (scale == 1).all():
        return lambda inputs: None

    def of_pass(inputs: PassInputs) -> Hooks:
        frames = inputs.window if inputs.window is not None else range(inputs.x.shape[2])
        return MotionStrength(_held(scale, frames)[:, None].to(inputs.x), frozenset(parts))

    return of_pass


def _held(rows: Tensor, frames: Sequence[int]) -> Tensor:
    """The rows of these frames; after the last one it stays."""
    return rows[torch.tensor(list(frames)).clamp(max=len(rows) - 1)]


class MotionStrength(Hooks):
    """The hooks of one pass.

    Args:
        scale: ``[T, 1, h, w]``; h and w can be 1.
        parts: see :func:`motion_strength`.
    """

    def __init__(self, scale: Tensor, parts: frozenset[str]) -> None:
        self.scale, self.parts = scale, parts

    def over_time(self, part: str, block: int, frames: int, added: Tensor) -> Tensor:
        if part not in self.parts:
            return added
        scale = self.scale
        if scale.shape[-2:] != (1, 1):
            scale = interpolate(scale.float(), size=added.shape[-2:], mode="area")
        return added * scale.to(added).repeat(len(added) // frames, 1, 1, 1)
