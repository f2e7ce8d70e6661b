"""Numbers over time: a strength for each frame of a video, in the syntax of :mod:`.prompt_schedule`."""

from __future__ import annotations

import re

from .errors import InputError, VideoCrafterError
from .prompt_schedule import read_schedule

#: A number after a key; the reader of schedules takes texts in quotes.
_NUMBER = re.compile(r"([\"'\w]\s*[:=]\s*)([-+]?[\d.]+(?:e-?\d+)?)(?=\s*(?:[,}\n]|$))")

#: Where a schedule can't be read, in the message that says so.
_PLACE = re.compile(r"line \d+, column \d+")


def numbers_over_time(text: str, frames: int, lowest: float, highest: float, name: str = "strength") -> list[float]:
    """A number for each frame.

    Args:
        text: one number, or ``"0": 1.0, "-1": 0.3``: numbers at frames, as in :func:`.prompt_schedule.read_schedule`, with those between
            two keys on a line.
        lowest, highest: what a number can be.
        name: of the setting, for messages.

    Raises:
        InputError: it can't be read, or has a number out of range.
    """
    try:
        numbers = [float(text)] * frames
    except ValueError:
        try:
            schedule = read_schedule(_NUMBER.sub(r'\1"\2"', text))
        except VideoCrafterError as error:
            place = _PLACE.search(error.message)
            form = 'give a number, or one at some frames, such as "0": 1.0, "-1": 0.3.'
            what = f"is neither a number nor a schedule of numbers{f' (see {place[0]})' if place else ''}: {form}"
            raise InputError(f"{name} is {text!r:.80}, which {what}") from error
        values = [_number(each, name) for each in schedule.texts]
        numbers = [values[mix.first] + mix.share * (values[mix.second] - values[mix.first]) for mix in schedule.mixes(frames)]
        _check(values, lowest, highest, name)
    _check(numbers, lowest, highest, name)
    return numbers


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f'{name} has {text!r:.40} at a frame; a number is needed, such as "0": 1.0, "-1": 0.3.') from None


def _check(numbers: list[float], lowest: float, highest: float, name: str) -> None:
    for number in numbers:
        if not lowest <= number <= highest:
            raise InputError(f"{name} is {number:g}; it must be {lowest:g} to {highest:g}.")
