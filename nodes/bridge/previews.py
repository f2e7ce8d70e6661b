"""Latent previews that move: while a video is sampled, its node shows the frames one after the other.

ComfyUI shows the first frame of a batch after each step. Here the previewer of core (latent2rgb or TAESD, whichever the user has
chosen) is asked for further frames, and between the steps they are sent as any preview is, so that every front end shows them.
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

#: Frames shown in a second.
RATE = 8

#: What the server sends: a format's name, the picture, and the size it is brought to.
Picture = tuple[Any, ...]
#: A method ``decode_latent_to_preview_image`` of core's.
Decode = Callable[[str, Tensor], Picture]


class FramesFormat(comfy.latent_formats.SD15):
    """Latents of Stable Diffusion that are a video's frames: what tells :func:`get_previewer` our models from others."""


class Reel:
    """The frames of a video as last decoded, and which of them is shown.

    Args:
        node_id: the node that samples.
        frames: frames a video, of which the first is shown; all of the batch where nothing is known.
    """

    def __init__(self, node_id: str, frames: int | None) -> None:
        self.node_id, self.frames = node_id, frames
        self.pictures: list[Picture | None] = []
        self._shown, self._turn = -1, 0.0  # the frame that is seen, and when the next one's turn comes
        self._turning = threading.Lock()
        self._renewed = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._play, name="VideoCrafter previews", daemon=True)

    def renew(self, decode: Decode, preview_format: str, x0: Tensor) -> Picture:
        """Decode the frames that may be shown before the next step, should it take as long as the last; return the one to show now.

        Args:
            x0: the batch as it is predicted to be, ``[n, 4, h, w]``.
        """
        video, now = x0[: self.frames], time.monotonic()
        self.pictures = self.pictures or [None] * len(video)
        first, count = max(0, self._shown), min(len(video), 2 + int((now - self._renewed) * RATE))
        self._renewed = now
        for frame in range(first, first + count):
            frame %= len(video)
            self.pictures[frame] = decode(preview_format, video[frame : frame + 1])
        # A frame whose turn is near is shown at once, so that none is sent by both sides at the same time.
        self._next_if_due(early=0.5 / RATE)
        if self._thread.ident is None:
            self._thread.start()
        return self.pictures[self._shown] or self.pictures[first]

    def stop(self) -> None:
        """Show no more."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _next_if_due(self, early: float = 0.0) -> bool:
        """Turn to the next frame if its turn has come, or does in so many seconds."""
        with self._turning:
            now = time.monotonic()
            due = now + early >= self._turn
            if due:
                self._shown, self._turn = (self._shown + 1) % len(self.pictures), now + 1 / RATE
            return due

    def _play(self) -> None:
        """What the thread does: show frames as their turns come."""
        while not self._over.wait(max(0.0, self._turn - time.monotonic())):
            if not PromptServer.instance.messages.empty():
                self._over.wait(1 / RATE)  # a slow connection: the picture stays as it is, rather than ever more being queued
            elif self._next_if_due() and (picture := self.pictures[self._shown]):
                self._send(picture)

    def _send(self, picture: Picture) -> None:
        """As a step's progress sends its preview, but for the progress."""
        registry, server = get_progress_state(), PromptServer.instance
        state = registry.ensure_entry(self.node_id)
        for handler in registry.handlers.values():
            if handler.enabled:
                handler.update_handler(self.node_id, state["value"], state["max"], state, registry.prompt_id, picture)
        # Clients that know no pictures with metadata get them plain.
        if not supports_feature(server.sockets_metadata, server.client_id, "supports_preview_metadata"):
            server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, picture, server.client_id)


_reel: ContextVar[Reel | None] = ContextVar("videocrafter_reel", default=None)


def while_sampling(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Wraps a guider's ``outer_sample``: previews move as long as it runs."""
    context = get_executing_context()
    node_id = context.node_id if context else PromptServer.instance.last_node_id
    reel = Reel(node_id, conditioned_frames(executor.class_obj.conds))
    token = _reel.set(reel)
    try:
        return executor(*args, **kwargs)
    finally:
        _reel.reset(token)
        reel.stop()


def moving(decode: Decode, preview_format: str, x0: Tensor) -> Picture:
    """A step's preview, in place of ``decode`` alone."""
    reel = _reel.get()
    return reel.renew(decode, preview_format, x0) if reel else decode(preview_format, x0)


def install(patcher: Any) -> None:
    """Have a MODEL's sampling show moving previews."""
    _wrap_previewer()
    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "videocrafter previews", while_sampling)


@cache
def _wrap_previewer() -> None:
    """Have core's ``get_previewer`` give moving previews for latents in :class:`FramesFormat`; others stay as they are."""
    usual = latent_preview.get_previewer

    @wraps(usual)
    def get_previewer(device: Any, latent_format: Any, *args: Any, **kwargs: Any) -> Any:
        previewer = usual(device, latent_format, *args, **kwargs)
        # A previewer with a way of its own, as that of a pack that animates all models', is left to it.
        core_s = latent_preview.LatentPreviewer.decode_latent_to_preview_image
        if isinstance(latent_format, FramesFormat) and getattr(type(previewer), "decode_latent_to_preview_image", None) is core_s:
            previewer.decode_latent_to_preview_image = partial(moving, previewer.decode_latent_to_preview_image)
        return previewer

    latent_preview.get_previewer = get_previewer
