"""Fetching published files, from a hub of our own on this machine."""

from __future__ import annotations

import builtins
import hashlib
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import vc_core.fetch as fetching
from vc_core.__main__ import main
from vc_core.config import published
from vc_core.fetch import FetchError, fetch, published_files

CONTENT = bytes(range(256)) * 40_000  # 10 MB
NAME = "i2v_512_v1"  # no SHA-256 of it is recorded, so that the hub's is taken


class Hub(ThreadingHTTPServer):
    """Serves one file as the hub does. A `broken` one ends a connection after as many bytes as it still `sends`, and others at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.told = CONTENT, hashlib.sha256(CONTENT).hexdigest()
        self.broken, self.sends = False, 0
        self.ranges: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def left(self) -> int | None:
        """How many bytes this connection is to send; None for all."""
        if not self.broken:
            return None
        sent, self.sends = self.sends, 0
        return sent


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
        self.send_header("ETag", f'"{self.server.told}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.end_headers()
        if with_content:
            left = self.server.left()
            self.wfile.write(piece[:left])
            self.close_connection = left is not None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub():
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
    said = []
    assert fetch(NAME, tmp_path, endpoint=hub.address, say=said.append) == target
    assert len(hub.ranges) == asked and "is there already" in said[0]


def test_a_broken_fetch_goes_on_where_it_stopped(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 20)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)  # before the tries that the library makes by itself
    hub.broken, hub.sends = True, 5_000_000
    with pytest.raises(FetchError, match="the same command goes on from there"):
        fetch(NAME, tmp_path, endpoint=hub.address)
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    begin = next(tmp_path.iterdir()).stat().st_size
    assert 0 < begin <= 5_000_000
    hub.broken = False
    hub.ranges.clear()
    assert fetch(NAME, tmp_path, endpoint=hub.address).read_bytes() == CONTENT
    assert hub.ranges == [f"bytes={begin}-"]


def test_a_damaged_file_is_refused_and_removed(hub, tmp_path):
    hub.content = CONTENT[:-1] + b"x"
    with pytest.raises(FetchError, match="is damaged: its SHA-256 is"):
        fetch(NAME, tmp_path, endpoint=hub.address)
    assert not list(tmp_path.iterdir())


def test_the_recorded_sum_holds_whatever_the_hub_says(hub, tmp_path, monkeypatch):
    recorded = {NAME: replace(published_files()[NAME], sha256="0" * 64)}
    monkeypatch.setattr(fetching, "published_files", lambda: recorded)
    with pytest.raises(FetchError, match=f"not {'0' * 64}"):
        fetch(NAME, tmp_path, endpoint=hub.address)


def test_without_a_network_it_says_what_to_do_by_hand(tmp_path):
    with pytest.raises(FetchError) as told:
        fetch(NAME, tmp_path, endpoint="http://127.0.0.1:9")  # nobody listens there
    assert "https://huggingface.co/VideoCrafter/Image2Video-512/resolve/main/model.ckpt" in str(told.value)
    assert str(tmp_path / "videocrafter_i2v_512_v1.ckpt") in str(told.value)


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name.split(".")[0] == "huggingface_hub":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FetchError, match="pip install huggingface_hub.*with a browser"):
        fetch(NAME, tmp_path)


def test_the_command_line_tells_errors_in_a_line(tmp_path, capsys):
    assert main(["fetch", NAME, "--folder", str(tmp_path / "nowhere")]) == 1
    assert "There is no folder" in capsys.readouterr().err


def test_every_published_model_has_a_file():
    files = published_files()
    assert sorted(files) == published()
    for file in files.values():
        assert file.name.removeprefix("videocrafter_") in file.save_as  # by its name a file is told from others of the same tensors
        assert not file.sha256 or re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert len({file.save_as for file in files.values()}) == len(files)
