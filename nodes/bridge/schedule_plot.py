"""A picture of a prompt schedule."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...vc_core.prompt_schedule import PromptSchedule

WIDTH, LANE, MARGIN = 768, 56, 16
GROUND, GREY, BLACK = (255, 255, 255), (225, 225, 225), (20, 20, 20)
COLOURS = ((0, 153, 136), (238, 119, 51), (170, 51, 119), (204, 187, 68), (51, 187, 238), (119, 119, 170))
#: Lanes; of a longer schedule the first ones are shown.
MOST = 40


def plot(schedule: PromptSchedule, frames: int) -> Tensor:
    """A lane for each prompt, in which a frame's bar is as high as its share of the prompt, ``[1, H, 768, 3]``."""
    shares = np.zeros([len(schedule.texts), frames])
    for frame, mix in enumerate(schedule.mixes(frames)):
        shares[mix.first, frame] += 1 - mix.share
        shares[mix.second, frame] += mix.share
    lanes = min(len(schedule.texts), MOST)
    image = Image.new("RGB", (WIDTH, lanes * LANE + 2 * MARGIN + 8), GROUND)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    step = (WIDTH - 2 * MARGIN) / frames
    for lane in range(lanes):
        floor = MARGIN + (lane + 1) * LANE - 6
        draw.text((MARGIN, floor - LANE + 8), _short(schedule.texts[lane]), BLACK, font)
        for frame in range(frames):
            left, right = MARGIN + frame * step, MARGIN + (frame + 1) * step - min(2, step / 4)
            draw.rectangle((left, floor - 24, right, floor), GREY)
            if shares[lane, frame]:
                draw.rectangle((left, floor - 24 * shares[lane, frame], right, floor), COLOURS[lane % len(COLOURS)])
    bottom = MARGIN + lanes * LANE
    for frame in sorted({0, frames // 4, frames // 2, 3 * frames // 4, frames - 1}):
        draw.text((MARGIN + frame * step, bottom), str(frame), BLACK, font)
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255)[None]


def _short(text: str) -> str:
    """A text as the font has it, in one line."""
    shown = text.encode("latin-1", "replace").decode("latin-1") or "(no text)"
    return shown if len(shown) <= 100 else shown[:97] + "..."
