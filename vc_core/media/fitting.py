"""Clips of other programs fitted to a model: its number of frames, their rate and their size."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .formats import VideoFileError, pyav
from .images import fit_image
from .opening import Unsuitable, container_of, decoding
from .sound import Sound
from .video import WHITE, decoded, upright_pixels

Each = TypeVar("Each")
#: A frame, its beginning and its end in seconds.
Timed = tuple[float, float, Each]
#: The last part of a frame's time in which the next one is taken: files round times, and the nearer frame is the better one.
NEXT = 0.3
#: Most frames of a clip whose length is not given.
MOST_FRAMES = 4096


@dataclass(frozen=True)
class Wanted:
    """What a clip is fitted to.

    Attributes:
        width, height: in pixels.
        length: number of frames; 0: all of the clip, at most :data:`MOST_FRAMES`.
        fps: frames per second; 0: those of the clip.
        start: of the part that is used, in seconds.
    """

    width: int
    height: int
    length: int
    fps: float = 0.0
    start: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """A fitted clip.

    Attributes:
        frames: ``[T, H, W, 3]`` in [0, 1].
        fps: of these frames.
        sound: of the same time, None where there is none.
        told: what was done, for people.
    """

    frames: Tensor
    fps: float
    sound: Sound | None
    told: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.frames) / self.fps


def fit_frames(images: Tensor, fps: float, wanted: Wanted, sound: Sound | None = None) -> Fitted:
    """Fit frames that are in memory.

    Args:
        images: ``[T, H, W, 3]`` in [0, 1].
        fps: of these frames.
        sound: that begins with the first frame.

    Raises:
        InputError: the part to be used begins after the last frame.
    """
    frames = [(index / fps, (index + 1) / fps, images[index]) for index in range(len(images))]
    return _fit(lambda: iter(frames), fps, wanted, lambda frame: frame, lambda first, seconds: sound and sound.fitted(seconds, first))


def fit_file(path: Path, wanted: Wanted) -> Fitted:
    """Fit a video file. Nothing after the last frame that is used is decoded, and only used frames are kept.

    Raises:
        InputError: the part to be used begins after the last frame.
        VideoFileError: the file can't be read.
    """
    with decoding(path, "video", VideoFileError, "Use an MP4, WebM or MKV."):
        rate = _frame_rate(path)
        kept = wanted.length or MOST_FRAMES
        return _fit(lambda: _timed(path, kept, rate), rate, wanted, _as_tensor, lambda first, end: _read_sound(path, first, end))


def _fit(
    clip: Callable[[], Iterator[Timed[Each]]],
    fps: float,
    wanted: Wanted,
    tensor: Callable[[Each], Tensor],
    hear: Callable[[float, float], Sound | None],
) -> Fitted:
    """Choose frames by their time. A clip that is too short is gone through once more, and its frames spread over the whole length."""
    rate, notes, length = wanted.fps or fps, [], wanted.length
    times = [wanted.start + index / rate for index in range(length or MOST_FRAMES)]
    size: list[int] = []
    frames: list[Tensor] = []

    def keep(frame: Each) -> None:
        image = tensor(frame)
        size[:] = image.shape[1], image.shape[0]
        frames.append(fit_image(image.movedim(-1, 0)[None].float(), wanted.height, wanted.width)[0].movedim(0, -1))

    end = choose(clip(), times, keep)
    if not length:
        length = max(1, min(len(frames), math.ceil((end - wanted.start) * rate - NEXT)))
        del frames[length:]
        notes += [f"only the first {MOST_FRAMES} frames"] if length == MOST_FRAMES else []
        notes += ["a single image, not a clip"] if len(frames) == 1 else []
    if len(frames) < length:
        seconds = end - wanted.start
        if seconds <= 0:
            raise InputError(f"The clip lasts {end:.3g} seconds, so that nothing is after start {wanted.start:g}: use a smaller start.")
        notes.append(f"the clip has only {seconds:.3g} s after {wanted.start:g} s, not {length / rate:.3g} s: spread over all of it")
        rate = length / seconds
        frames.clear()
        choose(clip(), [wanted.start + index / rate for index in range(length)], keep)
    seconds = length / rate
    if size != [wanted.width, wanted.height]:
        cut = size[0] * wanted.height != size[1] * wanted.width
        notes.append("scaled, and cut at the centre" if cut else "scaled")
    told = (
        f"{size[0]}x{size[1]} at {fps:.4g} fps, from {wanted.start:.3g} to {wanted.start + seconds:.3g} s: "
        f"{length} frame{'s' * (length > 1)} of {wanted.width}x{wanted.height} at {rate:.4g} fps" + "".join(f"; {note}" for note in notes)
    )
    return Fitted(torch.stack(frames), rate, hear(wanted.start, seconds), told)


def choose(frames: Iterable[Timed[Each]], times: list[float], keep: Callable[[Each], None]) -> float:
    """Hand on the frames that are shown at certain times, in order; a frame at several times several times.

    The frames are only gone through as far as needed.

    Args:
        times: in seconds, increasing.

    Returns:
        The end of the last frame that was seen; times after it have none.
    """
    wanted, end, last = 0, 0.0, None
    for begin, end, last in frames:
        while wanted < len(times) and times[wanted] < end - (end - begin) * NEXT:
            keep(last)
            wanted += 1
        if wanted == len(times):
            return end
    for time in times[wanted:]:
        if time < end and last is not None:
            keep(last)
    return end


def _timed(path: Path, kept: int, rate: float) -> Iterator[Timed[Any]]:
    """The frames of a file with their times, which begin at 0; a frame lasts until the next one, which is not decoded for that."""
    first: float | None = None
    for number, frame in enumerate(decoded(path, kept)):
        time = number / rate if frame.time is None else float(frame.time)
        first = time if first is None else first
        seconds = float(frame.duration * frame.time_base) if getattr(frame, "duration", 0) and frame.time_base else 1 / rate
        yield time - first, time - first + seconds, frame


def _as_tensor(frame: Any) -> Tensor:
    pixels = upright_pixels(frame)
    return torch.from_numpy(pixels.astype(np.float32)) / WHITE[pixels.dtype.name]


def _frame_rate(path: Path) -> float:
    av, name = pyav("Reading a video"), container_of(path)
    if name is None:
        raise Unsuitable("it is damaged, or of a kind that isn't read")
    with av.open(f"file:{os.fspath(path)}", format=name, options={"protocol_whitelist": "file"}) as container:
        rate = next((stream.average_rate or stream.guessed_rate for stream in container.streams.video), None)
    return float(rate or Fraction(25))


def _read_sound(path: Path, start: float, seconds: float) -> Sound | None:
    """A part of a file's sound, decoded as far as needed."""
    av = pyav("Reading a video")
    with av.open(f"file:{os.fspath(path)}", format=container_of(path), options={"protocol_whitelist": "file"}) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None or not stream.rate:
            return None
        mono = stream.codec_context.channels == 1
        resampler = av.AudioResampler(format="fltp", layout="mono" if mono else "stereo", rate=stream.rate)
        parts, count, most = [], 0, math.ceil((start + seconds) * stream.rate)
        for frame in container.decode(stream):
            for part in resampler.resample(frame):
                parts.append(part.to_ndarray())
                count += parts[-1].shape[1]
            if count >= most:
                break
    if not parts:
        return None
    return Sound(torch.from_numpy(np.concatenate(parts, 1)), stream.rate).fitted(seconds, start)
