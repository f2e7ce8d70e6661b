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

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from .errors import VideoCrafterError
from .files import check_output, replacing

LIST = Path(__file__).parent / "published.yaml"
HUB = "https://huggingface.co"
CHUNK_BYTES = 1 << 24  # hashed at a time
#: The ending of the library's unfinished files, and the name of our own lock beside them.
PART, LOCK = ".incomplete", "fetch.lock"


class FetchError(VideoCrafterError):
    """A file that can't be downloaded; the message says how to get it by hand."""


class DamagedError(FetchError):
    """A download of the wrong size or content."""


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
    #: 0 if unknown.
    gigabytes: float = 0.0
    licence: str = "none stated"
    #: Empty if unknown; the hub's is used then.
    sha256: str = ""
    #: The folder in ComfyUI's ``models``.
    folder: str = "checkpoints"
    #: The name of the model whose file is needed beside this one; empty for a complete model.
    base: str = ""

    @property
    def size(self) -> str:
        """The size in words."""
        return f"{self.gigabytes:g} GB" if self.gigabytes else "size not stated"

    def by_hand(self, target: Path) -> str:
        """How to get the file without this command."""
        return f"Or download {self.url} with a browser and save it as {target}."

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
    resume it at once. What can't be continued is thrown away and fetched anew. The file gets its name only when its size and its SHA-256
    are right: the recorded one, else the hub's. If there is neither, a page, an empty file or gzip is refused all the same.

    Args:
        name: a published model, as in :func:`published_files`.
        folder: an existing folder.
        endpoint: the address of another hub than huggingface_hub's default.
        report: called with each message about the progress.

    Returns:
        The file's path.

    Raises:
        FetchError: no such model or folder, huggingface_hub isn't installed, the hub can't be reached, or the download is damaged.
        FileWriteError: the file can't be written there.
    """
    files = published_files()
    if name not in files:
        raise FetchError(f"There is no published model {name!r}; possible are {', '.join(files)}.")
    if not folder.is_dir():
        raise FetchError(f"There is no folder {folder}: make it first, or name another with --folder.")
    file = files[name]
    target = folder / file.save_as
    if target.is_file() and target.stat().st_size:
        report(f"{target} is there already.")
        return target
    check_output(target)
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise FetchError(f"Fetching needs huggingface_hub (pip install huggingface_hub). {file.by_hand(target)}") from error
    report(f"Fetching {file.title} ({file.size}) from {file.repository}; its licence: {file.licence}.")
    unfinished = folder / f".{file.save_as}.download"
    try:
        checked = _complete(file, unfinished, target, endpoint)
    except OSError as error:
        raise FetchError(f"{target}: could not be written ({error.strerror or error}). Check the folder and its free space.") from error
    report(f"{target}: {checked}.")
    if file.base:
        report(f"It is used with the file of {files[file.base].title} as its base: python -m vc_core fetch {file.base}")
    return target


def _complete(file: PublishedFile, unfinished: Path, target: Path, endpoint: str | None) -> str:
    """Download a file into a folder for what is unfinished, check it and put it in its place; returns what was checked."""
    if unfinished.is_symlink() or not unfinished.is_dir():
        unfinished.unlink(missing_ok=True)
    elif any(_is_odd(path, file) for path in unfinished.rglob("*")):
        shutil.rmtree(unfinished)
    unfinished.mkdir(exist_ok=True)
    try:
        with FileLock(unfinished / LOCK, timeout=0):
            downloaded, checked = _checked_download(file, unfinished, target, endpoint)
            with replacing(target) as temporary:
                downloaded.replace(temporary)
    except Timeout as error:
        raise FetchError(f"{target} is being fetched by another process already: wait for it.") from error
    except DamagedError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    shutil.rmtree(unfinished, ignore_errors=True)
    return checked


def _checked_download(file: PublishedFile, unfinished: Path, target: Path, endpoint: str | None) -> tuple[Path, str]:
    """The path of a sound download, and what was checked of it.

    A download that an earlier call began is continued; if the whole is damaged then, it is thrown away and fetched anew.
    """
    begun = any(path.suffix == PART or path.name == file.file for path in unfinished.rglob("*"))
    for continued in (begun, False):
        downloaded, hub = _download(file, unfinished, target, endpoint)
        problem, checked = _problem(file, downloaded, hub)
        if not problem:
            return downloaded, checked
        _empty(unfinished)
        if not continued:
            break
    raise DamagedError(f"The download of {file.url} is damaged: {problem}. It was removed; fetch it again. {file.by_hand(target)}")


@dataclass(frozen=True)
class HubFile:
    """What the hub says of a file: its tag and its size, None where it says nothing."""

    etag: str | None
    size: int | None

    @property
    def sha256(self) -> str:
        """The SHA-256, which is the tag of a large file; empty for another."""
        return self.etag if self.etag and re.fullmatch("[0-9a-f]{64}", self.etag) else ""


def _problem(file: PublishedFile, path: Path, hub: HubFile) -> tuple[str, str]:
    """What is wrong with a downloaded file, empty if nothing is; and what was checked."""
    size, expected = path.stat().st_size, file.sha256 or hub.sha256
    if hub.size is not None and size != hub.size:
        return f"it has {size} bytes, not {hub.size}", ""
    if expected:
        found = sha256_of(path)
        return "" if found == expected else f"its SHA-256 is {found}, not {expected}", "its size and SHA-256 are right"
    with path.open("rb") as opened:
        head = opened.read(512).lstrip()
    if not head or head.startswith((b"<", b"{", b"\x1f\x8b")):
        return "it is empty, a page or text of a server, or compressed", ""
    right = "its size is right; " if hub.size is not None else ""
    return "", f"{right}no SHA-256 is published for it, so its content was not checked"


def _empty(unfinished: Path) -> None:
    """Throw away all but the lock."""
    for path in unfinished.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _is_odd(path: Path, file: PublishedFile) -> bool:
    """Whether something in the library's folder isn't a plain file or folder, or is a folder where the library has a file."""
    if path.is_symlink() or not (path.is_file() or path.is_dir()):
        return True
    return path.is_dir() and (path.name == file.file or path.suffix in (PART, ".lock", ".metadata"))


def _download(file: PublishedFile, folder: Path, target: Path, endpoint: str | None) -> tuple[Path, HubFile]:
    """Download a file into a folder of its own; returns its path and what the hub says of it."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    # Xet does not resume a broken download. The library reads its environment variable HF_HUB_DISABLE_XET when it is imported, which
    # open_clip has done by now.
    constants.HF_HUB_DISABLE_XET = True
    try:
        metadata = get_hf_file_metadata(hf_hub_url(file.repository, file.file, endpoint=endpoint))
        hub = HubFile(metadata.etag, metadata.size)
        _make_room(file, folder, target, hub)
        path = hf_hub_download(file.repository, file.file, local_dir=folder, endpoint=endpoint)
    except FetchError:
        raise
    except Exception as error:  # the library's classes of errors differ from release to release
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise FetchError(
            f"{file.repository} could not be fetched: {reason} Run the same command again. {file.by_hand(target)}"
        ) from error
    return Path(path), hub


def _make_room(file: PublishedFile, folder: Path, target: Path, hub: HubFile) -> None:
    """Remove parts that can't be continued: of another version of the file, or not smaller than it.

    Raises:
        FetchError: the disk has too little room for the rest.
    """
    kept = 0
    for part in folder.rglob(f"*{PART}"):
        size = part.stat().st_size
        if part.name.endswith(f".{hub.etag}{PART}") and (hub.size is None or size < hub.size):
            kept = max(kept, size)
        else:
            part.unlink()
    free = shutil.disk_usage(target.parent).free
    if hub.size is not None and hub.size - kept > free and not (folder / file.file).exists():
        left = (hub.size - kept) / 1e9
        raise FetchError(f"{target}: {left:.1f} GB are left to fetch, but the disk has {free / 1e9:.1f} GB. Make room first.")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
