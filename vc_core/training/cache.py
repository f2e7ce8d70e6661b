"""Latents, image features and texts of a training set, computed once and kept on the disk.

A file's name is a hash of all that its content depends on: the clip's file, the size of the samples, and the weights of the network
that computed it. So several training sets and models can share a cache, and a changed clip is computed anew.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..decoding import in_pieces
from ..errors import VideoCrafterError
from ..files import replacing
from ..media.images import fit_image
from ..media.opening import is_image
from ..media.video import WHITE, average_fps, stream_frames
from ..memory import frames_at_once
from ..models.image_encoder import ImageEncoder, prepare_images
from ..pipeline import VideoModel
from .clips import Clip, ClipSet, ClipSettings, Left, why_not, with_trigger
from .sources import Item
from .state import make_folder

#: In a file's name, so that files of another layout are not taken for these.
LAYOUT = "1"
MOMENTS, FEATURES, TEXT = "moments", "features", "text"


@dataclass(frozen=True)
class Decoded:
    """A clip that was read: its frames fitted to the size of its samples, ``[F, 3, H, W]`` of 8 bits, and its frames per second."""

    frames: Tensor
    fps: float
    is_image: bool


def fingerprint(network: nn.Module) -> str:
    """A hash of a network's weights."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def decode(item: Item, settings: ClipSettings) -> Decoded:
    """Read a clip. Each frame is fitted as it is decoded, so that memory doesn't depend on the size of the video.

    Raises:
        VideoFileError: it can't be read.
    """
    with item.file() as path:
        fps, still = average_fps(path), is_image(path)
        frames: list[Tensor] = []
        size: tuple[int, int] | None = None
        for frame in stream_frames(path, settings.most_frames):
            size = size or settings.size_for(frame.shape[1], frame.shape[0])
            frames.append(_fitted(frame, *size))
    return Decoded(torch.stack(frames), fps, still and len(frames) == 1)


def _fitted(frame: np.ndarray, height: int, width: int) -> Tensor:
    pixels = torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)[None] * (255 / WHITE.get(frame.dtype.name, 1))
    return fit_image(pixels, height, width)[0].round().clamp(0, 255).byte()


class Cache:
    """The folder, and the networks that compute what is in it.

    Args:
        folder: is made where it is missing.
        model: with autoencoder and text encoder, and an image encoder if the model has one.

    Attributes:
        encoded: how many clips were computed in this run.
    """

    def __init__(self, folder: Path, model: VideoModel) -> None:
        make_folder(folder)
        self.folder, self.model, self.encoded = folder, model, 0
        self.autoencoder = model.networks["autoencoder"]
        encoder = model.networks.get("image_encoder")
        self.image_encoder = encoder if isinstance(encoder, ImageEncoder) else None
        images = "" if self.image_encoder is None else fingerprint(self.image_encoder)
        self._latents_key = fingerprint(self.autoencoder) + images
        self._text_key = fingerprint(model.networks["text_encoder"])

    def path(self, *parts: str) -> Path:
        """The file whose content depends on these."""
        return self.folder / f"{hashlib.sha256(chr(0).join([LAYOUT, *parts]).encode()).hexdigest()[:40]}.safetensors"

    def latents_path(self, item: Item, settings: ClipSettings) -> Path:
        """The file with a clip's latents."""
        size = f"{settings.height}x{settings.width} {settings.buckets} {settings.most_frames}"
        return self.path("latents", item.identity(), size, self._latents_key)

    def text_path(self, caption: str) -> Path:
        """The file with an encoded caption."""
        return self.path("text", caption, self._text_key)

    @torch.inference_mode()
    def add_text(self, caption: str) -> Path:
        """Encode a caption, unless it is there."""
        path = self.text_path(caption)
        if _intact(path) is None:
            _write(path, {TEXT: self.model.encode_text([caption])[0].float().cpu()}, {})
        return path

    @torch.inference_mode()
    def add_latents(self, path: Path, decoded: Decoded) -> None:
        """Encode a clip: the moments of all its frames in float32 and, for models with an image encoder, their features in float16."""
        device, dtype, frames = self.model.device, self.model.dtype, decoded.frames
        at_once = frames_at_once(self.model.config.autoencoder, frames.shape[-2] * frames.shape[-1], dtype, device)

        def moments(piece: Tensor) -> Tensor:
            return self.autoencoder.encode((piece.to(device).float() / 127.5 - 1).to(dtype)).float().cpu()  # type: ignore[operator]

        tensors = {MOMENTS: in_pieces(moments, frames, at_once)}
        if self.image_encoder is not None:
            tensors[FEATURES] = in_pieces(partial(self._features, self.image_encoder), frames, at_once)
        kind = "image" if decoded.is_image else "video"
        _write(path, tensors, {"frames": str(len(frames)), "fps": repr(decoded.fps), "kind": kind})
        self.encoded += 1

    def _features(self, encoder: ImageEncoder, frames: Tensor) -> Tensor:
        pixels = prepare_images(frames.to(self.model.device).float() / 127.5 - 1, encoder.config.image_size)
        return encoder(pixels.to(self.model.dtype)).half().cpu()

    @torch.no_grad()
    def empty_features(self) -> Tensor | None:
        """The features of the image that stands for none, ``[1, n, width]``; None for models without images."""
        if self.image_encoder is None:
            return None
        size = self.image_encoder.config.image_size
        pixels = prepare_images(torch.zeros(1, 3, size, size, device=self.model.device), size)
        return self.image_encoder(pixels.to(self.model.dtype)).float().cpu()


