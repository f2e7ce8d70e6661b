"""What a user gives an adapter that controls motion: a camera's path, the paths of objects."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..models.hooks import Hooks, PassInputs
from .adapter import Adapter

#: The role of a pass without control, for guidance by the camera.
UNCONTROLLED = "uncontrolled"


@dataclass(frozen=True)
class Control:
    """The input of an adapter for B videos, or for any number of them where B is 1.

    Attributes:
        poses: world-to-camera, ``[B, T, 3, 4]``; None: no camera path.
        flow: the motion of pixels from the frame before, ``[B, 2, T, H, W]`` in pixels, x then y; None: objects are not controlled.
        intrinsics: ``[B, T, 3, 3]`` in pixels; None: those of :func:`.geometry.default_intrinsics`.
        conditioned_frame: the frame of the image that the video is made from.
        trace: a factor on the translations, where poses are relative to that frame.
        seed: of the numbers that break ties of epipolar lines, drawn as ``[T, T, 3]`` by a generator of its own, on the CPU.
        drawn: these numbers, ``[B, T, T, 3]``, in place of the seed's.
    """

    poses: Tensor | None = None
    flow: Tensor | None = None
    intrinsics: Tensor | None = None
    conditioned_frame: int | Sequence[int] = 0
    trace: float = 1.0
    seed: int = 0
    drawn: Tensor | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            InputError: a tensor of another shape, or with numbers that are not finite.
        """
        shapes = {
            "poses": (self.poses, "[B, T, 3, 4]", lambda each: each.ndim == 4 and tuple(each.shape[2:]) in ((3, 4), (4, 4))),
            "flow": (self.flow, "[B, 2, T, H, W]", lambda each: each.ndim == 5 and each.shape[1] == 2),
            "intrinsics": (self.intrinsics, "[B, T, 3, 3]", lambda each: each.ndim == 4 and tuple(each.shape[2:]) == (3, 3)),
        }
        for name, (tensor, expected, fits) in shapes.items():
            if tensor is not None and not fits(tensor):
                raise InputError(f"{name} has the shape {list(tensor.shape)}; expected is {expected}.")
            if tensor is not None and not torch.isfinite(tensor).all():
                raise InputError(f"{name} has numbers that are not finite.")

    @property
    def tie_breakers(self) -> Tensor:
        """``[1 or B, T, T, 3]``, see ``drawn``."""
        assert self.poses is not None
        if self.drawn is not None:
            return self.drawn
        frames = self.poses.shape[1]
        return torch.randn(1, frames, frames, 3, generator=torch.Generator("cpu").manual_seed(self.seed % 2**64))


class ControlAdapter(Adapter):
    """An adapter that acts where it is given a :class:`Control`, and leaves passes as they are without one."""

    acts_alone = False
    #: For messages.
    title = ""

    def hooks(self, inputs: PassInputs) -> Hooks | None:
        return None

    def controlled(self, control: Control) -> Controlled:
        """Makes the hooks of passes that are controlled so.

        Raises:
            InputError: the adapter has no layers for a part of the control.
        """
        self.check(control)
        return Controlled(self, control)

    @abstractmethod
    def check(self, control: Control) -> None:
        """The checks of :meth:`controlled`."""

    @abstractmethod
    def act(self, control: Control, inputs: PassInputs) -> Hooks | None:
        """The hooks of one pass."""

    def _refuse_flow(self, control: Control) -> None:
        if control.flow is not None:
            raise InputError(f"{self.title} controls the camera only: leave the paths of objects out, or load MotionCtrl's omcm.")


@dataclass(frozen=True)
class Controlled:
    """An adapter with its control, a :data:`vc_core.models.hooks.HookFactory`."""

    adapter: ControlAdapter
    control: Control

    def __call__(self, inputs: PassInputs) -> Hooks | None:
        """The hooks of one pass."""
        return self.adapter.act(self.control, inputs)


def controlled_rows(inputs: PassInputs) -> Tensor | None:
    """Which videos of a pass are controlled, ``[n]``; None for all of them."""
    if UNCONTROLLED not in inputs.roles:
        return None
    return torch.tensor([row for row, role in enumerate(inputs.roles) if role != UNCONTROLLED], device=inputs.x.device)


def for_videos(tensor: Tensor, videos: int, what: str) -> Tensor:
    """A tensor of 1 or B videos as one of n: conditionings times B videos, one conditioning after the other.

    Raises:
        InputError: n is no multiple of B.
    """
    if videos % len(tensor):
        raise InputError(f"There are {what} for {len(tensor)} videos, but {videos} are sampled: give one, or one for each.")
    return tensor.repeat(videos // len(tensor), *[1] * (tensor.ndim - 1))


def for_frames(tensor: Tensor, inputs: PassInputs, axis: int, what: str) -> Tensor:
    """The frames of a pass along an axis: all, or those of its window.

    Raises:
        InputError: there are fewer, or more than the video has.
    """
    frames, there = inputs.x.shape[2], tensor.shape[axis]
    if inputs.window is None:
        if there != frames:
            raise InputError(f"There are {what} for {there} frames, but the video has {frames}: make them for {frames} frames.")
        return tensor
    if max(inputs.window) >= there:
        raise InputError(
            f"There are {what} for {there} frames, but the video has at least {max(inputs.window) + 1}: make them for as many frames."
        )
    return tensor.index_select(axis, torch.tensor(inputs.window, device=tensor.device))
