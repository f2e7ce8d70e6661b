"""Deep features reused from step to step, in ComfyUI's sampling."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import comfy.patcher_extension
from torch import Tensor

from ...vc_core.diffusion.deep_cache import DeepCache, DeepFeatures

#: Key of ``transformer_options``: a run's deep features, and the sigmas between which they are reused.
KEY = "videocrafter_deep_cache"


def with_deep_cache(model: Any, interval: int, shallow: int, start: float, end: float) -> Any:
    """A clone of a MODEL that reuses its deep features. These settings replace those of an earlier clone.

    Args:
        interval, shallow: see :class:`DeepCache`.
        start, end: 0 to 1, the part of the sampling in which features are reused.
    """
    sampling = model.get_model_object("model_sampling")
    sigmas = sampling.percent_to_sigma(start), sampling.percent_to_sigma(end)
    clone = model.clone()
    kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    clone.remove_wrappers_with_key(kind, KEY)
    clone.add_wrapper_with_key(kind, KEY, partial(_run_with_features, interval, shallow, sigmas))
    return clone


def _run_with_features(
    interval: int, shallow: int, sigmas: tuple[float, float], executor: Any, *args: Any, **kwargs: Any
) -> Any:
    """Wraps a guider's ``outer_sample``: the features are deleted when the run ends, also by an error."""
    options = executor.class_obj.model_options["transformer_options"]
    options[KEY] = DeepCache(interval, shallow), *sigmas
    try:
        return executor(*args, **kwargs)
    finally:
        del options[KEY]


def deep_features_of(transformer_options: dict[str, Any], x: Tensor) -> DeepFeatures | None:
    """The features for a pass over ``x``, if they are reused at this step."""
    cache, start, end = transformer_options.get(KEY, (None, 0.0, 0.0))
    if cache is None or not end < transformer_options["sigmas"].max().item() <= start:
        return None
    return cache.next_pass(_key(transformer_options, x))


def _key(options: dict[str, Any], x: Tensor) -> Hashable:
    """A key that is the same at every step for the same conditionings, context window, and patches (of a guidance's own pass)."""
    window = options.get("context_window")
    return (
        tuple(options.get("uuids", ())), tuple(options.get("cond_or_uncond", ())), tuple(x.shape),
        None if window is None else tuple(window.index_list),
        tuple((kind, *sorted(map(str, blocks))) for kind, blocks in sorted(options.get("patches_replace", {}).items())),
    )
