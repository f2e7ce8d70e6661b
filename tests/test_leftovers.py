"""Files that are about to be written: what is checked before, and what killed processes left beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from harness.comfyui import REPOSITORY
from vc_core import files
from vc_core.files import LEFT_BEHIND_AFTER, check_output, remove_leftovers, replacing

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and special files are POSIX's")


@POSIX
def test_outputs_that_are_no_files_or_protected(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(files.FileWriteError, match="not an ordinary file"):
        check_output(tmp_path / "pipe")
    (tmp_path / "mine").write_text("mine")
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write all
    with pytest.raises(files.FileWriteError, match="protected against writing"):
        check_output(tmp_path / "mine")
    monkeypatch.undo()
    check_output(tmp_path / "mine")
    check_output(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "pipe"]


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from vc_core.checkpoint import convert
def watch():  # kills in the middle of writing, when the library has its own file there
    while not any(each.is_file() and each.stat().st_size > 1 << 20 for each in Path(sys.argv[2]).parent.rglob("*")):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
convert(*sys.argv[1:])
"""


@POSIX
@pytest.mark.parametrize("length", [20, 250])
def test_parts_of_a_killed_process_are_removed_by_the_next_run(tmp_path, length):
    torch.save({"large": torch.ones(1 << 25)}, tmp_path / "model.ckpt")
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / ("ä" + "n" * (length - 14) + ".safetensors")
    assert len(os.fsencode(target.name)) == length
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "model.ckpt", target], cwd=REPOSITORY, check=False)
    left = list(target.parent.iterdir())
    assert done.returncode == -signal.SIGKILL and left and target not in left
    with replacing(target) as temporary:
        temporary.write_bytes(b"new")
    assert list(target.parent.iterdir()) == [target] and target.read_bytes() == b"new"


@POSIX
def test_only_parts_of_ours_that_nobody_writes_are_removed(tmp_path):
    target = tmp_path / "model.safetensors"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()

    def part(name: str, age: float = 0.0) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "inside").touch()
        os.utime(path, (time.time() - age,) * 2)
        return path

    here, elsewhere, other = files._machine(), "00000000", "01234567"
    gone = [
        part(f".model.safetensors.{here}-{dead.pid}-{other}-0000.part"),
        part(f".model.safetensors.{here}-{os.getpid()}-{other}-0000.part"),  # an earlier process of our number
        part(f".model.safetensors.{elsewhere}-{dead.pid}-{other}-0000.part", age=LEFT_BEHIND_AFTER + 60),
    ]
    stay = [
        part(f".model.safetensors.{here}-{os.getppid()}-{other}-0000.part"),  # that runs
        part(f".model.safetensors.{here}-{os.getpid()}-{files._PROCESS}-0000.part", age=LEFT_BEHIND_AFTER + 60),  # our own
        part(f".model.safetensors.{elsewhere}-{dead.pid}-{other}-0001.part"),  # of a machine of which nothing is known
        part(f".other.safetensors.{here}-{dead.pid}-{other}-0000.part"),
        part(f".model.safetensors.{here}-{dead.pid}-{other}-0000.part.mine"),
        part("model.safetensors.part"),
    ]
    link = tmp_path / f".model.safetensors.{here}-{dead.pid}-{other}-0002.part"
    link.symlink_to(stay[-1])
    remove_leftovers(target)
    assert sorted(tmp_path.iterdir()) == sorted([*stay, link]) and not any(path.exists() for path in gone)
    assert all((path / "inside").exists() for path in stay)
