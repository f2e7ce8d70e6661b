"""What measures compute with, made for those that are asked for: towers, optical flow, and models of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..config import ConfigLike
from ..errors import InputError
from .brisque import Brisque
from .flow import DisFlow, Flow, RaftFlow
from .optional import MissingLibrary
from .quality import Aesthetic, Musiq
from .score import Measure
from .text_rendering import Reader
from .towers import OPENAI, Tower, dino_tower, model_tower, openai_tower

#: Files that the user can name, and what they are.
WEIGHTS = {
    "clip-b32": "OpenAI's CLIP ViT-B/32 in open_clip's form",
    "clip-l14": "OpenAI's CLIP ViT-L/14 in open_clip's form",
    "dino": "DINO's ViT-B/16, for subject_consistency",
    "raft": "torchvision's raft_large, in place of OpenCV's DIS",
    "musiq": "MUSIQ trained on SPAQ, for imaging_quality (with pyiqa)",
    "aesthetic": "LAION's linear head for CLIP ViT-L/14, for aesthetic_quality (with clip-l14)",
}


@dataclass
class Tools:
    """The tools that there are, by kind, and why there are no others.

    A kind can have several, such as towers: then a measure has a value with each.
    """

    found: dict[str, list[Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, make: Callable[[], Any]) -> None:
        """Make a tool; a library that is missing is noted."""
        try:
            self.found.setdefault(kind, []).append(make())
        except MissingLibrary as error:
            self.missing[kind] = str(error)


def check_weights(weights: Mapping[str, Path]) -> None:
    """
    Raises:
        InputError: a name that is none of :data:`WEIGHTS`, or aesthetic without clip-l14.
    """
    for name in weights:
        if name not in WEIGHTS:
            known = "; ".join(f"{each}: {text}" for each, text in WEIGHTS.items())
            raise InputError(f"There are no weights named {name!r:.40}. There are: {known}.")
    if "aesthetic" in weights and "clip-l14" not in weights:
        raise InputError("The aesthetic head reads CLIP ViT-L/14: give its weights as well, clip-l14=FILE.")


def make_tools(
    measures: Sequence[Measure], model: str | Path | None = None, weights: Mapping[str, Path] | None = None,
    device: torch.device | str = "cpu", config: ConfigLike | None = None,
) -> Tools:
    """The tools that some measures need.

    Args:
        model: file of an image-to-video model, or a bundled one, whose two towers are taken.
        weights: files by the names of :data:`WEIGHTS`. Nothing is downloaded.

    Raises:
        InputError: as :func:`check_weights`.
        CheckpointError: a file can't be read, or holds something else.
    """
    weights = dict(weights or {})
    check_weights(weights)
    wanted = {each.tool for each in measures}
    tools = Tools()
    if wanted & {"tower", "aesthetic"}:
        _add_towers(tools, model, weights, device, config)
    if "dino" in wanted:
        tools.missing["dino"] = "needs DINO's weights: --weights dino=FILE"
        if "dino" in weights:
            tools.add("dino", lambda: dino_tower(weights["dino"], device))
    if "flow" in wanted:
        tools.add("flow", lambda: flow_of(weights.get("raft"), device))
    if "musiq" in wanted:
        tools.missing["musiq"] = "needs MUSIQ's weights: --weights musiq=FILE"
        if "musiq" in weights:
            tools.add("musiq", lambda: Musiq(weights["musiq"], device))
    if "aesthetic" in wanted:
        tools.missing["aesthetic"] = "needs the weights of the head and of CLIP: --weights aesthetic=FILE --weights clip-l14=FILE"
        if "aesthetic" in weights:
            tools.add("aesthetic", lambda: Aesthetic(_tower(tools, "clip-l14"), weights["aesthetic"]))
    for kind, make in (("brisque", Brisque), ("reader", Reader)):
        if kind in wanted:
            tools.add(kind, make)
    return tools


def flow_of(raft: Path | None = None, device: torch.device | str = "cpu") -> Flow:
    """RAFT where there are weights, else DIS.

    Raises:
        MissingLibrary: OpenCV is not installed.
    """
    return RaftFlow.load(raft, device) if raft is not None else DisFlow()


def _tower(tools: Tools, name: str) -> Tower:
    return next(each for each in tools.found["tower"] if each.tag == OPENAI[name][1])


def _add_towers(
    tools: Tools, model: str | Path | None, weights: Mapping[str, Path], device: torch.device | str, config: ConfigLike | None
) -> None:
    tools.missing["tower"] = "needs an image tower: --model with an image-to-video model, or --weights clip-b32=FILE"
    if model is not None:
        tower = model_tower(model, device, config)
        if tower is None:
            tools.missing["tower"] = "needs an image tower, which a text-to-video model's file lacks: --model with an image-to-video model"
        else:
            tools.found["tower"] = [tower]
    for name in OPENAI:
        if name in weights:
            tools.found.setdefault("tower", []).append(openai_tower(name, weights[name], device))
