"""YAML from strangers, as plain data: mappings, lists, text, numbers, yes or no, and nothing.

OmegaConf resolves references (``${oc.env:HOME}``) in whatever it is given, so text in a file must not reach it before this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError

#: Levels of lists and mappings in each other.
MAX_DEPTH = 20
#: Most bytes of a file: parsing takes a second for so many.
LARGEST_FILE = 1 << 16


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Refuses anchors, aliases, merges and tags."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise ConfigError("it has an anchor, an alias or a tag; only plain values are possible")
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: Any) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise ConfigError("it has a merge (<<); only plain values are possible")


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
        raise ConfigError(f"it is not YAML: {str(error)!r:.160}") from None
    if not isinstance(parsed, dict):
        raise ConfigError("it is not a mapping of names to values")
    return check_plain(parsed)


def read_file(path: Path) -> dict[str, Any]:
    """Parse a file with a mapping.

    Raises:
        ConfigError: as :func:`read`, or the file can't be read, is larger than 64 kB, or has other bytes than UTF-8.
    """
    try:
        if not path.is_file():
            raise ConfigError("it is no plain file")
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ConfigError(f"it has more than {LARGEST_FILE} bytes, far more than any configuration")
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"it is no text in UTF-8 ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"it can't be read ({error.strerror or error})") from None
    return read(text)


def check_plain(value: Any, depth: int = 0) -> Any:
    """The value, if it is plain data.

    Raises:
        ConfigError: text with a reference, names that are no text, other types, whole numbers of more than 64 bits, or more than
            20 levels.
    """
    if depth > MAX_DEPTH:
        raise ConfigError(f"it has more than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise ConfigError(f"a name is of type {type(name).__name__}; names are text")
            check_plain(name, depth + 1)
            check_plain(inner, depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check_plain(inner, depth + 1)
    elif isinstance(value, str) and "${" in value:
        raise ConfigError(f"{value!r:.60} has a reference (${{...}}); only plain values are possible")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError(f"it has a whole number of {value.bit_length()} bits; up to 64 are possible")
    elif not isinstance(value, (str, int, float, bool, type(None))):
        raise ConfigError(f"a value is of type {type(value).__name__}; only plain values are possible")
    return value
