"""Writing video files with PyAV: frame by frame, with sound beside them, colours of BT.709, and the index before the pictures."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .clip import Clip
from .formats import BEST_CRF, CRF, FORMATS, WORST_CRF, WORST_CRF_OF_WEBM, Format, VideoFileError, pyav
from .sound import Sound

#: Sampling rate in Hz that all encoders of sound have, and those that AAC has beside it.
COMMON_RATE = 48000
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
#: Bits of sound per second and channel, for the encoders that lose something.
SOUND_BITS = 96_000
#: What x265 computes from memory that it has not set: the time of the first of two reordered frames, and pixels where a block is as wide
#: as the frame.
LEAST_REORDERED = 3
LARGEST_BLOCK = 64

logger = logging.getLogger(__name__)


def write_container(clip: Clip, path: Path, name: str, crf: float | None, tags: Mapping[str, str]) -> None:
    """Write a video file. A warning is logged where something of the clip has to be changed for it.

    Args:
        path: of the file, which is written directly; whatever its name is, it is a file's and no protocol's.
        name: of a format of :data:`.formats.FORMATS` that PyAV writes.
        crf: quality, 0 (best) to 51; 6 more halve the size, roughly. None: :data:`.formats.CRF`.
        tags: metadata of the file, texts by name.

    Raises:
        VideoFileError: there is no PyAV, or FFmpeg can't write the file. What the system says is an OSError.
    """
    form = FORMATS[name]
    width, height = clip.size
    even = (height % 2, width % 2) if form.even else (0, 0)
    if any(even):
        logger.warning(
            f"The frames are {width}x{height}; {form.title} has even sides: saved as {width + even[1]}x{height + even[0]}, with the last "
            "row or column repeated."
        )
    av = pyav(f"Writing {form.title}")
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder tells nothing but errors
    order = clip.order(max(1, clip.loop_count))
    try:
        _write(av, clip, path, form, _options(name, CRF if crf is None else crf, len(order), width), order, even, tags)
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise VideoFileError(f"{path} can't be written as {form.title}: {error}.") from error


def _options(name: str, crf: float, frames: int, width: int) -> dict[str, str]:
    """The encoder's options for a number of frames of a width, with the quality on its own scale."""
    options = dict(FORMATS[name].options)
    if name == "h264":
        if crf < BEST_CRF:
            logger.warning(f"crf {crf:g} would be lossless, which browsers don't play: saved with crf {BEST_CRF}.")
        options["crf"] = f"{max(crf, BEST_CRF):g}"
    elif name == "h265":
        options["crf"] = f"{crf:g}"
        if frames < LEAST_REORDERED:
            options["x265-params"] += ":bframes=0"
        if width <= LARGEST_BLOCK:
            options["x265-params"] += f":ctu={LARGEST_BLOCK // 2}"
    elif name in ("vp9", "av1"):
        options["crf"] = f"{max(1, round(crf * WORST_CRF_OF_WEBM / WORST_CRF))}"
    return options


def _write(
    av: Any, clip: Clip, path: Path, form: Format, options: Mapping[str, str], order: Sequence[int], even: tuple[int, int],
    tags: Mapping[str, str],
) -> None:
    movflags = {"movflags": "use_metadata_tags+faststart"} if form.container in ("mp4", "mov") else {}
    with av.open(f"file:{os.fspath(path)}", "w", format=form.container, options=movflags) as container:
        container.metadata.update(tags)
        stream = container.add_stream(form.encoder, rate=clip.rate, options=dict(options))
        stream.pix_fmt = form.pixels
        stream.width, stream.height = clip.size[0] + even[1], clip.size[1] + even[0]
        stream.time_base = stream.codec_context.time_base = 1 / clip.rate
        if form.tag:
            stream.codec_context.codec_tag = form.tag
        picture_of = _Pictures(av, stream.width, stream.height, form, clip.rate)
        sound = _SoundTrack(av, container, form, clip.sound, float(len(order) / clip.rate)) if clip.sound else None
        for number, index in enumerate(order):
            pixels = np.pad(clip.pixels(index, form.bits), ((0, even[0]), (0, even[1]), (0, 0)), mode="edge")
            container.mux(stream.encode(picture_of(pixels, number)))
            if sound is not None:
                sound.write((number + 1) / clip.rate)
        container.mux(stream.encode())
        if sound is not None:
            sound.close()


class _Pictures:
    """Converts frames to a format's pixels, in the colors of BT.709.

    FFmpeg's filters do it, whose pictures have room after each row. `VideoFrame.reformat` has none, and its threads then write over
    the first pixels of each other's rows, and behind the last one.
    """

    def __init__(self, av: Any, width: int, height: int, form: Format, rate: Fraction) -> None:
        self._av, self._time_base = av, 1 / rate
        self._given = "rgb24" if form.bits == 8 else "rgb48le"
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(width=width, height=height, format=self._given, time_base=self._time_base)
        scale = self._graph.add("scale", "out_color_matrix=bt709:out_range=tv:flags=bilinear")
        self._graph.link_nodes(source, scale, self._graph.add("format", form.pixels), self._graph.add("buffersink")).configure()

    def __call__(self, pixels: np.ndarray, number: int) -> Any:
        """The picture of frame number `number`, ``[H, W, 3]`` of 8 or 16 bits."""
        frame = self._av.VideoFrame.from_ndarray(pixels, format=self._given)
        frame.pts, frame.time_base = number, self._time_base
        self._graph.push(frame)
        return self._graph.pull()


class _SoundTrack:
    """The sound of a file that is being written, encoded along with the pictures, so that both lie side by side in it."""

    def __init__(self, av: Any, container: Any, form: Format, sound: Sound, seconds: float) -> None:
        keeps = form.sound not in ("aac", "libopus") or (form.sound == "aac" and sound.rate in AAC_RATES)
        self._sound = (sound if keeps else _resampled(av, sound, COMMON_RATE)).fitted(seconds)
        self._av, self._container, self._written = av, container, 0
        self._stream = container.add_stream(form.sound, rate=self._sound.rate, layout=sound.layout)
        if form.sound in ("aac", "libopus"):
            self._stream.bit_rate = SOUND_BITS * len(sound.samples)
        elif form.sound == "flac":
            self._stream.format = "s32"  # 24 bits

    def write(self, seconds: Fraction) -> None:
        """Write the sound up to a time."""
        end = round(seconds * self._sound.rate)
        samples = self._sound.samples[:, self._written : end]
        if samples.shape[1]:
            self._container.mux(self._stream.encode(_frame(self._av, samples, self._sound, self._written)))
            self._written = end

    def close(self) -> None:
        """Write what the encoder holds."""
        self._container.mux(self._stream.encode())


def _frame(av: Any, samples: Tensor, sound: Sound, start: int) -> Any:
    frame = av.AudioFrame.from_ndarray(samples.contiguous().numpy(), format="fltp", layout=sound.layout)
    frame.sample_rate, frame.pts = sound.rate, start
    return frame


def _resampled(av: Any, sound: Sound, rate: int) -> Sound:
    resampler = av.AudioResampler(format="fltp", layout=sound.layout, rate=rate)
    frames = [*resampler.resample(_frame(av, sound.samples, sound, 0)), *resampler.resample(None)]
    return Sound(torch.from_numpy(np.concatenate([frame.to_ndarray() for frame in frames], 1)), rate)
