"""Makes ``tests/data/golden`` from the folder of all recordings: `python -m dev.golden_subset FOLDER [MODEL ...]`.

Of each model's folder it takes the tables and the tensors that belong to no case, one case of every single pass and the shortest
sampling run, all as recorded, and the JSON files, manifests compressed; of the folder itself the JSON files beside the models. Models that
``tests/data/golden`` already has are written again.
"""

from __future__ import annotations

import argparse
import gzip
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from harness.goldens import DEFAULT_FOLDER, Tensors, packed

#: Bytes that all subsets may have together.
MOST = 13_000_000
#: Files of tables and of small cases, which are taken whole though the names in them start with numbers.
TABLES = ("schedule", "buffers", "step", "initial_noise", "layers")
#: What is not taken, for its size or since its numbers are drawn: folders, files and tensors (``folder/file:tensor``) that are compared
#: by `make test-golden` only.
LEFT_OUT = re.compile(
    r"t2v_turbo_v1/unet_lora\.pt|(make_your_video|stylecrafter)/published\.json|make_your_video/layers\.\w+:4\."
    r"|t2v_1024_v1/(encoders|sampling)\.|t2v_512_v1/encoders\."
    r"|(motionctrl_vc|camctrl_dc/\w+)/published\.json|motionctrl_vc/(omcm|unet)\.|motionctrl_vc/trajectories\.\w+:(?!5_points)"
    r"|camctrl_dc/(motionctrl|cameractrl)$|camctrl_dc/cami2v/sampling|camctrl_dc/common\.\w+:run|freetraj/attention|freetraj/.*\.video"
    r"|(motionctrl_vc|camctrl_dc/\w+)/buffers\.\w+:(?!alphas_cumprod$|scale_arr|pose_encoder)"
)


def subset(tensors: Tensors, kind: str) -> dict[str, Tensor]:
    """The tensors of a file to take."""
    groups = set() if kind in TABLES else set(tensors.groups())
    left_out = groups - {shortest(tensors, groups)} if groups else groups
    return {name: tensors[name] for name in tensors if name.partition(".")[0] not in left_out}


def shortest(tensors: Mapping[str, Tensor], groups: Collection[str]) -> str:
    """The first case, or the run with the fewest numbers of noise."""
    noise = {group: tensors[f"{group}.noise"].numel() for group in groups if f"{group}.noise" in tensors}
    return min(noise, key=lambda group: (noise[group], group)) if noise else min(groups, key=int)


def copy(source: Path, target: Path, name: str = "") -> None:
    """The subset of one model's folder, and of the folders in it. ``name`` is the folder's in :data:`LEFT_OUT`."""
    name = name or source.name
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        inner = f"{name}/{path.name}"
        if LEFT_OUT.match(inner):
            continue
        if path.is_dir():
            copy(path, target / path.name, inner)
        elif path.suffix == ".safetensors":
            taken = subset(Tensors(path), path.stem)
            save_file({key: tensor for key, tensor in taken.items() if not LEFT_OUT.match(f"{inner}:{key}")}, target / path.name)
        elif path.name == "manifest.json":
            packed(target / path.name).write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        else:
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
