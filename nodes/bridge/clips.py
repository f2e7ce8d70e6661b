"""Core's VIDEO: a file, or frames in memory."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import InputImpl


def file_of(video: Any) -> str | None:
    """The path of the file that a VIDEO is the whole of; None for frames in memory, files in memory, and parts of files.

    Raises:
        ValueError: it is no VIDEO.
    """
    if not hasattr(video, "get_components"):
        raise ValueError(f"The video is of the type {type(video).__name__}: connect the video of Load Video or Create Video.")
    if not isinstance(video, InputImpl.VideoFromFile):
        return None
    source = video.get_stream_source()
    trim = getattr(video, "get_active_trim_window", None)  # newer releases have Video Slice, which names a part of a file
    if not isinstance(source, str) or (trim is not None and trim() != (0.0, 0.0)):
        return None
    return source
