"""The errors whose message is meant for a user. Any other exception from vc_core is a bug."""

from __future__ import annotations


class VideoCrafterError(ValueError):
    """Base class of all errors that a user can cause and fix; the message says what is wrong, what is possible and what to do.

    The command line prints such an error in one line. Any other exception keeps its traceback.
    """


class InputError(VideoCrafterError):
    """An argument or a setting that can't be used."""


class FileWriteError(VideoCrafterError):
    """A file that can't be written; what was there before is unchanged."""


class ConfigError(VideoCrafterError):
    """A configuration that can't be read, or that describes an impossible model."""
