"""Starts a real ComfyUI with this pack in it, and stops it again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from .client import Client, File
from .comfyui import REPOSITORY, comfyui_dir, release_dir

START_TIMEOUT = 300  # seconds; a first start compiles ComfyUI's Python files
LOG_NAME = "comfyui.log"  # in the base directory
LOG_TAIL = 40  # lines of the log that an error shows
DEFAULT_PACK_NAME = "ComfyUI-VideoCrafter"  # of the folder among the custom nodes
#: The folders of the tests' own nodes, which save and read tensors, fail on purpose and look into models.
TEST_NODES = sorted(path.parent for path in (Path(__file__).parent / "custom_nodes").glob("*/__init__.py"))
FOLDERS = ("custom_nodes", "input", "output", "models/checkpoints")


class ServerError(RuntimeError):
    """ComfyUI didn't start, or couldn't import a custom node. The message has the end of its log."""


class Server(Client):
    """A running ComfyUI, its folders and its log."""

    def __init__(self, address: str, base: Path, log: Path, process: subprocess.Popen[bytes]) -> None:
        super().__init__(address)
        self.base, self.log, self.process = base, log, process

    @property
    def checkpoints(self) -> Path:
        """The folder that its checkpoint loaders list."""
        return self.base / "models" / "checkpoints"

    def path(self, file: File) -> Path:
        """Where an output or input file lies."""
        return (self.base / file["type"]).resolve() / file["subfolder"] / file["filename"]


@contextmanager
def running(
    base: Path,
    pack_name: str = DEFAULT_PACK_NAME,
    custom_nodes: Sequence[Path] = (),
    models: Path | None = None,
    output: Path | None = None,
    flags: Sequence[str] = (),
    release: str | None = None,
) -> Iterator[Server]:
    """A ComfyUI that runs as long as the `with` block.

    base:          its base directory: gets custom_nodes/, models/, input/, output/ and its log `comfyui.log`
    pack_name:     the folder name under which this repository is linked as a custom node
    custom_nodes:  folders of further custom nodes to link
    models:        a folder of models to use in place of an empty one
    output:        a folder for the results in place of output/
    flags:         further options of ComfyUI's command line
    release:       one of harness.comfyui.RELEASES in place of the one that the environment names
    """
    folder, base = release_dir(release) if release else comfyui_dir(), base.resolve()
    prepare_base(base, pack_name, custom_nodes, models, output)
    port = free_port()
    log = base / LOG_NAME
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command(folder, base, port, flags),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts can be stopped with it
        )
    server = Server(f"http://127.0.0.1:{port}", base, log, process)
    try:
        _wait(server)
        yield server
    finally:
        _stop(process)


def command(folder: Path, base: Path, port: int, flags: Sequence[str] = ()) -> list[str]:
    """The command line that starts ComfyUI: on the GPU where CUDA is there, else on the CPU."""
    import torch

    device = [] if torch.cuda.is_available() else ["--cpu"]
    return [
        *(sys.executable, str(folder / "main.py"), *device),
        *("--base-directory", str(base), "--listen", "127.0.0.1", "--port", str(port)),
        *("--database-url", "sqlite:///:memory:", *flags),
    ]


def prepare_base(
    base: Path, pack_name: str, custom_nodes: Sequence[Path] = (), models: Path | None = None, output: Path | None = None
) -> None:
    """Makes a base directory: the usual folders, with links to this repository, the custom nodes and the models."""
    base.mkdir(parents=True, exist_ok=True)
    for name, target in (("models", models), ("output", output)):
        if target:
            _link(base / name, target)
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    _link(base / "custom_nodes" / pack_name, REPOSITORY)
    for path in custom_nodes:
        _link(base / "custom_nodes" / path.name, path)


def log_tail(log: Path, lines: int = LOG_TAIL) -> str:
    """The last lines of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    link.symlink_to(target.resolve(), target_is_directory=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(server: Server) -> None:
    """Waits until the server answers. Raises ServerError if it ends, is silent too long, or a custom node failed."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        code = server.process.poll()
        if code is not None:
            raise ServerError(f"ComfyUI ended with code {code} while starting. The end of {server.log}:\n{log_tail(server.log)}")
        try:
            server.get("/system_stats")
            break
        except requests.RequestException:
            pass
        if time.monotonic() > deadline:
            raise ServerError(f"ComfyUI didn't answer within {START_TIMEOUT} s. The end of {server.log}:\n{log_tail(server.log)}")
        time.sleep(0.25)
    failed = [line.split(":", 1)[1].strip() for line in server.log.read_text(errors="replace").splitlines() if "(IMPORT FAILED)" in line]
    if failed:
        raise ServerError(f"ComfyUI couldn't import {', '.join(failed)}. The end of {server.log}:\n{log_tail(server.log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the server and whatever it started."""
    for number, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
