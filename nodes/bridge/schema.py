"""Node schemas for all releases of ComfyUI: fields that a release doesn't know are left out."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

from comfy_api.latest import io

KNOWN = {field.name for field in fields(io.Schema)}
AnyInput = TypeVar("AnyInput")


def schema(**values: Any) -> io.Schema:
    """An ``io.Schema`` of the fields that this release knows (``search_aliases`` came after 0.3.75)."""
    return io.Schema(**{name: value for name, value in values.items() if name in KNOWN})


def advanced(widget: AnyInput) -> AnyInput:
    """An input that newer releases hide until the user shows advanced inputs; older ones always show it."""
    widget.advanced = True  # type: ignore[attr-defined]
    return widget


def checked_inputs(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """Decorates a node's ``execute``: its inputs must be those of its schema, and its numbers of the stated types and within the bounds.

    ComfyUI passes on inputs that a node doesn't have, checks widgets only, and lets NaN pass; what comes by a link can be anything.

    Raises:
        ValueError: a number that is none, isn't finite, or is out of its bounds; an input that the node doesn't have.
    """

    @wraps(execute)
    def checked(cls: type[io.ComfyNode], *args: Any, **values: Any) -> io.NodeOutput:
        known = {each.id: each for each in cls.define_schema().inputs}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"This node has no input {name!r:.80}; it has {', '.join(known)}. Make the node anew in the graph.")
            if isinstance(known[name], (io.Int.Input, io.Float.Input)):
                _check_number(known[name], value)
        return execute(cls, *args, **values)

    return checked


def _check_number(widget: Any, value: Any) -> None:
    whole = isinstance(widget, io.Int.Input)
    is_one = isinstance(value, numbers.Integral if whole else numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not is_one or not widget.min <= value <= widget.max:
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{widget.id} is {value!r:.80}; it must be {kind} from {widget.min} to {widget.max}.")
