"""The totals of VBench and EvalCrafter, by their published formulas, only from all of their parts.

The values must be those of the suites' own tools, by the suites' names: no value measured here with another tower or flow is taken
for one of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import InputError

VBENCH_VERSION = "VBench, scripts/constant.py of 2024"
EVALCRAFTER_VERSION = "EvalCrafter, eval_from_metrics.py of 2023"
#: VBench's quality dimensions and semantic dimensions: the range that is scaled to 0..1, and the weight within the group.
VBENCH_QUALITY = {
    "subject consistency": (0.1462, 1.0, 1.0), "background consistency": (0.2615, 1.0, 1.0), "temporal flickering": (0.6293, 1.0, 1.0),
    "motion smoothness": (0.706, 0.9975, 1.0), "aesthetic quality": (0.0, 1.0, 1.0), "imaging quality": (0.0, 1.0, 1.0),
    "dynamic degree": (0.0, 1.0, 0.5),
}
VBENCH_SEMANTIC = {
    "object class": (0.0, 1.0, 1.0), "multiple objects": (0.0, 1.0, 1.0), "human action": (0.0, 1.0, 1.0), "color": (0.0, 1.0, 1.0),
    "spatial relationship": (0.0, 1.0, 1.0), "scene": (0.0, 0.8222, 1.0), "appearance style": (0.0009, 0.2855, 1.0),
    "temporal style": (0.0, 0.364, 1.0), "overall consistency": (0.0, 0.364, 1.0),
}
#: The weights of the two groups.
QUALITY_WEIGHT, SEMANTIC_WEIGHT = 4.0, 1.0

#: EvalCrafter's groups: a factor of the bias, the bias, and for each measure its weight, its divisor, and whether 1 minus it is taken.
EVALCRAFTER: dict[str, tuple[float, float, dict[str, tuple[float, float, bool]]]] = {
    "quality": (5.0, 0.08707462696457707, {
        "VQA_A": (0.03004555, 100.0, False), "VQA_T": (0.02887537, 100.0, False), "IS": (-0.01382558, 100.0, False),
    }),
    "temporal": (5.0, -3.42274050899774, {
        "clip_temp_score": (2.92492244, 1.0, False), "warping_error": (0.45475678, 1.0, True),
        "face_consistency_score": (0.17561504, 1.0, False),
    }),
    "motion": (5.0, 0.1297562020899355, {
        "action_score": (-0.01641512, 1.0, False), "motion_ac_score": (-0.01340959, 1.0, False),
        "flow_score": (-0.10517075, 100.0, False),
    }),
    "alignment": (1.0, -0.30683181901390977, {
        "clip_score": (-0.0701577, 1.0, False), "blip_bleu": (0.02561424, 1.0, False), "sd_score": (0.05566109, 1.0, False),
        "detection_score": (0.0173974, 1.0, False), "color_score": (-0.020954, 1.0, False), "count_score": (0.03069167, 1.0, False),
        "ocr_score": (0.00372351, 1.0, True), "celebrity_id_score": (0.22686202, 1.0, True),
    }),
}


def vbench_total(values: Mapping[str, float]) -> dict[str, float]:
    """VBench's quality, semantic and total score, in 0..1, from its 16 dimensions.

    Args:
        values: by VBench's names, with blanks or underscores. Nothing is guessed of a value's scale.

    Raises:
        InputError: a dimension is missing, which the message names, or a value is outside 0..1.
    """
    given = {name.replace("_", " "): value for name, value in values.items()}
    _check("VBench", given, {**VBENCH_QUALITY, **VBENCH_SEMANTIC})
    for name in (*VBENCH_QUALITY, *VBENCH_SEMANTIC):
        if not 0 <= given[name] <= 1:
            raise InputError(f"{name} is {given[name]:g}; VBench's values are in 0..1, and a total of others is none.")
    groups = {}
    for group, table in (("quality", VBENCH_QUALITY), ("semantic", VBENCH_SEMANTIC)):
        scaled = {name: (given[name] - low) / (high - low) * weight for name, (low, high, weight) in table.items()}
        groups[group] = sum(scaled.values()) / sum(weight for _, _, weight in table.values())
    total = (QUALITY_WEIGHT * groups["quality"] + SEMANTIC_WEIGHT * groups["semantic"]) / (QUALITY_WEIGHT + SEMANTIC_WEIGHT)
    return {**groups, "total": total}


def evalcrafter_total(values: Mapping[str, float]) -> dict[str, float]:
    """EvalCrafter's four scores and their sum, from its 17 measures, in the units of its own tool.

    Raises:
        InputError: a measure is missing, which the message names.
    """
    _check("EvalCrafter", values, {name: None for _, _, table in EVALCRAFTER.values() for name in table})
    groups = {}
    for group, (factor, bias, table) in EVALCRAFTER.items():
        parts = ((1 - values[name] if turned else values[name] / divisor) * weight for name, (weight, divisor, turned) in table.items())
        groups[group] = 100 * (5 * sum(parts) + factor * bias)
    return {**groups, "total": sum(groups.values())}


def _check(suite: str, values: Mapping[str, float], wanted: Mapping[str, object]) -> None:
    missing = [name for name in wanted if name not in values]
    if missing:
        raise InputError(f"{suite}'s total needs all of its {len(wanted)} measures; missing are {', '.join(missing)}.")
