"""Each measure along a damage of rising strength: it falls or rises with every step, as its definition says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.evaluation_clips import DAMAGES, damaged, drawn, panning
from vc_core.evaluation.clip import Clip
from vc_core.evaluation.evaluator import evaluate
from vc_core.evaluation.measures import MEASURES, chosen
from vc_core.evaluation.text_rendering import Reader, text_rendering
from vc_core.evaluation.tools import make_tools
from vc_core.evaluation.towers import model_tower

LEVELS = (0, 0.25, 0.5, 0.75, 1)
MODEL = "videocrafter_tiny_i2v"

#: Measure, damage, and where it goes; drawn shapes have few edges, so that what reads texture gets a textured clip.
DRAWN = (
    ("text_alignment", "hue", -1), ("image_fidelity", "hue", -1), ("image_fidelity", "noise", -1),
    ("image_fidelity_ssim", "hue", -1), ("image_fidelity_ssim", "noise", -1), ("temporal_consistency", "noise", -1),
    ("background_consistency", "noise", -1), ("temporal_flickering", "noise", -1), ("warping_error", "noise", 1),
    ("motion_smoothness", "noise", -1), ("flow_score", "freeze", -1), ("motion_speed", "freeze", -1), ("sharpness", "blur", -1),
    ("sharpness", "noise", 1),
)
TEXTURED = (
    ("temporal_flickering", "noise", -1), ("warping_error", "noise", 1),
    ("motion_smoothness", "noise", -1), ("flow_score", "freeze", -1), ("motion_speed", "freeze", -1), ("sharpness", "blur", -1),
)


#: What the bundled image tower does not see: its embedding tells kinds apart, and hardly sees noise.
UNSEEN_DRAWN, UNSEEN_TEXTURED = (("text_alignment", "noise", -1),), (("temporal_consistency", "noise", -1),)


def shapes() -> list[Clip]:
    clips = drawn(4)
    for clip in clips:
        clip.image = clip.images(0, 1)[0]
    return clips


def textures() -> list[Clip]:
    return [Clip(panning(3.0, 16, height=160, width=200, seed=seed)) for seed in range(2)]


def courses(clips: Sequence[Clip], names: Sequence[str], damage: str) -> dict[str, list[float]]:
    """The mean of each measure over the clips, at each level of a damage."""
    measures = chosen(names)
    tools = make_tools(measures, MODEL)
    rows = [[evaluate(damaged(clip, damage, level), measures, tools).values for clip in clips] for level in LEVELS]
    assert all(len(values) == len(measures) for row in rows for values in row)
    keys = {key.split()[0]: key for key in rows[0][0]}
    return {name: [float(np.mean([values[keys[name]] for values in row])) for row in rows] for name in names}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("clips", "table"), [(shapes, DRAWN), (textures, TEXTURED)])
def test_each_step_of_a_damage_moves_a_measure(clips, table, damage):
    ways = {name: way for name, by, way in table if by == damage}
    for name, values in courses(clips(), list(ways), damage).items() if ways else ():
        assert (ways[name] * np.diff(values) > 0).all(), (name, values)


@pytest.mark.xfail(strict=True, reason="the bundled image tower's embedding hardly sees noise")
@pytest.mark.parametrize(("clips", "table"), [(shapes, UNSEEN_DRAWN), (textures, UNSEEN_TEXTURED)])
def test_noise_that_the_bundled_tower_should_see(clips, table):
    test_each_step_of_a_damage_moves_a_measure(clips, table, "noise")


def test_what_counts_frames_never_goes_back():
    """Colors and the dynamic degree are shares of few clips, which can stay the same from step to step."""
    for name, damage in (("color", "hue"), ("dynamic_degree", "freeze")):
        values = courses(shapes(), [name], damage)[name]
        assert values[0] == 1 and values[-1] == 0 and (np.diff(values) <= 0).all(), (name, values)


def test_more_shapes_than_the_prompt_says():
    def crowded(pixels: np.ndarray, strength: float) -> np.ndarray:
        """A second shape in a part of the frames, half an image away."""
        changed = pixels.copy()
        last = round(strength * len(pixels))
        changed[:last] = np.maximum(pixels[:last], np.roll(pixels[:last], 32, axis=1 if pixels[0, 16:48].max() > 100 else 2))
        return changed

    clip = drawn(1)[0]
    values = [MEASURES["count"].run(Clip(crowded(clip.pixels, level), prompt=clip.prompt), None).value for level in LEVELS]
    assert values == [1 - level for level in LEVELS]


def test_a_subject_that_changes_is_less_consistent():
    """DINO's weights are not here; the measure itself is the same for any tower."""
    measure, tower, clips = MEASURES["subject_consistency"], model_tower(MODEL), drawn(4)
    values = [float(np.mean([measure.run(damaged(clip, "noise", level), tower).value for clip in clips])) for level in LEVELS]
    assert (np.diff(values) < 0).all(), values


@pytest.mark.parametrize("damage", ["noise", "blur"])
def test_brisque_rises_with_damage(damage):
    pytest.importorskip("brisque")
    values = courses(textures(), ["brisque"], damage)["brisque"]
    assert (np.diff(values) > 0).all(), values


def test_text_that_loses_letters():
    pytest.importorskip("rapidocr")
    words = "HELLO MY WORLD"
    reader, values = Reader(), []
    for kept in (14, 11, 8, 5, 0):
        image = Image.new("RGB", (640, 200), "navy")
        ImageDraw.Draw(image).text((40, 60), words[:kept], fill="white", font=ImageFont.load_default(60))
        values.append(text_rendering(Clip(np.asarray(image)[None], prompt=f'a sign that says "{words}"'), reader).value)
    assert values[0] == 1 and values[-1] == 0 and (np.diff(values) < 0).all(), values
