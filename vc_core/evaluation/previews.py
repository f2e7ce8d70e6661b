"""Small copies of clips inside a page, which then needs no other file."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

import torch.nn.functional as F

from ..errors import VideoCrafterError
from ..media.video import save_video
from .clip import Clip

#: Longest side in pixels, most frames and quality of a preview.
SIDE, FRAMES, CRF = 224, 64, 28.0


def preview(path: Path) -> str | None:
    """A clip as the address of an MP4 that is in the address itself; None where the file can't be read any more."""
    try:
        clip = Clip.read(path, most=FRAMES)
        frames = clip.images()
        scale = SIDE / max(clip.height, clip.width)
        if scale < 1:
            sides = [max(2, round(side * scale / 2) * 2) for side in (clip.height, clip.width)]
            frames = F.interpolate(frames, sides, mode="area")
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "clip.mp4"
            save_video(frames.transpose(0, 1).clamp(-1, 1), target, min(clip.fps, 60.0), crf=CRF)
            return "data:video/mp4;base64," + base64.b64encode(target.read_bytes()).decode("ascii")
    except (VideoCrafterError, OSError):
        return None
