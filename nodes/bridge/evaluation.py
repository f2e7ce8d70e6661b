"""What the core's measures need of ComfyUI's types: clips of IMAGEs, a tower of CLIP and CLIP_VISION, and the flow model of core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from torch import Tensor

from ...vc_core.evaluation.clip import Clip
from ...vc_core.evaluation.evaluator import Scores, evaluate
from ...vc_core.evaluation.flow import RaftFlow
from ...vc_core.evaluation.results import Row
from ...vc_core.evaluation.score import Measure
from ...vc_core.evaluation.tools import Tools, flow_of, make_tools
from ...vc_core.evaluation.towers import Tower, clip_pixels
from ...vc_core.media.images import value_range
from .images import rgb_frames, rgb_images


def clip_of(images: Tensor, fps: float, prompt: str = "", image: Tensor | None = None) -> Clip:
    """A clip of an IMAGE, whose values are clamped to [0, 1] as in saving.

    Raises:
        ValueError: as :func:`.images.rgb_frames`, values far outside [0, 1], frames of less than 8 pixels, or another number of source
            images than one.
    """
    if image is not None and len(image) != 1:
        raise ValueError(f"image has {len(image)} images; exactly one is needed. Use ImageFromBatch to take one.")
    low, high = value_range(rgb_frames(images))
    if low < -1 or high > 2:
        raise ValueError(f"The image has values from {low:g} to {high:g}; an IMAGE is in [0, 1]. Divide by 255 first if it is of 8 bits.")
    pixels = rgb_frames(images).float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    source = None if image is None else (rgb_images(image)[0] * 2 - 1).clamp(-1, 1).cpu()
    return Clip(np.ascontiguousarray(pixels.numpy()), fps, prompt, source)


def tools_of(measures: list[Measure], clip: Any, clip_vision: Any, optical_flow: Any) -> Tools:
    """The tools that are connected, and those of libraries. Nothing is downloaded."""
    tools = make_tools([each for each in measures if each.tool not in ("tower", "flow")])
    tools.missing |= {
        "tower": "needs an image encoder: connect clip_vision",
        "dino": "needs DINO's weights: vc-core evaluate --weights dino=FILE",
        "musiq": "needs MUSIQ's weights: vc-core evaluate --weights musiq=FILE",
        "aesthetic": "needs weights: vc-core evaluate --weights aesthetic=FILE --weights clip-l14=FILE",
    }
    if clip_vision is not None:
        tools.found["tower"] = [tower_of(clip, clip_vision)]
    tools.add("flow", lambda: flow_of() if optical_flow is None else raft_of(optical_flow))
    return tools


def tower_of(clip: Any, clip_vision: Any) -> Tower:
    """CLIP_VISION's embedding, and CLIP's where it is connected and of the same length."""
    size = clip_vision.image_size
    width = clip_vision.model.vision_model.embeddings.patch_embedding.out_channels

    def embed(images: Tensor) -> Tensor:
        comfy.model_management.load_model_gpu(clip_vision.patcher)
        pixels = clip_pixels(images.to(clip_vision.load_device), size)
        return clip_vision.model(pixel_values=pixels, intermediate_output=-2)[2].float().cpu()

    def embed_text(prompt: str) -> Tensor:
        pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)[1]
        return pooled[0].float().cpu()

    tag = {1280: "openclip-h"}.get(width, f"CLIP_VISION {width}")
    return Tower(tag, embed, None if clip is None else embed_text)


def raft_of(optical_flow: Any) -> RaftFlow:
    """RAFT of core's Load Optical Flow Model."""
    comfy.model_management.load_model_gpu(optical_flow)
    return RaftFlow(optical_flow.model, optical_flow.load_device)


def rows_of(videos: Mapping[str, Clip], measures: list[Measure], tools: Tools) -> dict[str, Row]:
    """The rows of clips by their labels. Progress is shown, and ComfyUI's cancel ends it between two measures."""
    progress = comfy.utils.ProgressBar(len(videos) * len(measures))

    def before() -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update(1)

    return {label: _row(clip, evaluate(clip, measures, tools, before), label) for label, clip in videos.items()}


def divided(images: Tensor, videos: int) -> dict[str, Tensor]:
    """The frames of each of a number of videos of the same length, which follow each other in an IMAGE, by their labels.

    Raises:
        ValueError: the frames can't be divided into that many videos.
    """
    if videos == 1:
        return {"value": images}
    if len(images) % videos:
        raise ValueError(
            f"images has {len(images)} frames, which are not {videos} videos of the same length. Set videos to how many there are."
        )
    return {f"video {number}": frames for number, frames in enumerate(images.chunk(videos), 1)}


def side_by_side(first: Tensor, second: Tensor, plots: Tensor) -> Tensor:
    """Two clips beside each other over their curves, an IMAGE ``[T, H, W, 3]``.

    The second is scaled to the first one's height; of the shorter one the last frame stays. A line shows the frame in the curves.

    Args:
        first, second: IMAGEs.
        plots: the curves ``[h, w, 3]``, which are scaled to the width.
    """
    frames = max(len(first), len(second))
    height = max(first.shape[1], 192)
    sides = [_scaled(rgb_images(each), height) for each in (first, second)]
    sides = [torch.cat([each, each[-1:].expand(frames - len(each), -1, -1, -1)]) for each in sides]
    row = torch.cat(sides, dim=3)
    width = row.shape[3] // 2 * 2
    plot = _scaled_to_width(plots.movedim(-1, 0)[None], width)
    video = torch.cat([row[..., :width], plot.expand(frames, -1, -1, -1)], dim=2).clamp(0, 1)
    return video[:, :, : video.shape[2] // 2 * 2].movedim(1, -1).contiguous()


def _scaled(images: Tensor, height: int) -> Tensor:
    if images.shape[2] == height:
        return images
    width = max(1, round(images.shape[3] * height / images.shape[2]))
    mode = "nearest" if images.shape[2] * 2 <= height else "bilinear"
    return torch.nn.functional.interpolate(images, (height, width), mode=mode)


def _scaled_to_width(images: Tensor, width: int) -> Tensor:
    height = max(2, round(images.shape[2] * width / images.shape[3]))
    return torch.nn.functional.interpolate(images, (height, width), mode="area" if width < images.shape[3] else "bilinear")


def _row(clip: Clip, scores: Scores, name: str) -> Row:
    curves = {key: list(score.curve) for key, score in scores.found.items()}
    firsts = {key: score.first for key, score in scores.found.items()}
    return Row(name, prompt=clip.prompt, frames=len(clip), values=scores.values, curves=curves, firsts=firsts, skipped=scores.skipped)


def table_of(rows: Mapping[str, Row], title: Any) -> str:
    """A Markdown table of clips by their labels, with the reasons of what could not be measured below it."""
    keys = list(dict.fromkeys(key for row in rows.values() for key in row.values))
    lines = ["| measure | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for key in keys:
        cells = ["" if key not in row.values else f"{row.values[key]:.4g}" for row in rows.values()]
        lines.append(f"| {title(key)} | " + " | ".join(cells) + " |")
    reasons = {name: reason for row in rows.values() for name, reason in row.skipped.items()}
    return "\n".join([*lines, "", *(f"{title(name)}: not measured; {reason}." for name, reason in reasons.items())]).strip()
