"""Tells of other packs' nodes that change ComfyUI's own transformer blocks: a VideoCrafter model has other blocks."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator
from typing import Any

import comfy.ldm.modules.attention

_told: set[str] = set()


def tell(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """A wrapper around sampling (``OUTER_SAMPLE``): a warning for each module whose code is used and looks for core's blocks, once."""
    guider = executor.class_obj
    for function in (guider, *_functions(guider.model_options)):
        name = _module_of(function)
        if name in _told or name.startswith(("comfy.", "comfy_")) or not _looks_for_blocks(name):
            continue
        _told.add(name)
        logging.warning(
            "A node of %s looks for transformer blocks of ComfyUI's own UNets (BasicTransformerBlock). A VideoCrafter model has other "
            "blocks, so this node may change nothing. docs/with_other_packs.md lists such nodes.", name,
        )
    return executor(*args, **kwargs)


def _functions(options: Any) -> Iterator[Any]:
    """What can be called in nested options."""
    if isinstance(options, dict):
        options = list(options.values())
    if isinstance(options, (list, tuple)):
        for each in options:
            yield from _functions(each)
    elif callable(options):
        yield options


def _module_of(function: Any) -> str:
    """The module that a function, or an object that can be called, was written in."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__module__", None) or type(function).__module__)


def _looks_for_blocks(module: str) -> bool:
    return getattr(sys.modules.get(module), "BasicTransformerBlock", None) is comfy.ldm.modules.attention.BasicTransformerBlock
