"""Writes models as the package holds them, small: `python -m dev.bundle MODEL.safetensors ... --target FOLDER`.

All models of the folder are given at once, so that what they have in common is found; with `--base NAME`, one that was made of a
bundled model is added to the folder, as the tensors that differ. See `vc_core/family/bundled.py` for the form.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vc_core.checkpoint import Checkpoint, open_checkpoint
from vc_core.errors import InputError
from vc_core.family.bundled import BASE_KEY, ROWS, SHAPE, SHARED_KEY, VALUES, bundled_models, with_shared_parts
from vc_core.files import replacing

#: A table is stored by rows where at most this share of them is not zero.
MOST_ROWS = 0.1


def bundle(models: Sequence[Path], target: Path) -> None:
    """Write models into a folder, and the parts that several of them have into its folder ``shared``.

    A part is all tensors whose names begin alike, up to the first dot. The files in the folder are replaced, others stay. Zeros in
    tables that are stored by rows lose their sign; all else is unchanged to the bit.

    Args:
        models: complete safetensors files, by whose names the models are known.
    """
    checkpoints = {path.name: open_checkpoint(path) for path in models}
    parts = {name: _parts(checkpoint) for name, checkpoint in checkpoints.items()}
    digests = {name: {part: _digest(tensors) for part, tensors in own.items()} for name, own in parts.items()}
    counts: dict[str, int] = {}
    for own in digests.values():
        for digest in own.values():
            counts[digest] = counts.get(digest, 0) + 1
    (target / "shared").mkdir(parents=True, exist_ok=True)
    for name, own in parts.items():
        shared = {part: f"{part}_{digests[name][part][:8]}.safetensors" for part in own if "." in next(iter(own[part]))}
        shared = {part: file for part, file in shared.items() if counts[digests[name][part]] > 1}
        for part, file in shared.items():
            _write(target / "shared" / file, own[part], {SHARED_KEY: ""})
        rest = {key: tensor for part, tensors in own.items() if part not in shared for key, tensor in tensors.items()}
        _write(target / name, rest, checkpoints[name].metadata | {SHARED_KEY: " ".join(sorted(shared.values()))})


def bundle_changes(model: Path, base: str, target: Path) -> None:
    """Write a model into a folder as the tensors in which it differs from a bundled model, whose other tensors it has.

    Args:
        base: the bundled model's name.

    Raises:
        InputError: there is no such bundled model, or it has tensors that the model lacks.
    """
    if base not in bundled_models():
        raise InputError(f"There is no bundled model {base}; there are {', '.join(bundled_models())}.")
    checkpoint, below = open_checkpoint(model), with_shared_parts(open_checkpoint(bundled_models()[base]))
    if lacking := sorted(set(below) - set(checkpoint)):
        raise InputError(f"{model} lacks tensors of {base}: {', '.join(lacking[:3])}. It can't be stored as its changes.")
    tensors = {name: checkpoint.sound_tensor(name) for name in checkpoint}
    changed = {name: tensor for name, tensor in tensors.items() if name not in below or not torch.equal(tensor, below.sound_tensor(name))}
    _write(target / model.name, changed, checkpoint.metadata | {SHARED_KEY: "", BASE_KEY: bundled_models()[base].name})


def _parts(checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name in checkpoint:
        parts.setdefault(name.split(".")[0], {})[name] = checkpoint.sound_tensor(name)
    return parts


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of tensors as they are stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_stored(tensors).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _stored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What stands in a file for tensors: tables that are nearly empty are stored by rows."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        rows = tensor.flatten(1).any(1).nonzero().flatten() if tensor.ndim == 2 else torch.arange(len(tensor) if tensor.ndim else 1)
        if tensor.ndim == 2 and len(rows) <= MOST_ROWS * len(tensor):
            stored |= {name + SHAPE: torch.tensor(tensor.shape), name + ROWS: rows, name + VALUES: tensor[rows]}
        else:
            stored[name] = tensor
    return stored


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with replacing(path) as temporary:
        stored = _stored(tensors)
        save_file({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in stored.items()}, temporary, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.bundle", description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, help="all models of the folder, as complete .safetensors files")
    parser.add_argument("--target", type=Path, required=True, help="the folder, vc_core/bundled")
    parser.add_argument("--base", help="the bundled model that each of the models was made of; only what differs is written")
    arguments = parser.parse_args()
    if arguments.base is None:
        bundle(arguments.models, arguments.target)
    for model in arguments.models if arguments.base else ():
        bundle_changes(model, arguments.base, arguments.target)


if __name__ == "__main__":
    main()
