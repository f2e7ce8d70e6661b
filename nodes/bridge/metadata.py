"""The graph as metadata of a saved file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: A text in JSON.
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')


def graph_tags(extra_pnginfo: Any, prompt: Any) -> dict[str, str]:
    """The graph as metadata of a file: JSON by name, of characters that all formats can hold.

    Numbers that JSON doesn't have (NaN, infinity) are null, since ComfyUI's page could not read the rest either. Where a client
    sends JSON in a text as the prompt or the workflow, its content is stored.

    Args:
        extra_pnginfo: what the interface sends along, such as the workflow.

    Raises:
        ValueError: one of them is not what an interface sends.
    """
    if extra_pnginfo is not None and not isinstance(extra_pnginfo, Mapping):
        raise ValueError(f"extra_pnginfo is of the type {type(extra_pnginfo).__name__}; it must be a mapping of names to JSON values.")
    tags = {}
    for name, value in {**(extra_pnginfo or {}), "prompt": prompt}.items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(f"extra_pnginfo has the name {name!r:.100}; names must be texts of printable characters.")
        if value is not None:
            try:
                text = json.dumps(_strict(_decoded(value) if name in ("prompt", "workflow") else value), allow_nan=False)
            except (TypeError, ValueError, RecursionError) as error:
                raise ValueError(f"{name} can't be stored in the file as JSON: {error}. Start ComfyUI with --disable-metadata.") from error
            tags[name] = _TEXT.sub(_without_braces, text)
    return tags


def _strict(value: Any) -> Any:
    """A value with null for the numbers that JSON doesn't have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _strict(each) for key, each in value.items()}
    return [_strict(each) for each in value] if isinstance(value, (list, tuple)) else value


def _decoded(value: Any) -> Any:
    """The object in a text of JSON, or the value as it is."""
    try:
        decoded = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return decoded if isinstance(decoded, dict) else value


def _without_braces(text: re.Match[str]) -> str:
    """A text of JSON with escapes for its braces: ComfyUI's page finds the end of a WebM's metadata by counting them."""
    return text[0].replace("{", "\\u007b").replace("}", "\\u007d")
