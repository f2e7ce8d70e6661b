"""What became of each job: a small file for each, and the manifest of all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files import replacing

#: Folder of the records in the output's folder, and the manifest's name.
FOLDER, MANIFEST = "records", "manifest.json"
DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Record:
    """What became of a job.

    Attributes:
        name: of the job.
        file: of its clip, in the output's folder.
        digest: of all that decides the clip, see :func:`.making.digest_of`.
        status: ``done`` or ``failed``.
        fields: what the list says of the job.
        sha256: of the file, in hexadecimal digits; of a folder of images, of all of them.
        error: why it failed.
        settings: of the clip, with the model's own where the job gives none; the seed among them.
        seconds: that it took, without loading the model.
        worker: who made it: host, process, device, and the rank in torchrun.
    """

    name: str
    file: str
    digest: str
    status: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    error: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    worker: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.status == DONE


class Records:
    """The records of an output folder. Each is written by the worker that made the job, complete or not at all."""

    def __init__(self, output: Path) -> None:
        self.output, self.folder = output, output / FOLDER

    def write(self, record: Record) -> None:
        """Write a record in place of an older one.

        Raises:
            FileWriteError: it can't be written.
        """
        self.folder.mkdir(exist_ok=True)
        with replacing(self.folder / f"{record.name}.json") as temporary:
            temporary.write_text(json.dumps(asdict(record), indent=1, ensure_ascii=False), encoding="utf-8")

    def read(self, name: str) -> Record | None:
        """A job's record; None if there is none that can be read."""
        try:
            return Record(**json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def is_done(self, name: str, digest: str) -> bool:
        """Whether a job's clip is there, as it was written, and made of what would be made now."""
        record = self.read(name)
        if record is None or not record.done or record.digest != digest:
            return False
        path = self.output / record.file
        return path.exists() and sha256_of(path) == record.sha256

    def write_manifest(self, names: Sequence[str], run: Mapping[str, Any]) -> None:
        """Write the records of a list's jobs, in its order, into one file.

        Args:
            run: what is the same for all jobs: model, versions.
        """
        known = [self.read(name) for name in names]
        jobs = [{"name": name, "status": "missing"} if each is None else asdict(each) for name, each in zip(names, known, strict=True)]
        with replacing(self.output / MANIFEST) as temporary:
            temporary.write_text(json.dumps({**run, "jobs": jobs}, indent=1, ensure_ascii=False), encoding="utf-8")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits, or of a folder's files, one after the other by name."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        with file.open("rb") as opened:
            while chunk := opened.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def digest_of_text(value: Any) -> str:
    """A digest of data, equal for equal data, whatever the order of its keys. A path that is a file stands for its content."""

    def plain(each: Any) -> Any:
        if isinstance(each, Path) and each.is_file():
            return sha256_of(each)
        return os.fspath(each) if isinstance(each, os.PathLike) else str(each)

    return hashlib.sha256(json.dumps(value, sort_keys=True, default=plain).encode()).hexdigest()
