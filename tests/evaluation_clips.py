"""Clips whose scores are known, and damages of graded strength."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch

from tiny_world import world as worlds
from vc_core.evaluation.clip import Clip


def texture(height: int, width: int, seed: int = 0, blur: float = 2.0) -> np.ndarray:
    """A picture ``[H, W, 3]`` of 8 bits with detail everywhere."""
    noise = np.random.default_rng(seed).random([height, width, 3]).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), blur)
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.round(smooth * 255).astype(np.uint8)


def panning(step: float, frames: int = 8, height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """A window ``[T, H, W, 3]`` that moves left over a larger picture, so that everything moves right by ``step`` pixels."""
    margin = int(abs(step) * frames) + 8
    picture = texture(height, width + 2 * margin, seed).astype(np.float32)
    shifted = []
    for index in range(frames):
        matrix = np.float32([[1, 0, step * index - margin], [0, 1, 0]])
        shifted.append(cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_CUBIC))
    return np.clip(np.round(np.stack(shifted)), 0, 255).astype(np.uint8)


def drawn(count: int = 12, seed: int = 5) -> list[Clip]:
    """Clips of the world that the bundled models were trained on, each with its prompt, all different.

    None is white, which has no hue that a damage could turn.
    """
    world = worlds.World()
    clips = worlds.sample(world, 400, torch.Generator().manual_seed(seed))
    found: dict[str, Clip] = {}
    for row in range(400):
        triple = (int(clips.colour[row]), int(clips.shape[row]), int(clips.direction[row]))
        prompt = worlds.sentence("a {colour} {shape} moving {direction}", *triple)
        if prompt in found or "white" in prompt or clips.fps[row] > 12:  # faster motion is told from none more easily
            continue
        colour, shape = (each[row].expand(world.frames) for each in (clips.colour, clips.shape))
        frames = worlds.render(world, colour, shape, *clips.positions[row].T)
        found[prompt] = Clip.of(frames.transpose(0, 1), 8.0, prompt)
        if len(found) == count:
            break
    return list(found.values())


def shuffled(pixels: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    """A part of the frames in another order."""
    order = np.arange(len(pixels))
    chosen = np.sort(generator.permutation(len(pixels))[: round(strength * len(pixels))])
    order[chosen] = np.roll(chosen, len(chosen) // 2)
    return pixels[order]


def noisy(pixels: np.ndarray, strength: float, generator: np.random.Generator) -> np.ndarray:
    noise = generator.normal(0, 60 * strength, pixels.shape)
    return np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8)


def blurred(pixels: np.ndarray, strength: float, _: np.random.Generator) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 4 * strength) for frame in pixels]) if strength else pixels


def hued(pixels: np.ndarray, strength: float, _: np.random.Generator) -> np.ndarray:
    """The hue turned, by half a circle at full strength."""
    turned = []
    for frame in pixels:
        values = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        values[..., 0] = (values[..., 0].astype(int) + round(90 * strength)) % 180
        turned.append(cv2.cvtColor(values, cv2.COLOR_HSV2RGB))
    return np.stack(turned)


def frozen(pixels: np.ndarray, strength: float, _: np.random.Generator) -> np.ndarray:
    """The last part of the clip stands still."""
    last = round((1 - strength) * (len(pixels) - 1))
    return pixels[np.minimum(np.arange(len(pixels)), last)]


def stuttering(pixels: np.ndarray, strength: float, _: np.random.Generator) -> np.ndarray:
    """Each frame held for up to four more."""
    held = 1 + round(4 * strength)
    return pixels[np.arange(len(pixels)) // held * held]


Damage = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
DAMAGES: dict[str, Damage] = {
    "shuffle": shuffled, "noise": noisy, "blur": blurred, "hue": hued, "freeze": frozen, "stutter": stuttering,
}


def damaged(clip: Clip, name: str, strength: float, seed: int = 0) -> Clip:
    """A clip with a damage of a strength from 0 (none) to 1."""
    pixels = DAMAGES[name](clip.pixels, strength, np.random.default_rng(seed))
    return Clip(np.ascontiguousarray(pixels), clip.fps, clip.prompt, clip.image)
