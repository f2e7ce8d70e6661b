"""The clips of a training set: which are used, why others are not, and what is read of them in training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..config import SamplingConfig
from ..errors import InputError
from ..sampling import suggested_size
from .strides import StrideSettings, stride_for


@dataclass
class ClipSettings:
    """What a sample of the training is.

    Attributes:
        frames, height, width: of a sample; 0: the model's own.
        strides: see :class:`.strides.StrideSettings`.
        buckets: whether a clip of another aspect gets a size of its own, with about as many pixels; without, the middle is cut out.
        images: whether images are used, as clips of one frame.
        trigger: words that every caption starts with.
        most_frames: of a longer video the first so many frames are used.
        workers: threads that decode files.
    """

    frames: int = 0
    height: int = 0
    width: int = 0
    strides: StrideSettings = field(default_factory=StrideSettings)
    buckets: bool = True
    images: bool = True
    trigger: str = ""
    most_frames: int = 1024
    workers: int = 2

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of the samples of a clip of this size."""
        if not self.buckets:
            return self.height, self.width
        best, other = suggested_size(SamplingConfig(height=self.height, width=self.width), width, height)
        return other, best


@dataclass(frozen=True)
class Clip:
    """A clip that is used.

    Attributes:
        name, caption: see :class:`.sources.Item`; the caption with the trigger words.
        frames, fps: of its video.
        height, width: of its samples.
        count: frames of a sample: 1 for an image.
        latents, text: the files with what was computed of it.
    """

    name: str
    caption: str
    frames: int
    fps: float
    height: int
    width: int
    count: int
    latents: Path
    text: Path

    @property
    def bucket(self) -> tuple[int, int, int]:
        """Samples of one batch have the same frames, height and width."""
        return self.count, self.height, self.width


@dataclass(frozen=True)
class Left:
    """A clip that isn't used, and why."""

    name: str
    reason: str


def why_not(settings: ClipSettings, frames: int, fps: float, is_image: bool) -> str:
    """Why a clip isn't used; empty if it is."""
    if is_image:
        return "" if settings.images or settings.frames == 1 else "an image; this preset trains on videos only"
    strides = settings.strides
    if stride_for(strides, strides.stride_max, frames, fps, settings.frames):
        return ""
    if frames < settings.frames:
        return f"{frames} frames at {fps:g} fps; {settings.frames} are needed"
    drawn = max(1, int(strides.stride_max * fps / strides.fps))
    needed = drawn * (settings.frames - 1) + 1
    return f"{frames} frames at {fps:g} fps; {settings.frames} at {strides.fps:g} fps need {needed} (every {drawn}th), at least half of it"


@dataclass
class ClipSet:
    """The clips that are used, and those that aren't."""

    clips: list[Clip]
    left: list[Left]
    notes: Counter[str] = field(default_factory=Counter)

    def lines(self, settings: ClipSettings) -> Iterator[str]:
        """The set for a person: each clip with what is taken of it, then the counts."""
        for clip in self.clips:
            taken = "as one frame" if clip.count == 1 else self._taken(clip, settings)
            yield f"  {clip.name}: {clip.frames} frames at {clip.fps:g} fps, {taken}, {clip.width}x{clip.height}, {clip.caption[:60]!r}"
        for each in self.left:
            yield f"  {each.name}: left out: {each.reason}"
        sizes = Counter(clip.bucket for clip in self.clips)
        shapes = ", ".join(f"{n} of {count}x{width}x{height}" for (count, height, width), n in sorted(sizes.items()))
        yield f"{len(self.clips)} clips are used ({shapes or 'none'}), {len(self.left)} are left out."
        for note, count in sorted(self.notes.items()):
            yield f"{count} {note}"

    @staticmethod
    def _taken(clip: Clip, settings: ClipSettings) -> str:
        strides = settings.strides
        drawn = {strides.stride_max} if strides.fps else {strides.stride_min, strides.stride_max}
        found = sorted({stride_for(strides, each, clip.frames, clip.fps, clip.count) for each in drawn})
        rates = [int(clip.fps // each) for each in reversed(found)]
        rates = [min(each, strides.fps_max) for each in rates] if strides.fps_max else rates
        return f"{clip.count} of them, stride {'-'.join(map(str, found))}, {'-'.join(map(str, rates))} fps"

    def check(self, data: Path) -> None:
        """
        Raises:
            InputError: no clip is used; the message says why.
        """
        if not self.clips:
            raise InputError(f"No clip of {data} can be used.", [f"{each.name}: {each.reason}" for each in self.left[:20]])


def with_trigger(trigger: str, caption: str | None) -> str:
    """A caption that starts with the trigger words."""
    return ", ".join(each for each in (trigger.strip(), (caption or "").strip()) if each)
