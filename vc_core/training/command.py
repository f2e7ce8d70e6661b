"""The command ``train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..console import say
from .finetune import Run
from .options import PRESETS, read_options

#: The options of the command line that are settings of a run, by the settings' names.
FLAGS = {
    "model": "model", "data": "data", "output": "output", "preset": "preset", "name": "name", "trigger": "clips.trigger",
    "updates": "trainer.updates", "learning_rate": "trainer.learning_rate", "batch": "trainer.batch", "rank": "lora.rank",
    "frames": "clips.frames", "height": "clips.height", "width": "clips.width", "device": "device", "seed": "trainer.seed",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``train``, whose defaults are the settings'."""
    parser.add_argument("settings", type=Path, nargs="?", help="YAML file of settings; see docs/training.md")
    text: dict[str, str] = {
        "model": "the model to start from: a file, or a bundled model",
        "data": "a folder of clips with captions in .txt files, a .csv (path, caption), or a WebDataset .tar",
        "output": "folder for the state, the curves and the result; a stopped run resumes from there",
        "preset": "what is trained: " + ", ".join(PRESETS),
        "name": "name of the result's file",
        "trigger": "words that every caption starts with",
        "updates": "how many updates are made",
        "learning_rate": "the learning rate",
        "batch": "clips of a pass",
        "rank": "rank of the LoRA",
        "frames": "frames of a clip (default: the model's own)",
        "height": "height in pixels (default: the model's own)",
        "width": "width in pixels (default: the model's own)",
        "device": "torch device",
        "seed": "seed of all that is random",
    }
    for name, help_text in text.items():
        parser.add_argument("--" + name.replace("_", "-"), help=help_text, default=argparse.SUPPRESS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting, such as lora.dora=true")


def train(arguments: argparse.Namespace) -> None:
    """Train a model, or go on with a run that was stopped."""
    given: dict[str, Any] = {setting: getattr(arguments, flag) for flag, setting in FLAGS.items() if hasattr(arguments, flag)}
    changes = [f"{name}={_quoted(value)}" for name, value in given.items()]
    Run(read_options(arguments.settings, [*changes, *arguments.set]), say).train()


def _quoted(value: str) -> str:
    """A text that YAML would read as something else, such as a list or nothing, in quotes."""
    plain = value.replace(".", "", 1).replace("-", "").replace("e", "").isalnum()
    return value if plain else "'" + value.replace("'", "''") + "'"
