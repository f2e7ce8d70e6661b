"""Getting a published model's file from the Hugging Face hub: resumed where it was stopped, and checked.

This is a convenience: whatever it does can be done with a browser, and nothing else here reaches the network.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

LIST = Path(__file__).parent / "published.yaml"
HUB = "https://huggingface.co"
PIECE = 1 << 24  # bytes hashed at once


class FetchError(ValueError):
    """A file that can't be had, and what to do instead."""


@dataclass(frozen=True)
class PublishedFile:
    """A model's file on the hub, and where it goes."""

    name: str  # of its configuration
    title: str
    repository: str
    file: str  # in the repository
    save_as: str  # in the folder
    gigabytes: float
    licence: str = "none stated"
    sha256: str = ""  # where it is known beforehand
    folder: str = "checkpoints"  # of ComfyUI's models/

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"{HUB}/{self.repository}/resolve/main/{self.file}"


def published_files() -> dict[str, PublishedFile]:
    """Every published model's file, by the name of its configuration."""
    entries: Any = OmegaConf.to_container(OmegaConf.load(LIST))
    listed = [PublishedFile(**entry) for entry in entries]
    return {file.name: file for file in listed}


def checkpoints_folder() -> Path:
    """ComfyUI's checkpoints, where this package lies in its custom nodes; else the folder one is in."""
    custom_nodes = Path(__file__).absolute().parents[2]
    checkpoints = custom_nodes.parent / "models" / "checkpoints"
    return checkpoints if custom_nodes.name == "custom_nodes" and checkpoints.is_dir() else Path()


def fetch(name: str, folder: Path, endpoint: str | None = None, say: Callable[[str], None] = print) -> Path:
    """Get a model's file into a folder, unless it is there already.

    What was fetched before a break is kept in ``folder`` and gone on with. The file takes its place only when its SHA-256 is right.

    Args:
        name: of a published model, as in :func:`published_files`.
        endpoint: another hub than huggingface_hub's own.
        say: is told what is being done.

    Raises:
        FetchError: no such model or folder, huggingface_hub isn't installed, the hub can't be reached, or what came is damaged.
    """
    files = published_files()
    if name not in files:
        raise FetchError(f"There is no published model {name!r}. There are {', '.join(files)}.")
    if not folder.is_dir():
        raise FetchError(f"There is no folder {folder}: make it first, or name another with --folder.")
    file = files[name]
    target = folder / file.save_as
    if target.exists():
        say(f"{target} is there already.")
        return target
    by_hand = f"Or download {file.url} with a browser and save it as {target}."
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
    except ImportError as error:
        raise FetchError(f"Fetching needs huggingface_hub (pip install huggingface_hub). {by_hand}") from error
    part = target.with_suffix(".part")
    say(f"Fetching {file.title} ({file.gigabytes:g} GB) from {file.repository}; its licence: {file.licence}.")
    try:
        # The library's own hf_hub_download forgets, in newer releases, what came before a break.
        url = hf_hub_url(file.repository, file.file, endpoint=endpoint)
        there = get_hf_file_metadata(url)
        with part.open("ab") as sink:
            http_get(there.location or url, sink, resume_size=part.stat().st_size, expected_size=there.size)
    except Exception as error:  # whatever the library and the one under it raise, which differs from release to release
        raise FetchError(
            f"{file.repository} could not be fetched: {type(error).__name__}: {error} What has come is in {part}; the same command goes on "
            f"from there. {by_hand}"
        ) from error
    expected = file.sha256 or _told_sha256(there.etag)
    if expected:
        found = sha256_of(part)
        if found != expected:
            part.unlink()
            raise FetchError(f"What came of {file.url} is damaged: its SHA-256 is {found}, not {expected}. It was removed; fetch it again.")
    part.replace(target)
    say(f"{target}: {'its SHA-256 is right' if expected else 'there is no SHA-256 to hold it to'}.")
    return target


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _told_sha256(etag: str | None) -> str:
    """The hub's mark of a large file is its SHA-256; that of a small one is something else."""
    return etag if etag and re.fullmatch("[0-9a-f]{64}", etag) else ""
