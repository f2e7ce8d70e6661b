"""Prompts over time: a text for each frame of a video, in the syntax of FizzNodes' and AnimateDiff-Evolved's schedules.

``"0": "a red circle", "16": "a blue circle"``. Between two keys the texts' tokens are mixed. A key is the number of a frame, from the end
if it is negative (``"-1"`` is the last), or a share of the video with a decimal point (``"0.5"``; ``"1.0"`` is the last frame). ``"0:12"``
keeps a text from frame 0 to 11, and ``"8:"`` from frame 8 up to the next key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .errors import InputError

#: How texts are mixed between two keys: along a line, on a sphere, along a line with a slow start and end, or not at all.
INTERPOLATIONS = ("linear", "slerp", "ease", "none")
LONGEST, MOST_KEYS = 200_000, 2000
_QUOTES = str.maketrans({mark: '"' for mark in "“”„‟«»＂"})
_ESCAPES = {"n": " ", "t": " ", "r": " ", '"': '"', "\\": "\\", "/": "/"}
_MOMENT = re.compile(r"(?P<frame>-?\d{1,9})|(?P<share>\d{0,9}\.\d{1,9})|max_f(?:(?P<sign>[-+*/])(?P<by>\d{1,9}(?:\.\d{1,9})?))?")
_BARE_KEY = re.compile(r"[-+.\w*/]+")


@dataclass(frozen=True)
class Mix:
    """A frame's text: text number ``first``, mixed with number ``second`` by ``share``, 0 to 1."""

    first: int
    second: int
    share: float


@dataclass(frozen=True)
class _Entry:
    start: str
    end: str | None
    holds: bool
    text: str


