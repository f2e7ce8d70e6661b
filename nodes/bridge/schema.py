"""What a node says of itself, on every release: what an older one doesn't know is left out there."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from comfy_api.latest import io

KNOWN = {field.name for field in fields(io.Schema)}
AnyInput = TypeVar("AnyInput")


def schema(**said: Any) -> io.Schema:
    """An ``io.Schema`` of what this release knows of (``search_aliases`` came after 0.3.75)."""
    return io.Schema(**{name: value for name, value in said.items() if name in KNOWN})


def advanced(widget: AnyInput) -> AnyInput:
    """An input that newer releases show only when asked to; older ones always do."""
    widget.advanced = True  # type: ignore[attr-defined]
    return widget