def build(items: Iterable[Item], settings: ClipSettings, cache: Cache, report: Callable[[str], None]) -> ClipSet:
    """Decode in threads and encode what the cache lacks; a file that can't be read is left out with its reason.

    Args:
        report: is told how far it is.
    """
    found = ClipSet([], [])
    listed = list(items)
    for number, (item, decoded) in enumerate(_decoded_ahead(listed, settings, cache), 1):
        if isinstance(decoded, VideoCrafterError):
            found.left.append(Left(item.name, str(decoded)))
            continue
        path = cache.latents_path(item, settings)
        if decoded is not None and (reason := why_not(settings, len(decoded.frames), decoded.fps, decoded.is_image)):
            found.left.append(Left(item.name, reason))
            continue
        if decoded is not None:
            report(f"encoding {number}/{len(listed)}: {item.name}")
            cache.add_latents(path, decoded)
        _sort_in(found, item, path, settings, cache)
    return found


def _sort_in(found: ClipSet, item: Item, path: Path, settings: ClipSettings, cache: Cache) -> None:
    with safe_open(path, "pt") as file:
        metadata, shape = file.metadata(), file.get_slice(MOMENTS).get_shape()
    frames, fps, is_image = int(metadata["frames"]), float(metadata["fps"]), metadata["kind"] == "image"
    if reason := why_not(settings, frames, fps, is_image):
        found.left.append(Left(item.name, reason))
        return
    caption = with_trigger(settings.trigger, item.caption)
    if not (item.caption or "").strip():
        kind = "no caption file" if item.caption is None else "an empty caption"
        found.notes[f"of them have {kind}: {'the trigger words stand' if settings.trigger else 'the empty text stands'} for it."] += 1
    factor = cache.model.config.downscale
    size = shape[2] * factor, shape[3] * factor
    found.clips.append(Clip(item.name, caption, frames, fps, *size, 1 if is_image else settings.frames, path, cache.add_text(caption)))


def _decoded_ahead(items: list[Item], settings: ClipSettings, cache: Cache) -> Iterator[tuple[Item, Decoded | VideoCrafterError | None]]:
    """Each item with what was read of it: None where the cache has it, an error where it can't be read. A few are read ahead."""

    def work(item: Item) -> Decoded | VideoCrafterError | None:
        try:
            return None if _intact(cache.latents_path(item, settings)) is not None else decode(item, settings)
        except VideoCrafterError as error:
            return error
        except OSError as error:
            return VideoCrafterError(f"There is no file {item.path}: {error.strerror or error}.")

    waiting: deque[tuple[Item, Future[Decoded | VideoCrafterError | None]]] = deque()
    with ThreadPoolExecutor(max(1, settings.workers)) as workers:
        for item in items:
            waiting.append((item, workers.submit(work, item)))
            if len(waiting) > settings.workers + 1:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def _intact(path: Path) -> dict[str, str] | None:
    """The metadata of a file of the cache; None if it isn't there or can't be read."""
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            return metadata
    except (OSError, SafetensorError):
        return None


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, {"format": "pt", **metadata})
