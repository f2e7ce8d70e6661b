"""Paths of a subject in ComfyUI: its words among core's tokens, its box, and the NOISE that follows it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...vc_core.diffusion.boxes import BoxNoise, BoxPath
from ...vc_core.diffusion.freetraj import places_of
from ...vc_core.diffusion.noise import SeededNoise
from .frames import fold, frames_per_video, unfold

#: CLIP's token at the end of a text.
END = 49407


class TrajectoryNoise:
    """A NOISE with the core's numbers for a seed.

    Attributes:
        seed: also that of the sampler's noise.
        path: the box that the noise follows; None for standard normal noise.
    """

    def __init__(self, seed: int, path: BoxPath | None) -> None:
        self.seed, self.path = seed, path

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """The noise of a LATENT's frames, ``[n, C, h, w]``.

        Raises:
            InputError: the path is for fewer frames.
        """
        shape = fold(input_latent["samples"], frames_per_video(input_latent)).shape
        noise = SeededNoise(shape, self.seed) if self.path is None else BoxNoise(shape, self.seed, self.path)
        return unfold(noise.start)


def subject_places(clip: Any, prompt: str, subject: str) -> tuple[int, ...]:
    """The places of a subject's word pieces among core's tokens of a prompt.

    Raises:
        ValueError: there is no text encoder or no subject, or the subject is not in the prompt.
    """
    if clip is None or not subject.strip() or not prompt.strip():
        raise ValueError(
            "FreeTraj needs to know which words of the prompt move: connect clip, put the positive prompt into prompt, and its words for "
            "what moves into subject."
        )
    tokens = [entry[0] for section in _sections(clip, prompt) for entry in section]
    words = [entry[0] for entry in _sections(clip, subject)[0]]
    return places_of(words[1 : words.index(END)], tokens, subject)


def _sections(clip: Any, text: str) -> list[list[tuple[Any, ...]]]:
    """Core's tokens of a text, in pieces of 77: each a list of number and weight."""
    sections: list[list[tuple[Any, ...]]] = next(iter(clip.tokenize(text).values()))
    return sections

