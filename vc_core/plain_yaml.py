"""YAML from strangers, as plain data: mappings, lists, text, numbers, yes or no, and nothing.

OmegaConf resolves references (``${oc.env:HOME}``) in whatever it is given, so text in a file must not reach it before this.
"""

from __future__ import annotations

from typing import Any

import yaml

from .errors import ConfigError

#: Levels of lists and mappings in each other.
MAX_DEPTH = 20


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Refuses anchors, aliases, merges and tags."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise ConfigError("it has an anchor, an alias or a tag; only plain values are possible")
        return super().compose_node(parent, index)


def read(text: str) -> dict[str, Any]:
    """Parse a mapping.

    Raises:
        ConfigError: it is no YAML, no mapping, or has references, anchors, tags or names that are no text. The message has no
            subject: put what was read in front of it.
    """
    try:
        parsed = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"it is not YAML: {str(error)!r:.160}") from error
    if not isinstance(parsed, dict):
        raise ConfigError("it is not a mapping of names to values")
    return check_plain(parsed)


def check_plain(value: Any, depth: int = 0) -> Any:
    """The value, if it is plain data.

    Raises:
        ConfigError: text with a reference, names that are no text, other types, or more than 20 levels.
    """
    if depth > MAX_DEPTH:
        raise ConfigError(f"it has more than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise ConfigError(f"{name!r:.60} is no name; names are text")
            check_plain(name, depth + 1)
            check_plain(inner, depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check_plain(inner, depth + 1)
    elif isinstance(value, str) and "${" in value:
        raise ConfigError(f"{value!r:.60} has a reference (${{...}}); only plain values are possible")
    elif not isinstance(value, (str, int, float, bool, type(None))):
        raise ConfigError(f"{value!r:.60} is of type {type(value).__name__}; only plain values are possible")
    return value
