"""What a folder of recordings holds, what it lacks, and what of it no test read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from harness import goldens
from harness.goldens import DYNAMICRAFTER, TEXT_TO_VIDEO, Recording, Tensors

CASE_INPUTS, CASE_OUTPUTS = {"x", "timesteps", "context"}, {"y"}
RUN_INPUTS, RUN_OUTPUTS = {"settings", "x_T", "noise"}, {"pred_x0", "latent", "video"}
IMAGE_TENSORS = {"photo", "image_features", "image_tokens", "null_image_tokens"}


def cases(recorded: Recording) -> list[str]:
    """The cases of the UNet whose inputs and output are recorded."""
    if not recorded.has("unet"):
        return []
    groups = recorded.read("unet").groups()
    return [case for case, names in groups.items() if names >= CASE_INPUTS | CASE_OUTPUTS]


def runs(recorded: Recording) -> list[str]:
    """The sampling runs that can be repeated and have a recorded result."""
    if not recorded.has("sampling"):
        return []
    if recorded.name not in TEXT_TO_VIDEO and not (recorded.has("encoders") and "photo" in recorded.read("encoders")):
        return []
    inputs = RUN_INPUTS | ({"concat"} if recorded.name in DYNAMICRAFTER else set())
    groups = recorded.read("sampling").groups()
    return [run for run, names in groups.items() if names >= inputs and names & RUN_OUTPUTS]


def expected(recorded: Recording) -> dict[str, set[str]]:
    """The tensors that the recording of a base model has, by file, in as many cases and runs as it has."""
    dynamicrafter = recorded.name in DYNAMICRAFTER
    names: dict[str, set[str]] = {"schedule": {"alphas_cumprod"}, "unet": set(), "encoders": {"tokens", "text", "z"}, "sampling": set()}
    if "scale_end" in recorded.schedule:
        names["schedule"].add("scale_arr")
    names["encoders"] |= {"empty"} if dynamicrafter else {"image", "vae_mean", "vae_logvar", "vae_decoded"}
    if recorded.name not in TEXT_TO_VIDEO:
        names["encoders"] |= IMAGE_TENSORS
    case_names = CASE_INPUTS | CASE_OUTPUTS | {"fs" if dynamicrafter else "fps"}
    run_names = RUN_INPUTS | RUN_OUTPUTS | ({"concat"} if dynamicrafter else set())
    for kind, group_names in (("unet", case_names), ("sampling", run_names)):
        groups = recorded.read(kind).groups() if recorded.has(kind) else {}
        names[kind] = {f"{group}.{name}" for group in groups for name in group_names}
    return names


def lacking(recorded: Recording) -> Iterator[str]:
    """Names the files and tensors that a base model's recording lacks."""
    yield from (f"{recorded.name}/{file}: without it nothing is compared" for file in recorded.missing_files)
    if recorded.missing_files:
        return
    for kind, names in expected(recorded).items():
        if not recorded.has(kind):
            yield f"{recorded.name}/{kind}.safetensors"
        elif absent := sorted(names - set(recorded.read(kind))):
            yield f"{recorded.name}/{kind}.safetensors: {', '.join(absent)}"


def used() -> list[str]:
    """What was read in this process: ``model/file`` for JSON files, ``model/file:name`` for tensors."""
    found = []
    for recorded in goldens.OPENED:
        name = recorded.folder.relative_to(goldens.FOLDER).as_posix()
        found += [f"{name}/{file}" for file in sorted(recorded.used)]
        found += [f"{name}/{kind}.safetensors:{tensor}" for kind, tensors in recorded.files.items() for tensor in sorted(tensors.used)]
    return found


def unread(folder: Path, read: Collection[str]) -> Iterator[str]:
    """Names the folders, files and tensors under a folder of recordings that are not among those that were read."""
    read_folders = {name.partition("/")[0] for name in read}
    for model in sorted(path for path in folder.iterdir() if path.is_dir()):
        if model.name not in read_folders:
            yield f"{model.name}/"
            continue
        for path in sorted(path for path in model.rglob("*") if path.is_file()):
            file = str(path.relative_to(folder))
            if file.removesuffix(".gz") in read:  # as a whole
                continue
            if path.suffix != ".safetensors":
                yield file
                continue
            names = list(Tensors(path))
            left = [name for name in names if f"{file}:{name}" not in read]
            if left:
                yield file if len(left) == len(names) else f"{file}: {', '.join(left)}"


def report(read: Collection[str]) -> list[str]:
    """What there is to say of a folder of recordings after the tests, for a person to read."""
    folder = goldens.FOLDER
    recorded = [goldens.recording(name) for name in goldens.MODELS if (folder / name).is_dir()]
    lines = [f"Compared with the recordings in {folder}, weights drawn with seed {goldens.SEED}."]
    lines += [f"Not read by any test: {name}" for name in unread(folder, set(read))]
    lines += [f"Not recorded: {name}" for each in recorded for name in lacking(each)]
    return lines
