"""The errors whose message is meant for a user. Any other exception from vc_core is a bug."""

from __future__ import annotations

import unicodedata


def plain(text: object) -> str:
    """Text from outside, such as a path or a library's message, on one line that is safe for terminals and logs.

    Control characters, line breaks and those that change the direction of text are written as escapes, such as ``\\x1b``.
    """
    unsafe = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(
        each.encode("unicode_escape").decode() if unicodedata.category(each) in unsafe else each for each in str(text)
    )


class VideoCrafterError(ValueError):
    """Base class of all errors that a user can cause and fix; the message says what is wrong, what is possible and what to do.

    The command line prints such an error in one line. Any other exception keeps its traceback. A message has no control
    characters but line breaks, whatever the names and texts in it.
    """

    def __str__(self) -> str:
        return "\n".join(map(plain, super().__str__().split("\n")))


class InputError(VideoCrafterError):
    """An argument or a setting that can't be used."""


class FileWriteError(VideoCrafterError):
    """A file that can't be written; what was there before is unchanged."""


class ConfigError(VideoCrafterError):
    """A configuration that can't be read, or that describes an impossible model."""
