"""Text rendering: whether words that a prompt has in quotes stand in the frames, as rapidocr reads them.

EvalCrafter's ocr_score (arXiv:2310.11440) is the mean of three error rates of PaddleOCR's text; this is one minus the first of them.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .brisque import MOST_FRAMES, spaced
from .clip import Clip
from .optional import library
from .score import NotMeasured, Score

#: Words in quotes: "STOP", ‘stop’, “stop”, «stop», or 'stop' where the quotes are at the words' ends, unlike in "don't".
QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|‘([^’]+)’|«([^»]+)»|(?<!\w)\'([^\']+)\'(?!\w)')


class Reader:
    """rapidocr with the models in its package."""

    tag = "rapidocr"

    def __init__(self) -> None:
        library("onnxruntime", "onnxruntime")
        self._read: Any = library("rapidocr", "rapidocr").RapidOCR(params={"Global.log_level": "error"})

    def __call__(self, frame: np.ndarray) -> str:
        """The text of a frame ``[H, W, 3]`` of 8 bits, from top to bottom; "" where there is none."""
        found = self._read(np.ascontiguousarray(frame[..., ::-1]))  # it takes BGR
        return " ".join(found.txts or ())


def text_rendering(clip: Clip, reader: Reader) -> Score:
    """The mean over at most 8 frames of 1 minus the edit distance to the wanted text over the longer text's length, in [0, 1].

    Upper and lower case and blanks make no difference.

    Raises:
        NotMeasured: the prompt has no words in quotes.
    """
    wanted = quoted(clip.prompt or "")
    if not wanted:
        raise NotMeasured("has a prompt without words in quotes")
    return Score.mean([likeness(wanted, reader(clip.pixels[index])) for index in spaced(len(clip), MOST_FRAMES)])


def quoted(prompt: str) -> str:
    """What a prompt has in quotes, in its order."""
    return " ".join("".join(match.groups("")) for match in QUOTED.finditer(prompt))


def likeness(wanted: str, found: str) -> float:
    """1 minus the edit distance over the longer text's length, of texts without blanks and in one case."""
    one, other = ("".join(text.casefold().split()) for text in (wanted, found))
    return 1 - edit_distance(one, other) / max(len(one), len(other), 1)


def edit_distance(one: str, other: str) -> int:
    """The fewest insertions, deletions and substitutions from one text to the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for count, letter in enumerate(one, 1):
        before, row[0] = row[0], count
        for index, each in enumerate(other, 1):
            before, row[index] = row[index], min(row[index] + 1, row[index - 1] + 1, before + (letter != each))
    return row[-1]
