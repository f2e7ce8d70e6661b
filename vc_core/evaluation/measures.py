"""All measures, each a row."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from ..errors import InputError
from .brisque import brisque
from .consistency import consistency, temporal_consistency
from .fidelity import fidelity_content, fidelity_structure
from .flicker import flickering
from .motion import dynamic_degree, flow_score, motion_speed
from .plain_shapes import colour, count
from .quality import aesthetic_quality, imaging_quality
from .score import Measure
from .sharpness import sharpness
from .smoothness import motion_smoothness
from .text_alignment import text_alignment
from .text_rendering import text_rendering
from .warping import warping_error

VBENCH, EVALCRAFTER = "VBench, arXiv:2311.17982", "EvalCrafter, arXiv:2310.11440"
PROMPT, IMAGE = ("prompt",), ("image",)

_ALL = (
    Measure("text_alignment", "Text alignment", EVALCRAFTER, "alignment", "higher", -1, 1, text_alignment, "tower", PROMPT),
    Measure("text_rendering", "Text rendering", EVALCRAFTER, "alignment", "higher", 0, 1, text_rendering, "reader", PROMPT),
    Measure("color", "Color of plain shapes", EVALCRAFTER, "alignment", "higher", 0, 1, colour, needs=PROMPT),
    Measure("count", "Count of plain shapes", EVALCRAFTER, "alignment", "higher", 0, 1, count, needs=PROMPT),
    Measure(
        "image_fidelity", "Image fidelity", "cosine of CLIP's embeddings", "alignment", "higher", -1, 1, fidelity_content, "tower", IMAGE
    ),
    Measure(
        "image_fidelity_ssim", "Image fidelity (SSIM)", "Wang et al. 2004", "alignment", "higher", -1, 1, fidelity_structure,
        needs=IMAGE,
    ),
    Measure(
        "temporal_consistency", "Temporal consistency", EVALCRAFTER, "consistency", "higher", -1, 1, temporal_consistency, "tower",
        frames=2,
    ),
    Measure("subject_consistency", "Subject consistency", VBENCH, "consistency", "higher", 0, 1, consistency, "dino", frames=2),
    Measure("background_consistency", "Background consistency", VBENCH, "consistency", "higher", 0, 1, consistency, "tower", frames=2),
    Measure("temporal_flickering", "Temporal flickering", VBENCH, "consistency", "higher", 0, 1, flickering, frames=2),
    Measure("warping_error", "Warping error", EVALCRAFTER, "consistency", "lower", 0, 3, warping_error, "flow", frames=2),
    Measure("motion_smoothness", "Motion smoothness", VBENCH, "motion", "higher", 0, 1, motion_smoothness, "flow", frames=3),
    Measure("dynamic_degree", "Dynamic degree", VBENCH, "motion", "", 0, 1, dynamic_degree, "flow", frames=2),
    Measure("flow_score", "Flow score", EVALCRAFTER, "motion", "", 0, None, flow_score, "flow", frames=2),
    Measure("motion_speed", "Motion speed", "short sides per second", "motion", "", 0, None, motion_speed, "flow", frames=2),
    Measure("sharpness", "Sharpness", "variance of the Laplacian, Pech-Pacheco et al. 2000", "image quality", "higher", 0, None, sharpness),
    Measure("brisque", "BRISQUE", "Mittal et al. 2012", "image quality", "lower", None, None, brisque, "brisque"),
    Measure("imaging_quality", "Imaging quality", VBENCH, "image quality", "higher", 0, 1, imaging_quality, "musiq"),
    Measure("aesthetic_quality", "Aesthetic quality", VBENCH, "image quality", "higher", 0, 1, aesthetic_quality, "aesthetic"),
)
#: The measures by name.
MEASURES: dict[str, Measure] = {each.name: each for each in _ALL}


def chosen(names: Sequence[str]) -> list[Measure]:
    """Measures by their names, in the table's order; all for no names or "all".

    Raises:
        InputError: there is no such measure; the message names similar ones.
    """
    wanted = [name.strip() for each in names for name in each.split(",") if name.strip()]
    if not wanted or "all" in wanted:
        return list(_ALL)
    for name in wanted:
        if name not in MEASURES:
            near = get_close_matches(name, MEASURES, 3, 0.4) or MEASURES
            raise InputError(f"There is no measure {name!r}; did you mean {' or '.join(near)}? There are: {', '.join(MEASURES)}.")
    return [each for each in _ALL if each.name in wanted]
