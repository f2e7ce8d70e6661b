"""Node schemas for all releases of ComfyUI: fields that a release doesn't know are left out."""

from __future__ import annotations

from dataclasses import fields
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
