"""Makes ``tests/data/golden`` from the folder of all recordings: `python -m dev.golden_subset FOLDER [MODEL ...]`.

Of each model's folder it takes the tables and the tensors that belong to no case, one case of every single pass and the shortest
sampling run, all as recorded, and the JSON files; of the folder itself the JSON files beside the models. Models that
``tests/data/golden`` already has are written again.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from harness.goldens import DEFAULT_FOLDER, Tensors

#: Bytes that all subsets may have together.
MOST = 13_000_000
#: Files of tables and of small cases, which are taken whole though the names in them start with numbers.
TABLES = ("schedule", "buffers", "step", "initial_noise", "layers")
#: Files that are not taken, by folder: their numbers are drawn, or they are lists of names as long as the rest.
NOT_TAKEN = {"t2v_turbo_v1": ("unet_lora.pt",), "make_your_video": ("published.json",), "stylecrafter": ("published.json",)}


def subset(tensors: Tensors, kind: str) -> dict[str, Tensor]:
    """The tensors of a file to take."""
    groups = set() if kind in TABLES else set(tensors.groups())
    left_out = groups - {shortest(tensors, groups)} if groups else groups
    return {name: tensors[name] for name in tensors if name.partition(".")[0] not in left_out}


def shortest(tensors: Mapping[str, Tensor], groups: Collection[str]) -> str:
    """The first case, or the run with the fewest numbers of noise."""
    noise = {group: tensors[f"{group}.noise"].numel() for group in groups if f"{group}.noise" in tensors}
    return min(noise, key=lambda group: (noise[group], group)) if noise else min(groups, key=int)


def copy(source: Path, target: Path) -> None:
    """The subset of one model's folder, and of the folders in it."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            copy(path, target / path.name)
        elif path.suffix == ".safetensors":
            save_file(subset(Tensors(path), path.stem), target / path.name)
        elif path.name not in NOT_TAKEN.get(source.name, ()):
            shutil.copyfile(path, target / path.name)


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Write the subset and print its sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="holds one folder a model")
    parser.add_argument("models", nargs="*", help="folders to take beside those that are there already")
    arguments = parser.parse_args()
    present = {path.name for path in DEFAULT_FOLDER.iterdir() if path.is_dir()}
    for name in sorted(present | set(arguments.models)):
        shutil.rmtree(DEFAULT_FOLDER / name, ignore_errors=True)
        copy(arguments.folder / name, DEFAULT_FOLDER / name)
        print(f"{size(DEFAULT_FOLDER / name):>12,} {name}")
    for path in arguments.folder.glob("*.json"):
        shutil.copyfile(path, DEFAULT_FOLDER / path.name)
    total = size(DEFAULT_FOLDER)
    print(f"{total:>12,} of at most {MOST:,} bytes")
    if total > MOST:
        raise SystemExit("That is too much: take fewer models, or cut a case out of the largest files.")


if __name__ == "__main__":
    main()
