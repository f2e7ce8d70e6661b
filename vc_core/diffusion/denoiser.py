"""The UNet passes of one sampling step: which conditionings run, whether in one batch, and which results they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from ..choices import current
from ..errors import InputError
from ..memory import passes_fit
from ..models.conditioning import Conditioning
from ..models.hooks import HookFactory, PassInputs, make_hooks
from ..models.unet import UNet
from ..parallel.frames import FrameSplit
from ..parallel.split import Split
from .acceleration import RecordedPasses, compiled
from .deep_cache import DeepCache, DeepFeatures
from .guidance import Guidance, guide


@dataclass
class GuidedDenoiser:
    """The UNet under guidance, for one run. Samples stay in float32 outside of it.

    Attributes:
        dtype: what the UNet computes in.
        together: True runs all conditionings in one batch, False one after the other; None decides by a GPU's free memory at the
            first step. With hooks, or with fields that only one of them has, they always run one after the other.
        deep_cache: a new one for each run, whose deep features are reused from step to step.
        hooks: make the hooks of each pass.
        split: how the processes of a torchrun share the passes; all of them then run one after the other.
    """

    unet: UNet
    positive: Conditioning
    negative: Conditioning
    guidance: Guidance
    dtype: torch.dtype = torch.float32
    together: bool | None = None
    deep_cache: DeepCache | None = None
    hooks: Sequence[HookFactory] = ()
    split: Split | None = None
    _batch: Conditioning | None = field(default=None, init=False)
    _recorded: RecordedPasses | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.passes = self._passes()
        if self.hooks and self.split is not None and self.split.frames is not None:
            raise InputError("Adapters and hooks work on whole clips, whose frames can't be shared: split by guidance only.")
        if self.split is not None or self.hooks or not all(self.positive.stacks_with(each) for each in self.passes.values()):
            self.together = False
        choices = current()
        self.unet = compiled(self.unet, choices.compiled, choices.compile_mode, choices.compile_backend)
        if choices.cuda_graph and self.deep_cache is None and not self.hooks and self.split is None:
            self._recorded = RecordedPasses(self.unet)

    def _passes(self) -> dict[str, Conditioning]:
        """The conditioning of each pass that the guidance needs, by role (see :class:`PassInputs`)."""
        found = {"positive": self.positive}
        if self.guidance.image_scale is not None:
            found |= {"negative": self.negative, "image": replace(self.positive, text=self.negative.text)}
        elif self.guidance.scale != 1.0:
            found |= {"negative": self.negative}
            if self.guidance.style_scale is not None:
                found |= {"unstyled": self.positive}
        if self.guidance.camera_scale != 1.0 and len(found) > 1:  # the authors have none without guidance by the text
            found |= {"uncontrolled": self.positive}
        return found

    def __call__(self, x: Tensor, timesteps: Tensor, step: int = 0, steps: int = 1) -> Tensor:
        """The guided prediction for ``x`` ``[B, C, T, h, w]`` at ``timesteps`` ``[B]``, in float32.

        Args:
            step, steps: the number of this sampling step and of all steps, for hooks.
        """
        guided = len(self.passes) > 1
        inputs = PassInputs(("positive",) * len(x), x.to(self.dtype), timesteps, self.positive, step, steps, guided=guided)
        predicted = self._predict_all(inputs)
        positive = predicted["positive"]
        return guide(
            positive, predicted.get("negative", positive), self.guidance, predicted.get("image"), predicted.get("without time"),
            uncontrolled=predicted.get("uncontrolled"), camera_weight=self.guidance.camera_weight(timesteps),
            unstyled=predicted.get("unstyled"),
        )

    def _predict_all(self, inputs: PassInputs) -> dict[str, Tensor]:
        """The predictions by role; ``without time`` is the positive's without temporal attention."""
        tasks: dict[str, Callable[[], Tensor]] = {}
        if self.guidance.temporal_scale:
            tasks["without time"] = partial(self._run, replace(inputs, temporal_attention=False))
        batch = self._batched(inputs.x)
        if batch is not None:
            return {role: task() for role, task in tasks.items()} | self._predict_together(inputs, batch)
        stem = self._shared_stem(inputs)
        for role, conditioning in self.passes.items():
            tasks[role] = partial(self._run, replace(inputs, roles=(role,) * len(inputs.x), conditioning=conditioning), stem)
        if self.split is None or self.split.passes is None:
            return {role: task() for role, task in tasks.items()}
        like = inputs.x[:, :1].float().repeat(1, self.unet.config.out_channels, 1, 1, 1)
        return dict(zip(tasks, self.split.passes.each(list(tasks.values()), like), strict=True))

    def _predict_together(self, inputs: PassInputs, batch: Conditioning) -> dict[str, Tensor]:
        stem = self._shared_stem(inputs)
        count = len(self.passes)
        roles = tuple(role for role in self.passes for _ in inputs.x)
        x, timesteps = torch.cat([inputs.x] * count), torch.cat([inputs.timesteps] * count)
        repeated = replace(inputs, roles=roles, x=x, timesteps=timesteps, conditioning=batch)
        out = self._run(repeated, None if stem is None else torch.cat([stem] * count))
        return dict(zip(self.passes, out.chunk(count), strict=True))

    def _run(self, inputs: PassInputs, stem: Tensor | None = None) -> Tensor:
        if self.split is not None and self.split.frames is not None:
            return self._run_own_frames(inputs, self.split.frames)
        hooks, timed = make_hooks(self.hooks, inputs), inputs.temporal_attention
        run = self.unet.prepare(inputs.x, inputs.timesteps, inputs.conditioning, hooks, temporal_attention=timed)
        hidden = self.unet.stem(inputs.x, inputs.conditioning, run) if stem is None else stem
        if self._recorded is not None and hidden.is_cuda:
            return self._recorded(hidden, run).float()
        features = self._deep_features(inputs)
        hidden = self.unet.body(hidden, run) if features is None else features.run(self.unet, hidden, run)
        return self.unet.head(hidden, run).float()

    def _run_own_frames(self, inputs: PassInputs, frames: FrameSplit) -> Tensor:
        """A pass over this process's frames -> the prediction for all frames."""
        count, own = inputs.x.shape[2], frames.own_inputs(inputs, self.unet.config.image_tokens_per_frame)
        run = self.unet.prepare(own.x, own.timesteps, own.conditioning, temporal_attention=inputs.temporal_attention)
        run = replace(run, over_time=frames.over_time(count))
        hidden, features = self.unet.stem(own.x, own.conditioning, run), self._deep_features(inputs)
        hidden = self.unet.body(hidden, run) if features is None else features.run(self.unet, hidden, run)
        return frames.joined(self.unet.head(hidden, run).float(), count)

    def _deep_features(self, inputs: PassInputs) -> DeepFeatures | None:
        return None if self.deep_cache is None else self.deep_cache.next_pass((inputs.roles, inputs.temporal_attention))

    def _shared_stem(self, inputs: PassInputs) -> Tensor | None:
        """The stem's result, if several passes without hooks have the same latents."""
        if len(self.passes) == 1 or self.hooks or (self.split is not None and self.split.frames is not None):
            return None
        if any(each.concat is not self.positive.concat for each in self.passes.values()):
            return None
        run = self.unet.prepare(inputs.x, inputs.timesteps, inputs.conditioning)
        return self.unet.stem(inputs.x, inputs.conditioning, run)

    def _batched(self, x: Tensor) -> Conditioning | None:
        """All conditionings as one, if they run in one batch. Decided at the first step, when everything else is in memory."""
        if self.together is None:
            positions = len(self.passes) * x.numel() // x.shape[1]
            self.together = passes_fit(self.unet.config, positions, x.shape[2], self.dtype, x.device)
        if self.together and self._batch is None:
            self._batch = Conditioning.stack(*self.passes.values())
        return self._batch if self.together else None
