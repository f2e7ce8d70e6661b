"""`python -m tiny_world --output DIR`: trains the bundled model from nothing and writes it as one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from vc_core.training.trainer import Interrupted

from .settings import DEFAULT, load_settings
from .stages import STAGES, Run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tiny_world", description=__doc__)
    text = "folder for the states and the finished model; a stopped run resumes from there"
    parser.add_argument("--output", type=Path, required=True, help=text)
    parser.add_argument("--settings", type=Path, default=DEFAULT, help="YAML as in tiny_world/tiny_t2v.yaml")
    text = "run only this stage (can be repeated); default: all stages, in order"
    parser.add_argument("--stage", choices=list(STAGES), action="append", help=text)
    parser.add_argument("--threads", type=int, default=0, help="threads to compute with; default: torch's choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        run = Run(load_settings(arguments.settings), arguments.output)
        for name in arguments.stage or STAGES:
            STAGES[name](run)
    except (ValueError, Interrupted, FloatingPointError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
