"""Where a file has its tensors: below which keys of a pickle, and under which prefixes of training programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeGuard, TypeVar

from .errors import CheckpointError, short_repr
from .globals import Global, Placeholder
from .records import TensorRecord, Unreadable

T = TypeVar("T")
#: The keys below which trainers save a model, the first with tensors being taken: always, and where nothing else is a model.
_FIRST_KEYS = ("state_dict", "module")
_OTHER_KEYS = ("model", "model_state_dict", "unet", "ema", "model_ema", "ema_state_dict", "generator", "network", "params", "weights")
_DEEPEST = 4
#: Parts of names that wrappers around a module add (DistributedDataParallel, compile, DeepSpeed, FSDP, checkpointing): anywhere in a
#: name, and only at its start.
_WRAPPERS = frozenset({"_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_OUTER_WRAPPERS = ("module.", "state_dict.")
#: A file's tensors can repeat each other, as tied weights and averages do, but not without measure.
_MOST_CLAIMED, _ALLOWANCE = 4, 1 << 26

Records = dict[str, TensorRecord | Unreadable]


def without_wrappers(tensors: Mapping[str, T]) -> dict[str, T]:
    """The tensors without what training wrappers added to their names; unchanged where that would give two the same name."""
    names = {name: _without_inner(name) for name in tensors}
    outer = True
    while outer and names:
        outer = False
        for prefix in _OUTER_WRAPPERS:
            if all(name.startswith(prefix) for name in names.values()):
                names, outer = {given: name[len(prefix) :] for given, name in names.items()}, True
    if len(set(names.values())) < len(names):
        return dict(tensors)
    return {names[given]: tensor for given, tensor in tensors.items()}


def _without_inner(name: str) -> str:
    if not any(wrapper in name for wrapper in _WRAPPERS):
        return name
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def is_tensor_list(content: object) -> TypeGuard[list[TensorRecord | Unreadable]]:
    """Whether the object that a pickle describes is a list of tensors, which have no names."""
    return isinstance(content, list) and bool(content) and all(isinstance(each, (TensorRecord, Unreadable)) for each in content)


def tensors_of(content: object) -> Records:
    """The tensors with names in the object that a pickle describes.

    Those below "state_dict" come first, then those below "module". Of the top level itself and the other usual keys, the one with
    most tensors is taken, the first of several: a model rather than its averages (EMA).

    Raises:
        CheckpointError: there are none.
    """
    if is_tensor_list(content):
        raise CheckpointError(
            f"it holds a list of {len(content)} tensors without names, as T2V-Turbo v1's unet_lora.pt does: give VideoCrafter2's "
            "checkpoint with it (base= in Python, --base on the command line, the loader's base in ComfyUI)"
        )
    if not isinstance(content, dict):
        what = {TensorRecord: "a single tensor without a name", list: "a list", tuple: "a list"}.get(type(content))
        if isinstance(content, (Global, Placeholder)):
            what = f"a whole Python object ({content.origin if isinstance(content, Placeholder) else content})"
        raise CheckpointError(
            f"it holds {what or type(content).__name__}, not tensors with names; save the model's state_dict() instead"
        )
    found = _search(content, 0) or _by_module(content)
    if not found:
        raise CheckpointError(f"there are no tensors where a checkpoint has them; its top level has {_listing(content)}")
    return found


def _by_module(content: dict[object, object]) -> Records:
    """The tensors of a dictionary of state dicts by the path of their module, as StyleCrafter's temporal file has them."""
    level = content.get("state_dict", content)
    if not isinstance(level, dict) or not all(isinstance(path, str) and isinstance(inner, dict) for path, inner in level.items()):
        return {}
    return {f"{path}.{name}": tensor for path, inner in level.items() for name, tensor in _records(inner).items()}


def keys_of(content: object) -> list[str]:
    """The keys at the top level of the object that a pickle describes, which tell the program that wrote it."""
    return [key for key in content if isinstance(key, str)] if isinstance(content, dict) else []


def _search(level: object, depth: int) -> Records:
    if not isinstance(level, dict) or depth > _DEEPEST:
        return {}
    for key in _FIRST_KEYS:
        found = _search(level.get(key), depth + 1)
        if found:
            return found
    best = _records(level)
    for key in _OTHER_KEYS:
        found = _search(level.get(key), depth + 1)
        if len(found) > len(best):
            best = found
    return best


def _records(level: dict[object, object]) -> Records:
    """The tensors directly in a dictionary."""
    found: Records = {}
    for name, value in level.items():
        if not isinstance(name, str):
            continue
        if isinstance(value, (TensorRecord, Unreadable)):
            found[name] = value
        elif isinstance(value, Placeholder) and value.is_tensor:
            found[name] = Unreadable(f"is sparse or quantized ({value.origin}). Save it from torch as a plain tensor")
    return found


def _listing(level: dict[object, object]) -> str:
    parts = []
    for key, value in list(level.items())[:8]:
        inside = len(_records(value)) if isinstance(value, dict) else 0
        parts.append(f"{short_repr(key, 40)}" + (f" (with {inside} tensors)" if inside else ""))
    return ", ".join(parts) or "nothing"


def check_claims(records: Iterable[TensorRecord | Unreadable], size: int) -> None:
    """Refuse tensors that together claim far more numbers than a file of ``size`` bytes holds, repeated out of a few.

    Raises:
        CheckpointError: they do.
    """
    claimed = sum(
        max(each.numel, each.span) * each.storage.dtype.itemsize for each in records if isinstance(each, TensorRecord)
    )
    if claimed > _MOST_CLAIMED * size + _ALLOWANCE:
        raise CheckpointError(f"refused: its tensors claim {claimed} bytes, repeated out of the {size} that the file has")