@dataclass(frozen=True)
class PromptSchedule:
    """Texts at keys, see :func:`read_schedule`.

    Attributes:
        before, after: put before and after every text, with a comma.
        interpolation: one of :data:`INTERPOLATIONS`.
    """

    entries: tuple[_Entry, ...]
    before: str = ""
    after: str = ""
    interpolation: str = "linear"
    texts: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"interpolation is {self.interpolation!r:.40}; it can be {', '.join(INTERPOLATIONS)}.")
        parts = ([self.before, entry.text, self.after] for entry in self.entries)
        object.__setattr__(self, "texts", tuple(", ".join(part.strip(" ,") for part in each if part.strip(" ,")) for each in parts))

    def mixes(self, frames: int) -> list[Mix]:
        """The text of each frame.

        Raises:
            InputError: a key that lies before the first frame, or is no share from 0 to 1.
        """
        keys, rows, place = self._keys(frames), [], 0
        for frame in range(frames):
            while place + 1 < len(keys) and keys[place + 1][0] <= frame:
                place += 1
            start, text, holds = keys[place]
            share, following = 0.0, text
            if place + 1 < len(keys) and not holds and frame > start:
                end, following, _ = keys[place + 1]
                share = self._eased((frame - start) / (end - start)) if following != text else 0.0
            rows.append(Mix(text, following if share else text, share))
        return rows

    def mixed(self, tokens: Sequence[Tensor], frames: int) -> Tensor:
        """The tokens of each frame's text, ``[frames, n, width]``.

        Args:
            tokens: those of each of :attr:`texts`, ``[n, width]``. Texts with fewer are repeated to the least common multiple, which
                attention can't tell apart but by rounding.
        """
        length = math.lcm(*(len(each) for each in tokens))
        equal = [each.repeat(length // len(each), 1) for each in tokens]
        mix = _slerp if self.interpolation == "slerp" else torch.lerp
        rows = self.mixes(frames)
        return torch.stack([mix(equal[row.first], equal[row.second], row.share) if row.share else equal[row.first] for row in rows])

    def _eased(self, share: float) -> float:
        if self.interpolation == "none":
            return 0.0
        return share * share * (3 - 2 * share) if self.interpolation == "ease" else share

    def _keys(self, frames: int) -> list[tuple[int, int, bool]]:
        """Frame, number of the text, and whether it holds up to the next key; a range has a key at both of its ends.

        Of texts that start at one frame the last counts, and a range ends where the next text starts.
        """
        starts = {_frame(entry.start, frames): number for number, entry in enumerate(self.entries)}
        ordered, keys = sorted(starts), []
        for start, following in zip(ordered, [*ordered[1:], math.inf], strict=True):
            entry = self.entries[starts[start]]
            keys.append((start, starts[start], entry.holds))
            last = start if entry.end is None else min(_frame(entry.end, frames) - 1, following - 1)
            if last < start:
                raise InputError(f"The range {entry.start}:{entry.end} of the prompt schedule is empty in a video of {frames} frames.")
            if last > start:
                keys.append((int(last), starts[start], False))
        return keys


def read_schedule(text: str, before: str = "", after: str = "", interpolation: str = "linear") -> PromptSchedule:
    """Read a schedule.

    Args:
        text: ``"key": "text"`` pairs with commas between them, with or without braces, or lines of ``key = "text"``. Nothing in it is
            evaluated: expressions between backticks are refused.
        before, after, interpolation: see :class:`PromptSchedule`.

    Raises:
        InputError: it can't be read; the message has the line, the column, and the line itself.
    """
    if len(text) > LONGEST:
        raise InputError(f"The prompt schedule has {len(text)} characters; at most {LONGEST} are read.")
    text = text.translate(_QUOTES)
    if text.lstrip(" {\n\t").startswith('\\"'):  # escaped once more than JSON needs
        text = text.replace('\\"', '"')
    return PromptSchedule(tuple(_Reader(text).entries()), before, after, interpolation)


#: One prompt for all clips, one for each, or a schedule for all.
Prompt = str | Sequence[str] | PromptSchedule


def encode_prompt(encode: Callable[[list[str]], Tensor], prompt: Prompt, clips: int, frames: int) -> Tensor:
    """The text tokens of clips, ``[clips, n, width]``, or ``[clips, frames, n, width]`` where each frame has its own.

    Args:
        encode: prompts -> ``[B, n, width]``. Texts of a schedule are encoded one by one, so that a short one keeps its numbers.

    Raises:
        InputError: another number of prompts than of clips, or a schedule that doesn't fit the frames.
    """
    if isinstance(prompt, PromptSchedule):
        tokens = {text: encode([text])[0] for text in prompt.texts}
        mixed = prompt.mixed([tokens[text] for text in prompt.texts], frames)
        return mixed.expand(clips, *mixed.shape)
    each = [prompt] * clips if isinstance(prompt, str) else list(prompt)
    if len(each) != clips:
        raise InputError(f"There are {len(each)} prompts for {clips} clips; give one for all, or one for each.")
    return encode(each)


class _Reader:
    """Reads a schedule from its first character on."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def entries(self) -> list[_Entry]:
        found: list[_Entry] = []
        self._skip(" \t\r\n,{")
        while self.at < len(self.text) and self.text[self.at] != "}":
            if len(found) == MOST_KEYS:
                raise self._error(f"there are more than {MOST_KEYS} keys")
            found.append(self._entry())
            self._skip(" \t\r\n,;")
        if not found:
            raise self._error('there is no key; write "0": "a text"')
        self._skip(" \t\r\n,;}")
        if self.at < len(self.text):
            raise self._error("there is more after the closing brace")
        return found

    def _entry(self) -> _Entry:
        begin = self.at
        key = self._quoted() if self._next() == '"' else self._bare()
        start, colon, end = (part.strip() for part in key.partition(":"))
        for moment in (start, *([end] if end else [])):
            if not _MOMENT.fullmatch(moment):
                self.at = begin
                raise self._error(f'{key!r:.40} is no key; it can be "16", "-1", "0.5", "0:12", "8:" or "max_f"')
        self._skip(" \t\r\n")
        if self._next() not in (":", "="):
            raise self._error("a colon is missing between the key and its text")
        self.at += 1
        self._skip(" \t\r\n")
        if self._next() != '"':
            raise self._error('a text in quotes is missing, "like this"')
        begin = self.at
        words = self._quoted()
        if "`" in words:
            self.at = begin
            raise self._error("expressions between backticks are not evaluated; write the number, such as (smiling:0.8)")
        return _Entry(start, end or None, bool(colon) and not end, words)

    def _quoted(self) -> str:
        begin, parts = self.at, []
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] != '"':
            character = self.text[self.at]
            if character == "\\" and self.text[self.at + 1 : self.at + 2] in _ESCAPES:
                self.at += 1
                character = _ESCAPES[self.text[self.at]]
            parts.append(" " if character in "\n\r\t" else character)
            self.at += 1
        if self.at >= len(self.text):
            self.at = begin
            raise self._error("this quote has no end")
        self.at += 1
        return "".join(parts)

    def _bare(self) -> str:
        match = _BARE_KEY.match(self.text, self.at)
        if match is None:
            raise self._error("a key is missing, such as 0 or 16")
        self.at = match.end()
        return match[0]

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip(self, characters: str) -> None:
        while self.at < len(self.text) and self.text[self.at] in characters:
            self.at += 1

    def _error(self, what: str) -> InputError:
        before = self.text[: self.at]
        line, column = before.count("\n") + 1, self.at - (before.rfind("\n") + 1) + 1
        shown = (self.text.splitlines() or [""])[min(line, len(self.text.splitlines()) or 1) - 1]
        return InputError(f"The prompt schedule can't be read at line {line}, column {column}: {what}. The line is: {shown:.200}")


def _frame(moment: str, frames: int) -> int:
    """The frame of a key in a video; it can lie beyond the last one, as a goal that is not reached.

    Raises:
        InputError: it lies before the first frame, or is no share from 0 to 1.
    """
    match = _MOMENT.fullmatch(moment)
    assert match is not None
    if match["share"] is not None:
        share = float(match["share"])
        if share > 1:
            raise InputError(f'The key "{moment}" of the prompt schedule is a share of the video; it must be 0.0 to 1.0.')
        return round(share * (frames - 1))
    if match["frame"] is not None:
        frame = int(match["frame"])
        frame += frames if frame < 0 else 0
    else:
        by = float(match["by"] or 1)
        results = {None: float(frames), "+": frames + by, "-": frames - by, "*": frames * by, "/": frames / by if by else -1.0}
        frame = int(results[match["sign"]])
    if frame < 0:
        raise InputError(f'The key "{moment}" of the prompt schedule lies before the first of {frames} frames.')
    return frame


def _slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Mix vectors ``[..., width]`` along a great circle, their lengths along a line; nearly parallel ones along a line."""
    lengths = first.norm(dim=-1, keepdim=True), second.norm(dim=-1, keepdim=True)
    cosine = ((first * second).sum(-1, keepdim=True) / (lengths[0] * lengths[1]).clamp(min=1e-12)).clamp(-1, 1)
    angle = cosine.acos()
    parallel = angle.sin() < 1e-4
    sine = torch.where(parallel, 1.0, angle.sin())
    one, other = ((1 - share) * angle).sin() / sine, (share * angle).sin() / sine
    direction = one * first / lengths[0].clamp(min=1e-12) + other * second / lengths[1].clamp(min=1e-12)
    return torch.where(parallel, torch.lerp(first, second, share), direction * torch.lerp(*lengths, share))
