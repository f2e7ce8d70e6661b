"""How closely a video follows its source image, as values of a clip; :mod:`.image_fidelity` has the measures."""

from __future__ import annotations

from ..media.resizing import resize_cubic
from .clip import AT_ONCE, Clip
from .image_fidelity import structure
from .score import Score
from .towers import Tower


def fidelity_structure(clip: Clip, _: None = None) -> Score:
    """The mean SSIM of the frames and the source image, resized to their size. The clip must have an image."""
    assert clip.image is not None
    still = resize_cubic(clip.image[None], clip.height, clip.width).clamp_(-1, 1)
    values: list[float] = []
    for start in range(0, len(clip), AT_ONCE):
        frames = clip.images(start, start + AT_ONCE)
        values += structure(frames, still.expand_as(frames)).tolist()
    return Score.mean(values)


def fidelity_content(clip: Clip, tower: Tower) -> Score:
    """The mean cosine between the embeddings of the frames and of the source image. The clip must have an image."""
    assert clip.image is not None
    image = tower.image(clip.image[None])[0].float().cpu()
    return Score.mean(clip.embedded(tower.tag, tower.image) @ (image / image.norm()))
