"""Context windows: each window's frames get their own conditions, hints and timesteps, and videos stay apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.patcher_extension
import torch
from torch import Tensor

from .frames import FRAMES_KEY
from .hooks import chain

#: Conditions of a model with a row a frame, which core leaves whole in some releases.
FRAME_ROWS = ("c_concat", "image_tokens")


def install(patcher: Any) -> None:
    """Add the wrappers to a MODEL. Of one kind, the first one added runs outermost."""
    kinds = comfy.patcher_extension.WrappersMP
    patcher.add_wrapper_with_key(kinds.CALC_COND_BATCH, "videocrafter windows", one_window)
    patcher.add_wrapper_with_key(kinds.PREDICT_NOISE, "videocrafter windows", one_timestep)
    patcher.add_wrapper_with_key(kinds.CALC_COND_BATCH, "videocrafter hints", hints_by_window)


def one_timestep(executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: Any) -> Any:
    """Wraps a prediction by context windows: the timestep is given once, as ComfyUI 0.3.75 looks for it among the sigmas.

    :func:`one_window` gives it to every frame again. The arguments are those of a guider's ``predict_noise``.
    """
    return executor(x, timestep[:1] if "context_handler" in model_options else timestep, model_options, seed)


def one_window(executor: Any, model: Any, conds: list[Any], x: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> Any:
    """Wraps the evaluation of a context window's frames: each gets its own conditions, and videos stay apart.

    Newer releases put the frame before the window in front of it and take its prediction off again, which is for models whose first
    latent frame is another thing. These here were trained on so many frames and no more, so it is left out.

    The arguments are those of ``comfy.samplers.calc_cond_batch``.

    Raises:
        ValueError: windows over something else than frames, or across videos.
    """
    window = model_options.get("transformer_options", {}).get("context_window")
    if window is None:
        return executor(model, conds, x, timestep.expand(len(x)) if timestep.numel() == 1 else timestep, model_options)
    if window.dim != 0:
        raise ValueError(f"Context windows over dim {window.dim}: a video is a batch of frames, so set dim to 0 in ContextWindowsManual.")
    anchor = getattr(window, "causal_anchor_index", None)
    ahead = int(anchor is not None and anchor >= 0)
    view = _Window(list(window.index_list), ahead)
    inside = [None if cond is None else [view.condition(each) for each in cond] for cond in conds]
    try:
        if ahead:
            window.causal_anchor_index = None  # others ask the window which frames it has
        predicted = executor(model, inside, x[ahead:], timestep[:1].expand(len(x) - ahead), model_options)
    finally:
        if ahead:
            window.causal_anchor_index = anchor
    return [torch.cat([each.new_zeros(ahead, *each.shape[1:]), each]) for each in predicted]


@dataclass(frozen=True)
class _Window:
    """The frames of a context window, and how many more stand ahead of them in its tensors."""

    frames: list[int]
    ahead: int

    def condition(self, cond: dict[str, Any]) -> dict[str, Any]:
        """A conditioning as this window's frames have it."""
        own = {key: self._rows(value) if isinstance(value, Tensor) else value for key, value in cond.items()}
        values = dict(cond["model_conds"])
        for key, value in values.items():
            if isinstance(getattr(value, "cond", None), Tensor):
                values[key] = value._copy_with(self._rows(value.cond, whole=key in FRAME_ROWS))
        values[FRAMES_KEY] = comfy.conds.CONDConstant(self._per_video(cond.get(FRAMES_KEY)))
        return {**own, "model_conds": values}

    def _rows(self, tensor: Tensor, whole: bool = False) -> Tensor:
        """``whole`` is for what has a row for every frame there is, unless core has cut it already."""
        length = len(self.frames)
        if tensor.ndim and tensor.shape[0] == length + self.ahead:
            return tensor[self.ahead :]
        return tensor[self.frames] if whole and tensor.shape[0] > length else tensor

    def _per_video(self, said: int | None) -> int:
        """Frames a video inside the window, where the conditioning says how many a whole one has.

        Raises:
            ValueError: the window has parts of several videos.
        """
        length = len(self.frames)
        if not said or len({frame // said for frame in self.frames}) == 1:
            return length
        if length % said == 0 and all(frame % said == place % said for place, frame in enumerate(self.frames)):
            return said
        raise ValueError(
            f"A context window of {length} frames runs across the videos of this batch, which have {said} frames each: sample one video "
            f"at a time, or set context_length to {said}, context_overlap to 0 and context_schedule to batched."
        )


def hints_by_window(executor: Any, model: Any, conds: list[Any], x: Tensor, timestep: Tensor, model_options: dict[str, Any]) -> Any:
    """Wraps the evaluation of one context window, so that each of its frames gets its own hint; core leaves the hints as they are.

    The arguments are those of ``comfy.samplers.calc_cond_batch``.
    """
    window = model_options.get("transformer_options", {}).get("context_window")
    controls = {id(each): each for given in conds for cond in given or () for each in chain(cond.get("control"))}.values()
    hinted = [each for each in controls if each.cond_hint_original is not None and len(each.cond_hint_original) > 1]
    if window is None or not hinted:
        return executor(model, conds, x, timestep, model_options)
    frames = window.get_tensor(torch.arange(max(window.index_list) + 1), dim=0)
    whole = [each.cond_hint_original for each in hinted]
    try:
        for each, hints in zip(hinted, whole, strict=True):
            each.cond_hint_original, each.cond_hint = hints[frames % len(hints)], None
        return executor(model, conds, x, timestep, model_options)
    finally:
        for each, hints in zip(hinted, whole, strict=True):
            each.cond_hint_original, each.cond_hint = hints, None
