"""The errors that this package raises on purpose. Anything else is a bug."""

from __future__ import annotations


class VideoCrafterError(ValueError):
    """The base of all of them. The message names the value, what is possible, and what to do."""


class InputError(VideoCrafterError):
    """An argument, a setting or an input that can't be used."""
