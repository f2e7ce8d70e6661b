"""Deep features reused from step to step, in ComfyUI's sampling."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

import comfy.patcher_extension
from torch import Tensor

from ...vc_core.diffusion.deep_cache import DeepCache, DeepFeatures
from .hooks import TOLD_KEY

#: Key of ``transformer_options``: a run's :class:`RunFeatures`.
KEY = "videocrafter_deep_cache"


@dataclass
class RunFeatures:
    """The deep features of a run, and the sigmas between which they are reused.

    Passes of one step can run in threads, one a device, with features of their own, since a key has the device.

    Attributes:
        seen: the keys of the passes of this step.
        alike: several passes of a step had one key, so that their features can't be told apart.
    """

    cache: DeepCache
    start: float
    end: float
    seen: set[Hashable] = field(default_factory=set)
    alike: bool = False
    lock: Lock = field(default_factory=Lock)

    def of_pass(self, key: Hashable) -> DeepFeatures | None:
        """The features for a pass; None if it is to be computed in full, without them."""
        with self.lock:
            return self._of_pass(key)

    def _of_pass(self, key: Hashable) -> DeepFeatures | None:
        if key in self.seen and not self.alike:
            self.alike = True
            logging.warning(
                "VideoCrafter DeepCache is off in this run: a node splits the picture or evaluates a conditioning twice at a step, which "
                "can't be told apart."
            )
        self.seen.add(key)
        return None if self.alike else self.cache.next_pass(key)


def with_deep_cache(model: Any, interval: int, shallow: int, start: float, end: float) -> Any:
    """A clone of a MODEL that reuses its deep features. These settings replace those of an earlier clone.

    Args:
        interval, shallow: see :class:`DeepCache`.
        start, end: 0 to 1, the part of the sampling in which features are reused.
    """
    sampling = model.get_model_object("model_sampling")
    sigmas = sampling.percent_to_sigma(start), sampling.percent_to_sigma(end)
    clone = model.clone()
    kinds = comfy.patcher_extension.WrappersMP
    wrappers = {kinds.OUTER_SAMPLE: partial(_run_with_features, interval, shallow, sigmas), kinds.PREDICT_NOISE: _at_each_step}
    for kind, wrapper in wrappers.items():
        clone.remove_wrappers_with_key(kind, KEY)
        clone.add_wrapper_with_key(kind, KEY, wrapper)
    return clone


def _run_with_features(
    interval: int, shallow: int, sigmas: tuple[float, float], executor: Any, *args: Any, **kwargs: Any
) -> Any:
    """Wraps a guider's ``outer_sample``: the features are deleted when the run ends, also by an error."""
    options = executor.class_obj.model_options["transformer_options"]
    options[KEY] = RunFeatures(DeepCache(interval, shallow), *sigmas)
    try:
        return executor(*args, **kwargs)
    finally:
        del options[KEY]


def _at_each_step(executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any], seed: Any) -> Any:
    """Wraps a guider's ``predict_noise``: the passes of a step are counted anew."""
    run: RunFeatures | None = model_options["transformer_options"].get(KEY)
    if run is not None:
        run.seen.clear()
    return executor(x, timestep, model_options, seed)


def restart(transformer_options: dict[str, Any]) -> None:
    """Forget a run's features, before its sampler begins anew."""
    run: RunFeatures | None = transformer_options.get(KEY)
    if run is not None:
        run.cache = DeepCache(run.cache.interval, run.cache.shallow)


def deep_features_of(transformer_options: dict[str, Any], x: Tensor) -> DeepFeatures | None:
    """The features for a pass over ``x``, if they are reused at this step."""
    run: RunFeatures | None = transformer_options.get(KEY)
    if run is None or not run.end < transformer_options["sigmas"].max().item() <= run.start:
        return None
    return run.of_pass(_key(transformer_options, x))


def _key(options: dict[str, Any], x: Tensor) -> Hashable:
    """A key that is the same at every step for the same conditionings, context window, device, and patches (of a guidance's own pass)."""
    frames = (options.get(TOLD_KEY) or {}).get("sub_idxs")
    return (
        tuple(options.get("uuids", ())), tuple(options.get("cond_or_uncond", ())), tuple(x.shape), x.device,
        None if frames is None else tuple(frames),
        tuple((kind, *sorted(map(str, blocks))) for kind, blocks in sorted(options.get("patches_replace", {}).items())),
    )
