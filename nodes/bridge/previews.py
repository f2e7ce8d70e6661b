"""Animated latent previews: while a video is sampled, its node shows the frames one after the other.

ComfyUI shows only the first frame of a batch, after each step. Here core's previewer (latent2rgb or TAESD, as the user chose)
decodes further frames, and they are sent between the steps as ordinary previews, so that every front end shows them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache, partial, wraps
from typing import Any

import comfy.latent_formats
import comfy.patcher_extension
import latent_preview
from comfy_api.feature_flags import supports_feature
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from protocol import BinaryEventTypes
from server import PromptServer
from torch import Tensor

from .frames import conditioned_frames

#: Frames shown per second.
RATE = 8

#: A preview as the server sends it: an image format's name, the image, and its maximum size.
Preview = tuple[Any, ...]
#: A method ``decode_latent_to_preview_image`` of core's.
Decode = Callable[[str, Tensor], Preview]


class FramesFormat(comfy.latent_formats.SD15):
    """Stable Diffusion's latents of a video's frames. ``get_previewer`` identifies our models by this class."""


class Reel:
    """The most recently decoded frames of a video, shown one after the other by a thread.

    Args:
        node_id: the node that samples.
        frames: frames per video; the first video is shown. None: all frames of the batch are one video.
    """

    def __init__(self, node_id: str, frames: int | None) -> None:
        self.node_id, self.frames = node_id, frames
        self.previews: list[Preview | None] = []
        self._shown, self._turn = -1, 0.0  # the frame that is shown, and when the next one is due
        self._turning = threading.Lock()
        self._renewed = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._play, name="VideoCrafter previews", daemon=True)

    def renew(self, decode: Decode, preview_format: str, x0: Tensor) -> Preview:
        """Decode the frames that can be shown before the next step, if it takes as long as the last; return the one to show now.

        Args:
            x0: the predicted clean batch, ``[n, 4, h, w]``.
        """
        video, now = x0[: self.frames], time.monotonic()
        self.previews = self.previews or [None] * len(video)
        first, count = max(0, self._shown), min(len(video), 2 + int((now - self._renewed) * RATE))
        self._renewed = now
        for frame in range(first, first + count):
            frame %= len(video)
            self.previews[frame] = decode(preview_format, video[frame : frame + 1])
        # A frame that is due soon is shown now, so that this thread and the other do not send it at the same time.
        self._next_if_due(early=0.5 / RATE)
        if self._thread.ident is None:
            self._thread.start()
        return self.previews[self._shown] or self.previews[first]

    def stop(self) -> None:
        """Stop showing frames."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _next_if_due(self, early: float = 0.0) -> bool:
        """Advance to the next frame if it is due, or will be in ``early`` seconds. Returns whether it was."""
        with self._turning:
            now = time.monotonic()
            due = now + early >= self._turn
            if due:
                self._shown, self._turn = (self._shown + 1) % len(self.previews), now + 1 / RATE
            return due

    def _play(self) -> None:
        """The thread: show each frame when it is due."""
        while not self._over.wait(max(0.0, self._turn - time.monotonic())):
            if not PromptServer.instance.messages.empty():
                self._over.wait(1 / RATE)  # a slow connection: skip frames rather than queue more and more
            elif self._next_if_due() and (preview := self.previews[self._shown]):
                self._send(preview)

    def _send(self, preview: Preview) -> None:
        """Send a preview as core does after a step, with unchanged progress."""
        registry, server = get_progress_state(), PromptServer.instance
        state = registry.ensure_entry(self.node_id)
        for handler in registry.handlers.values():
            if handler.enabled:
                handler.update_handler(self.node_id, state["value"], state["max"], state, registry.prompt_id, preview)
        # Clients that don't support previews with metadata get them without.
        if not supports_feature(server.sockets_metadata, server.client_id, "supports_preview_metadata"):
            server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, preview, server.client_id)


_reel: ContextVar[Reel | None] = ContextVar("videocrafter_reel", default=None)


def while_sampling(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Wraps a guider's ``outer_sample``: previews are animated while it runs."""
    context = get_executing_context()
    node_id = context.node_id if context else PromptServer.instance.last_node_id
    reel = Reel(node_id, conditioned_frames(executor.class_obj.conds))
    token = _reel.set(reel)
    try:
        return executor(*args, **kwargs)
    finally:
        _reel.reset(token)
        reel.stop()


def animated(decode: Decode, preview_format: str, x0: Tensor) -> Preview:
    """A step's preview: that of the running :class:`Reel`, or ``decode``'s if there is none."""
    reel = _reel.get()
    return reel.renew(decode, preview_format, x0) if reel else decode(preview_format, x0)


def install(patcher: Any) -> None:
    """Add animated previews to a MODEL."""
    _wrap_previewer()
    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "videocrafter previews", while_sampling)


@cache
def _wrap_previewer() -> None:
    """Make core's ``get_previewer`` return animated previews for latents in :class:`FramesFormat`; others are unchanged."""
    usual = latent_preview.get_previewer

    @wraps(usual)
    def get_previewer(device: Any, latent_format: Any, *args: Any, **kwargs: Any) -> Any:
        previewer = usual(device, latent_format, *args, **kwargs)
        # A previewer that overrides the method, such as that of a pack that animates all models' previews, is left alone.
        core_s = latent_preview.LatentPreviewer.decode_latent_to_preview_image
        if isinstance(latent_format, FramesFormat) and getattr(type(previewer), "decode_latent_to_preview_image", None) is core_s:
            previewer.decode_latent_to_preview_image = partial(animated, previewer.decode_latent_to_preview_image)
        return previewer

    latent_preview.get_previewer = get_previewer
