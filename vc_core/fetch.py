"""Downloading a published model's file from the Hugging Face hub, and checking it.

This is a convenience: a browser can do the same, and nothing else in vc_core uses the network.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from .errors import VideoCrafterError
from .files import replacing

LIST = Path(__file__).parent / "published.yaml"
HUB = "https://huggingface.co"
CHUNK_BYTES = 1 << 24  # hashed at a time


class FetchError(VideoCrafterError):
    """A file that can't be downloaded; the message says how to get it by hand."""


@dataclass(frozen=True)
class PublishedFile:
    """A model's file on the hub."""

    #: The name of the model's configuration.
    name: str
    title: str
    repository: str
    #: The file's name in the repository, and the name to save it under.
    file: str
    save_as: str
    gigabytes: float
    licence: str = "none stated"
    #: Empty if unknown; the hub's is used then.
    sha256: str = ""
    #: The folder in ComfyUI's ``models``.
    folder: str = "checkpoints"

    @property
    def url(self) -> str:
        """The address for a browser."""
        return f"{HUB}/{self.repository}/resolve/main/{self.file}"


def published_files() -> dict[str, PublishedFile]:
    """The file of every published model, by the name of its configuration."""
    entries: Any = OmegaConf.to_container(OmegaConf.load(LIST))
    listed = [PublishedFile(**entry) for entry in entries]
    return {file.name: file for file in listed}


def checkpoints_folder() -> Path:
    """ComfyUI's checkpoints folder if this package is in its custom nodes, else the current folder."""
    custom_nodes = Path(__file__).absolute().parents[2]
    checkpoints = custom_nodes.parent / "models" / "checkpoints"
    return checkpoints if custom_nodes.name == "custom_nodes" and checkpoints.is_dir() else Path()


def fetch(name: str, folder: Path, endpoint: str | None = None, report: Callable[[str], None] = print) -> Path:
    """Download a model's file into a folder, unless it is there already.

    Whether a broken download is resumed at once, by the next call or not at all depends on huggingface_hub's release; recent ones
    resume it at once. The file gets its name only when its SHA-256 is right.

    Args:
        name: a published model, as in :func:`published_files`.
        folder: an existing folder.
        endpoint: the address of another hub than huggingface_hub's default.
        report: called with each message about the progress.

    Returns:
        The file's path.

    Raises:
        FetchError: no such model or folder, huggingface_hub isn't installed, the hub can't be reached, or the download is damaged.
        FileWriteError: the file can't be put in its place.
    """
    files = published_files()
    if name not in files:
        raise FetchError(f"There is no published model {name!r}; possible are {', '.join(files)}.")
    if not folder.is_dir():
        raise FetchError(f"There is no folder {folder}: make it first, or name another with --folder.")
    file = files[name]
    target = folder / file.save_as
    if target.exists():
        report(f"{target} is there already.")
        return target
    by_hand = f"Or download {file.url} with a browser and save it as {target}."
    report(f"Fetching {file.title} ({file.gigabytes:g} GB) from {file.repository}; its licence: {file.licence}.")
    unfinished = folder / f".{file.save_as}.download"
    downloaded, sha256 = _download(file, unfinished, endpoint, by_hand)
    expected = file.sha256 or sha256
    found = sha256_of(downloaded) if expected else ""
    if found != expected:
        shutil.rmtree(unfinished)
        raise FetchError(f"The download of {file.url} is damaged: its SHA-256 is {found}, not {expected}. It was removed; fetch it again.")
    with replacing(target) as temporary:
        downloaded.replace(temporary)
    shutil.rmtree(unfinished)
    report(f"{target}: {'its SHA-256 is right' if expected else 'no SHA-256 is published for it, so it was not checked'}.")
    return target


def _download(file: PublishedFile, folder: Path, endpoint: str | None, by_hand: str) -> tuple[Path, str]:
    """Download a file into a folder of its own.

    Returns:
        Its path, and its SHA-256 as the hub has it; empty where the hub has none.
    """
    try:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    except ImportError as error:
        raise FetchError(f"Fetching needs huggingface_hub (pip install huggingface_hub). {by_hand}") from error
    # Xet does not resume a broken download. The library reads its environment variable HF_HUB_DISABLE_XET when it is imported, which
    # open_clip has done by now.
    constants.HF_HUB_DISABLE_XET = True
    try:
        etag = get_hf_file_metadata(hf_hub_url(file.repository, file.file, endpoint=endpoint)).etag
        path = hf_hub_download(file.repository, file.file, local_dir=folder, endpoint=endpoint)
    except Exception as error:  # the library's classes of errors differ from release to release
        reason = f"{type(error).__name__}: {error}"
        raise FetchError(f"{file.repository} could not be fetched: {reason} Run the same command again. {by_hand}") from error
    # The ETag of a large file is its SHA-256; that of a small one is something else.
    return Path(path), etag if etag and re.fullmatch("[0-9a-f]{64}", etag) else ""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
