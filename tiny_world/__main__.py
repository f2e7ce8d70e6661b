"""`python -m tiny_world --output DIR`: trains the bundled model from nothing and writes it as one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from vc_core.console import accept_all_text, finish
from vc_core.errors import InputError
from vc_core.training.state import make_folder

from .settings import DEFAULT, load_settings
from .stages import STAGES, Run

MOST_THREADS = 1024


def main() -> int:
    accept_all_text()
    parser = argparse.ArgumentParser(prog="python -m tiny_world", description=__doc__)
    text = "folder for the states and the finished model; a stopped run resumes from there"
    parser.add_argument("--output", type=Path, required=True, help=text)
    parser.add_argument("--settings", type=Path, default=DEFAULT, help="YAML as in tiny_world/tiny_t2v.yaml")
    text = "run only this stage (can be repeated); default: all stages, in order"
    parser.add_argument("--stage", choices=list(STAGES), action="append", help=text)
    parser.add_argument("--threads", type=int, default=0, help="threads to compute with; 0: torch's choice")
    arguments = parser.parse_args()
    return finish(lambda: train(arguments))


def train(arguments: argparse.Namespace) -> None:
    """Run the stages that are asked for. The folder is checked first, then the settings."""
    if not 0 <= arguments.threads <= MOST_THREADS:
        raise InputError(f"--threads is {arguments.threads}; it can be 0 to {MOST_THREADS}.")
    make_folder(arguments.output)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    run = Run(load_settings(arguments.settings), arguments.output)
    for name in arguments.stage or STAGES:
        STAGES[name](run)


if __name__ == "__main__":
    sys.exit(main())
