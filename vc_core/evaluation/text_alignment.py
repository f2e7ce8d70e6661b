"""Text-video alignment: CLIPScore without its factor (Hessel et al., arXiv:2104.08718; EvalCrafter's clip_score, arXiv:2310.11440).

EvalCrafter's code gives the tower pixels of 0..255 without CLIP's normalization, which is not repeated here.
"""

from __future__ import annotations

from .clip import Clip
from .score import NotMeasured, Score
from .towers import Tower


def text_alignment(clip: Clip, tower: Tower) -> Score:
    """The mean cosine between the prompt and each frame. The clip must have a prompt.

    Raises:
        NotMeasured: the tower reads no text.
    """
    assert clip.prompt is not None
    if tower.text is None:
        raise NotMeasured("needs a text tower")
    text = tower.text(clip.prompt).float().cpu()
    return Score.mean(clip.embedded(tower.tag, tower.image) @ (text / text.norm()))
