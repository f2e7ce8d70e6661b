"""Context windows: each window gets the conditions, ControlNet hints and timesteps of its own frames, and stays within a video."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.patcher_extension
import torch
from torch import Tensor

from .frames import FRAMES_KEY
from .hooks import TOLD_KEY, chain

#: Conditions with a row per frame, which core doesn't cut to the window in some releases.
FRAME_ROWS = ("c_concat", "image_tokens", "c_crossattn")
#: Key of ``model_options``: the frames of all windows together.
FRAMES_IN_ALL = "videocrafter_frames"


def install(patcher: Any) -> None:
    """Add the wrappers to a MODEL. Of several of the same kind, the first one added runs outermost."""
    kinds = comfy.patcher_extension.WrappersMP
    patcher.add_wrapper_with_key(kinds.CALC_COND_BATCH, "videocrafter windows", one_window)
    patcher.add_wrapper_with_key(kinds.PREDICT_NOISE, "videocrafter windows", one_timestep)
    patcher.add_wrapper_with_key(kinds.CALC_COND_BATCH, "videocrafter hints", hints_by_window)


def one_timestep(executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: Any) -> Any:
    """Wraps a prediction by context windows: the timestep is passed as one number, since ComfyUI 0.3.75 looks it up in the sigmas.

    :func:`one_window` repeats it for every frame, and is told the number of all frames. The arguments are those of a guider's
    ``predict_noise``.
    """
    if "context_handler" not in model_options:
        return executor(x, timestep, model_options, seed)
    return executor(x, timestep[:1], {**model_options, FRAMES_IN_ALL: len(x)}, seed)


def one_window(executor: Any, model: Any, conds: list[Any], x: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> Any:
    """Wraps the evaluation of a context window: each frame gets its own conditions.

    Newer releases prepend an anchor frame to the window and drop its prediction again, for models whose first latent frame is
    special. The models of this family are not, and were trained on a fixed number of frames, so the anchor is removed.

    The arguments are those of ``comfy.samplers.calc_cond_batch``.

    Raises:
        ValueError: windows over another dimension than frames, or across videos.
    """
    options = model_options.get("transformer_options", {})
    window = options.get("context_window")
    if window is None:
        frames = (options.get(TOLD_KEY) or {}).get("sub_idxs")  # of another pack's windows, which cut the conditions themselves
        conds = conds if frames is None else _Window(list(frames), 0).videos(conds)
        return executor(model, conds, x, timestep.expand(len(x)) if timestep.numel() == 1 else timestep, model_options)
    if window.dim != 0:
        raise ValueError(f"The context windows are over dim {window.dim}; frames are dim 0: set dim to 0 in ContextWindowsManual.")
    anchor = getattr(window, "causal_anchor_index", None)
    ahead = int(anchor is not None and anchor >= 0)
    view = _Window(list(window.index_list), ahead)
    model_options = _telling(model_options, view.frames)
    inside = view.videos([None if cond is None else [view.condition(each) for each in cond] for cond in conds])
    try:
        if ahead:
            window.causal_anchor_index = None  # other wrappers use the window to select frames
        predicted = executor(model, inside, x[ahead:], timestep[:1].expand(len(x) - ahead), model_options)
    finally:
        if ahead:
            window.causal_anchor_index = anchor
    return [torch.cat([each.new_zeros(ahead, *each.shape[1:]), each]) for each in predicted]


def _telling(model_options: dict[str, Any], frames: list[int]) -> dict[str, Any]:
    """A copy of the options that tells other packs which frames of a video are evaluated."""
    total = model_options.get(FRAMES_IN_ALL, max(frames) + 1)
    told = {"sub_idxs": frames, "full_length": total, "context_length": len(frames)}
    return {**model_options, "transformer_options": {**model_options["transformer_options"], TOLD_KEY: told}}


@dataclass(frozen=True)
class _Window:
    """The frames of a context window, and the number of anchor frames before them in its tensors."""

    frames: list[int]
    ahead: int

    def condition(self, cond: dict[str, Any]) -> dict[str, Any]:
        """A conditioning cut to this window's frames."""
        own = {key: self._rows(value) if isinstance(value, Tensor) else value for key, value in cond.items()}
        values = dict(cond["model_conds"])
        for key, value in values.items():
            if isinstance(getattr(value, "cond", None), Tensor):
                values[key] = value._copy_with(self._rows(value.cond, per_frame=key in FRAME_ROWS))
        return {**own, "model_conds": values}

    def videos(self, conds: list[Any]) -> list[Any]:
        """The conditionings with the frames per video inside this window."""

        def own(cond: dict[str, Any]) -> dict[str, Any]:
            frames = comfy.conds.CONDConstant(self._per_video(cond.get(FRAMES_KEY)))
            return {**cond, "model_conds": {**cond["model_conds"], FRAMES_KEY: frames}}

        return [None if group is None else [own(each) for each in group] for group in conds]

    def _rows(self, tensor: Tensor, per_frame: bool = False) -> Tensor:
        """The window's rows of a tensor.

        Args:
            per_frame: the tensor has a row for every frame of the batch, unless core has cut it already.
        """
        length = len(self.frames)
        if tensor.ndim and tensor.shape[0] == length + self.ahead:
            return tensor[self.ahead :]
        return tensor[self.frames] if per_frame and tensor.shape[0] > length else tensor

    def _per_video(self, frames: int | None) -> int:
        """Frames per video inside the window.

        Args:
            frames: frames per video of the batch, if the conditioning has it.

        Raises:
            ValueError: the window has parts of several videos.
        """
        length = len(self.frames)
        if not frames or len({frame // frames for frame in self.frames}) == 1:
            return length
        if length % frames == 0 and all(frame % frames == index % frames for index, frame in enumerate(self.frames)):
            return frames
        raise ValueError(
            f"A context window of {length} frames runs across the videos of this batch, which have {frames} frames each: sample one video "
            f"at a time, or set context_length to {frames}, context_overlap to 0 and context_schedule to batched."
        )


def hints_by_window(executor: Any, model: Any, conds: list[Any], x: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> Any:
    """Wraps the evaluation of a context window: each frame gets its own ControlNet hint, which core doesn't cut to the window.

    The arguments are those of ``comfy.samplers.calc_cond_batch``.
    """
    window = model_options.get("transformer_options", {}).get("context_window")
    controls = {id(each): each for group in conds for cond in group or () for each in chain(cond.get("control"))}.values()
    # Other packs' ControlNets choose their hints by what they are told of the window.
    own = [each for each in controls if type(each).__module__.startswith("comfy.")]
    hinted = [each for each in own if each.cond_hint_original is not None and len(each.cond_hint_original) > 1]
    if window is None or not hinted:
        return executor(model, conds, x, timestep, model_options)
    frames = window.get_tensor(torch.arange(max(window.index_list) + 1), dim=0)
    originals = [each.cond_hint_original for each in hinted]
    try:
        for each, hints in zip(hinted, originals, strict=True):
            each.cond_hint_original, each.cond_hint = hints[frames % len(hints)], None
        return executor(model, conds, x, timestep, model_options)
    finally:
        for each, hints in zip(hinted, originals, strict=True):
            each.cond_hint_original, each.cond_hint = hints, None
