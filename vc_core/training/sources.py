"""The clips and captions of a training set: a folder, a CSV file, or WebDataset shards.

* A folder, with those in it: videos and images, each with its caption in a text file of the same name (``cat.mp4``, ``cat.txt``;
  where two files share a name, ``cat.mp4.txt`` is that of one of them).
* A CSV file with the columns ``path`` (from the file's folder) and ``caption``, or DynamiCrafter's ``page_dir``, ``videoid`` and ``name``.
* A WebDataset shard, a ``.tar`` whose files of one name up to the first dot are one sample, or a folder of shards.
"""

from __future__ import annotations

import csv
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import InputError

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v", ".flv", ".ogv", ".mpg", ".mpeg", ".ts", ".wmv", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SUFFIXES = VIDEO_SUFFIXES + IMAGE_SUFFIXES
CAPTION_SUFFIXES = (".txt", ".caption")
#: The columns of a CSV file, each with other names that are read.
PATH_COLUMNS, CAPTION_COLUMNS = ("path", "file", "video", "file_name"), ("caption", "text", "name", "prompt")


@dataclass(frozen=True)
class Item:
    """A file of a training set with its caption.

    Attributes:
        name: how it is called in messages, unique in its set.
        caption: None where there is no file of one.
        path: the file, or the shard that has it.
        member: its name in the shard.
    """

    name: str
    caption: str | None
    path: Path
    member: str | None = None

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.member or self.path.name).suffix.lower()

    def identity(self) -> str:
        """What tells the file from others, and from an older one in its place."""
        stat = self.path.stat()
        return "\0".join([str(self.path.resolve()), self.member or "", str(stat.st_size), str(stat.st_mtime_ns)])

    @contextmanager
    def file(self) -> Iterator[Path]:
        """The file as one of its own; that of a shard is copied out for as long as this is open."""
        if self.member is None:
            yield self.path
            return
        with tarfile.open(self.path) as shard, tempfile.TemporaryDirectory() as folder:
            source = shard.extractfile(self.member)
            assert source is not None  # only ordinary files are listed
            copy = Path(folder) / f"clip{self.suffix}"
            copy.write_bytes(source.read())
            yield copy


def find_items(data: Path) -> list[Item]:
    """All items of a training set, in the order of their names or of the CSV file's rows.

    Raises:
        InputError: there is no such folder or file, it is of another kind, or it holds no clips.
    """
    if data.is_dir():
        shards = sorted(data.glob("*.tar"))
        items = [item for shard in shards for item in _in_shard(shard, f"{shard.name}/")] if shards else _in_folder(data)
    elif not data.is_file():
        raise InputError(f"There is no training data at {data}: give a folder of clips, a .csv or a .tar.")
    elif data.suffix.lower() == ".csv":
        items = _in_csv(data)
    elif data.suffix.lower() == ".tar":
        items = _in_shard(data, "")
    else:
        raise InputError(f"{data} is no training data: give a folder of clips, a .csv with the columns path and caption, or a .tar.")
    if not items:
        raise InputError(f"{data} holds no clips. Clips are files that end in {', '.join(SUFFIXES)}, each with its caption in a .txt.")
    return items


def _in_folder(folder: Path) -> list[Item]:
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
    return [Item(path.relative_to(folder).as_posix(), _caption_beside(path), path) for path in paths if not path.name.startswith(".")]


def _caption_beside(path: Path) -> str | None:
    beside = (path.with_name(path.name + ".txt"), *(path.with_suffix(suffix) for suffix in CAPTION_SUFFIXES))
    text = next((each for each in beside if each.is_file()), None)
    return None if text is None else _decoded(text.read_bytes(), str(text))


def _decoded(content: bytes, where: str) -> str:
    try:
        return " ".join(content.decode("utf-8-sig").split())
    except UnicodeError as error:
        raise InputError(f"{where} is no text in UTF-8: save it anew in this encoding.") from error


def _in_csv(path: Path) -> list[Item]:
    rows = list(csv.DictReader(_csv_text(path).splitlines()))
    columns = list(rows[0]) if rows else []
    caption = next((name for name in CAPTION_COLUMNS if name in columns), None)
    file = next((name for name in PATH_COLUMNS if name in columns), None)
    published = {"page_dir", "videoid"} <= set(columns)
    if caption is None or not (file or published):
        raise InputError(f"{path} has the columns {', '.join(map(str, columns)) or 'none'}; path and caption are needed.")
    items = []
    for number, row in enumerate(rows, 2):
        place = row[file] if file else f"{row['page_dir']}/{row['videoid']}.mp4"
        if not place or place == "/.mp4":
            raise InputError(f"{path}, line {number}: the path is empty. Remove the line, or fill it in.")
        text = row[caption]
        items.append(Item(place, None if text is None else " ".join(text.split()), path.parent / place))
    return items


def _csv_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeError as error:
        raise InputError(f"{path} is no text in UTF-8: save it anew in this encoding.") from error


def _in_shard(path: Path, prefix: str) -> list[Item]:
    captions: dict[str, str] = {}
    members: list[tuple[str, str]] = []
    try:
        with tarfile.open(path) as shard:
            for member in shard:
                place = PurePosixPath(member.name)
                key = str(place.with_name(place.name.partition(".")[0]))
                if not member.isfile() or place.name.startswith("."):
                    continue
                if place.suffix.lower() in CAPTION_SUFFIXES:
                    source = shard.extractfile(member)
                    assert source is not None
                    captions[key] = _decoded(source.read(), f"{path}: {member.name}")
                elif place.suffix.lower() in SUFFIXES:
                    members.append((key, member.name))
    except tarfile.TarError as error:
        raise InputError(f"{path} can't be read as a shard ({error}): it is damaged, or no tar file.") from error
    return [Item(prefix + name, captions.get(key), path, name) for key, name in members]
