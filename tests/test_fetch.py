"""Fetching published files, from a hub of our own on this machine, by the real huggingface_hub."""

from __future__ import annotations

import builtins
import hashlib
import os
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

import vc_core.fetch as fetching
from vc_core.__main__ import main
from vc_core.config import published
from vc_core.errors import VideoCrafterError
from vc_core.fetch import FetchError, fetch, published_files

CONTENT = bytes(range(256)) * 40_000  # 10 MB
NAME = "i2v_512_v1"  # its SHA-256 is not recorded here, so the hub's is used


class Hub(ThreadingHTTPServer):
    """Serves one file as the hub does.

    ``breaks`` lists after how many bytes the next connections end; those after them are sound.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, hashlib.sha256(CONTENT).hexdigest()
        self.breaks: list[int] = []
        self.ranges: list[str] = []
        self.xet = False
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_content=False)

    def do_GET(self) -> None:
        self.answer(with_content=True)

    def answer(self, with_content: bool) -> None:
        if not re.fullmatch("/VideoCrafter/Image2Video-512/resolve/[^/]+/model.ckpt", self.path):
            self.send_error(404)
            return
        begin = 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            begin = int(asked[1])
        if with_content:
            self.server.ranges.append(self.headers.get("Range", ""))
        piece = self.server.content[begin:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(piece)))
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{len(self.server.content) - 1}/{len(self.server.content)}")
        self.send_header("ETag", f'"{self.server.etag}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        if self.server.xet:
            self.send_header("X-Xet-Hash", "2" * 64)
            self.send_header("Link", f'<{self.server.address}/xet>; rel="xet-auth"')
        self.end_headers()
        if with_content:
            end = self.server.breaks.pop(0) if self.server.breaks else None
            self.wfile.write(piece[:end])
            self.close_connection = end is not None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 20)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False, raising=False)  # the default; older releases have no Xet
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)  # between the library's own attempts
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_checked_and_left_alone_afterwards(hub, tmp_path):
    target = fetch(NAME, tmp_path, endpoint=hub.address)
    assert target == tmp_path / "videocrafter_i2v_512_v1.ckpt" and target.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [target]  # nothing else is left
    asked = len(hub.ranges)
    messages = []
    assert fetch(NAME, tmp_path, endpoint=hub.address, report=messages.append) == target
    assert len(hub.ranges) == asked and "is there already" in messages[0]


def test_a_broken_connection_is_continued(hub, tmp_path):
    hub.breaks = [5_000_000, 2_000_000]
    assert fetch(NAME, tmp_path, endpoint=hub.address).read_bytes() == CONTENT
    first, *others = hub.ranges
    positions = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in others]
    assert first == "" and len(positions) == 2 and 0 < positions[0] <= 5_000_000 and positions[0] < positions[1] <= 7_000_000


def test_after_a_failure_the_same_command_succeeds(hub, tmp_path):
    hub.breaks = [5_000_000] + [0] * 20
    with pytest.raises(FetchError, match="Run the same command again. Or download https://huggingface.co/.* with a browser"):
        fetch(NAME, tmp_path, endpoint=hub.address)
    assert not (tmp_path / "videocrafter_i2v_512_v1.ckpt").exists()
    hub.breaks = []
    target = fetch(NAME, tmp_path, endpoint=hub.address)
    assert target.read_bytes() == CONTENT and list(tmp_path.iterdir()) == [target]


def test_files_that_the_hub_also_has_by_xet_come_by_http(hub, tmp_path):
    hub.xet = True
    assert fetch(NAME, tmp_path, endpoint=hub.address).read_bytes() == CONTENT and hub.ranges == [""]


def test_a_file_without_a_published_sha256(hub, tmp_path):
    hub.etag = "3" * 40
    messages = []
    assert fetch(NAME, tmp_path, endpoint=hub.address, report=messages.append).read_bytes() == CONTENT
    assert "was not checked" in messages[-1]


def test_a_damaged_file_is_refused_and_removed(hub, tmp_path):
    hub.content = CONTENT[:-1] + b"x"
    with pytest.raises(FetchError, match="is damaged: its SHA-256 is .*fetch it again"):
        fetch(NAME, tmp_path, endpoint=hub.address)
    assert not list(tmp_path.iterdir())


def odd_folder(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "inside").write_text("x")


def odd_link(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    other = path.parent.parent / "precious"
    other.mkdir(exist_ok=True)
    (other / "kept").write_text("kept")
    path.symlink_to(other)


def odd_pipe(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def odd_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"<html>" * 100)


UNFINISHED = ".videocrafter_i2v_512_v1.ckpt.download"
CACHE = f"{UNFINISHED}/.cache/huggingface/download"


@pytest.mark.skipif(os.name != "posix", reason="links and named pipes are POSIX's")
@pytest.mark.parametrize("odd", [odd_folder, odd_link, odd_pipe, odd_file], ids=["folder", "link", "pipe", "file"])
@pytest.mark.parametrize(
    "name", [UNFINISHED, f"{UNFINISHED}/model.ckpt", f"{CACHE}/part.{'0' * 64}.incomplete", f"{UNFINISHED}/fetch.lock"],
    ids=["all", "whole", "part", "lock"],
)
def test_what_can_not_be_continued_is_fetched_anew(hub, tmp_path, odd, name):
    folder = tmp_path / "models"
    odd(folder / name)
    target = fetch(NAME, folder, endpoint=hub.address, report=lambda _: None)
    assert target.read_bytes() == CONTENT and {path.name for path in folder.iterdir()} <= {target.name, "precious"}
    assert all(path.read_text() == "kept" for path in tmp_path.rglob("kept"))


def part_name(hub: Hub, folder: Path) -> Path:
    """The name of the part that older releases of the library continue."""
    from huggingface_hub._local_folder import get_local_download_paths

    return get_local_download_paths(folder / UNFINISHED, "model.ckpt").incomplete_path(hub.etag)


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 5, 1000])
def test_a_part_of_other_content_never_becomes_the_file(hub, tmp_path, size):
    part = part_name(hub, tmp_path)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(b"x" * size)
    target = fetch(NAME, tmp_path, endpoint=hub.address, report=lambda _: None)
    assert target.read_bytes() == CONTENT and list(tmp_path.iterdir()) == [target]


def test_a_damaged_whole_of_an_earlier_call_is_fetched_anew(hub, tmp_path):
    """The library takes a file beside its own record of the right tag for complete."""
    from huggingface_hub._local_folder import write_download_metadata

    (tmp_path / UNFINISHED).mkdir()
    (tmp_path / UNFINISHED / "model.ckpt").write_bytes(CONTENT[:-1] + b"x")
    write_download_metadata(tmp_path / UNFINISHED, "model.ckpt", "1" * 40, hub.etag)
    target = fetch(NAME, tmp_path, endpoint=hub.address, report=lambda _: None)
    assert target.read_bytes() == CONTENT and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("page", [b"<html>Please log in</html>", b"", b"\x1f\x8b\x08" + b"0" * 100, b' {"error": "no"}'])
@pytest.mark.parametrize("etag", ["sha256", "3" * 40])
def test_what_a_captive_portal_sends_never_becomes_a_model(hub, tmp_path, page, etag):
    """In place of the content, with the sound headers; and with headers of its own."""
    hub.content = page
    if etag != "sha256":
        hub.etag = etag
    with pytest.raises(FetchError):
        fetch(NAME, tmp_path, endpoint=hub.address, report=lambda _: None)
    assert not (tmp_path / "videocrafter_i2v_512_v1.ckpt").exists()


def test_a_size_that_is_not_the_hubs_is_damage(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_download", lambda file, folder, *_: (tmp_path / "model", fetching.HubFile(None, 4)))
    (tmp_path / "model").write_bytes(b"12345")
    with pytest.raises(FetchError, match="it has 5 bytes, not 4"):
        fetch(NAME, tmp_path, endpoint=hub.address, report=lambda _: None)


def test_two_at_once_do_not_disturb_each_other(hub, tmp_path):
    (tmp_path / UNFINISHED).mkdir()
    with FileLock(tmp_path / UNFINISHED / "fetch.lock"), pytest.raises(FetchError, match="by another process already"):
        fetch(NAME, tmp_path, endpoint=hub.address, report=lambda _: None)


def test_too_little_room_is_said_before_the_download(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100, "total": 100, "used": 0}))
    with pytest.raises(FetchError, match=r"0.0 GB are left to fetch, but the disk has 0.0 GB. Make room first"):
        fetch(NAME, tmp_path, endpoint=hub.address, report=lambda _: None)
    assert hub.ranges == []


@pytest.mark.parametrize("there", ["folder", "empty"])
def test_what_is_there_but_no_model_is_not_taken_for_one(hub, tmp_path, there):
    target = tmp_path / "videocrafter_i2v_512_v1.ckpt"
    if there == "folder":
        target.mkdir()
        with pytest.raises(VideoCrafterError, match="is a folder"):
            fetch(NAME, tmp_path, endpoint=hub.address, report=lambda _: None)
    else:
        target.touch()
        assert fetch(NAME, tmp_path, endpoint=hub.address, report=lambda _: None).read_bytes() == CONTENT


def test_the_recorded_sha256_counts_and_not_the_hubs(hub, tmp_path, monkeypatch):
    recorded = {NAME: replace(published_files()[NAME], sha256="0" * 64)}
    monkeypatch.setattr(fetching, "published_files", lambda: recorded)
    with pytest.raises(FetchError, match=f"not {'0' * 64}"):
        fetch(NAME, tmp_path, endpoint=hub.address)


def test_without_a_network_it_says_what_to_do_by_hand(tmp_path):
    with pytest.raises(FetchError) as caught:
        fetch(NAME, tmp_path, endpoint="http://127.0.0.1:9")  # nobody listens there
    assert "https://huggingface.co/VideoCrafter/Image2Video-512/resolve/main/model.ckpt" in str(caught.value)
    assert str(tmp_path / "videocrafter_i2v_512_v1.ckpt") in str(caught.value)


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.split(".")[0] == "huggingface_hub":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FetchError, match="pip install huggingface_hub.*with a browser"):
        fetch(NAME, tmp_path)


def test_the_command_line_prints_errors_in_one_line(tmp_path, capsys):
    assert main(["fetch", NAME, "--folder", str(tmp_path / "nowhere")]) == 1
    assert "There is no folder" in capsys.readouterr().err


def test_every_published_model_has_a_file():
    files = published_files()
    assert sorted(files) == published()
    for file in files.values():
        assert file.name.removeprefix("videocrafter_") in file.save_as  # models with the same tensors are identified by their file's name
        assert not file.sha256 or re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert len({file.save_as for file in files.values()}) == len(files)
