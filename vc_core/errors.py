"""The errors whose message is meant for a user. Any other exception from vc_core is a bug."""

from __future__ import annotations

from collections.abc import Sequence

#: Most characters of a message, and of each of its lines.
LONGEST_MESSAGE = 6000


def printable(text: str, width: int = LONGEST_MESSAGE) -> str:
    """Text for a terminal, a log or a page.

    Characters that such a place could obey (colours, line breaks, changes of the direction of writing) and those that it can't
    print are replaced by their escapes, such as ``\\x1b``.

    Args:
        width: most characters of the result; a longer text is cut.
    """
    text = text[:width]
    if not text.isprintable():
        text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
    return text[:width]


class VideoCrafterError(ValueError):
    """Base class of all errors that a user can cause and fix; the message says what is wrong, what is possible and what to do.

    The command line prints such an error in one line. Any other exception keeps its traceback.

    Args:
        message: made printable, since it can contain names from files.
        lines: printed below it, one line each, likewise printable.
    """

    #: The command line's exit code.
    exit_code = 1

    def __init__(self, message: str = "", lines: Sequence[str] = ()) -> None:
        self.message, self.lines = printable(message), tuple(map(printable, lines))
        super().__init__("\n  ".join([self.message, *self.lines]))


class InputError(VideoCrafterError):
    """An argument or a setting that can't be used."""


class FileWriteError(VideoCrafterError):
    """A file that can't be written; what was there before is unchanged."""


class ConfigError(VideoCrafterError):
    """A configuration that can't be read, or that describes an impossible model."""
