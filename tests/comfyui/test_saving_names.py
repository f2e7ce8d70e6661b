"""Under which names Save Video saves, and what it leaves when it can't: the node's class in processes of its own, without servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest

from dev.fuzz_media import fuzz
from harness.comfyui import REPOSITORY
from vc_core.media.video import read_video

#: Saves what each line of its input says, after all that starts together has started; prints what becomes of it.
PROGRAM = """
import json, math, resource, signal, sys
from pathlib import Path
from harness import node_pack
output, colour = Path(sys.argv[1]), float(sys.argv[2])
node_pack.import_pack(output)
import torch
frames = torch.full((2, 16, 16, 3), colour)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
circle = {}
circle["a"] = circle
ODD = {"a circle": {"workflow": circle}, "a set": {"workflow": {1}}, "nan": math.nan, "infinity": math.inf}
print("ready", flush=True)
for line in sys.stdin:
    asked = {name: ODD.get(value, value) if isinstance(value, str) else value for name, value in json.loads(line).items()}
    limit = asked.pop("disk", -1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    images = torch.rand(4, 64, 64, 3) if asked.pop("large", False) else frames
    if asked.pop("black", False):
        images = torch.full_like(images, math.nan)
    inputs = {"images": images, "filename_prefix": "clip", "fps": 8.0, "crf": 17.0, **asked}
    try:
        shown = node_pack.run("VideoCrafterSaveVideo", **inputs).ui
        result = shown.get("files", shown["images"])[0]
        print(json.dumps(str(Path(result["subfolder"]) / result["filename"])), flush=True)
    except ValueError as error:
        print(json.dumps({"error": str(error)}), flush=True)
"""


class Saving:
    """A process that saves clips of one brightness into a folder."""

    def __init__(self, output: Path, colour: float = 0.5) -> None:
        command = [sys.executable, "-c", PROGRAM, str(output), str(colour)]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait(self) -> None:
        """Until it is ready."""
        while self.process.stdout.readline() != "ready\n":
            assert self.process.poll() is None

    def ask(self, **inputs: Any) -> None:
        self.process.stdin.write(json.dumps(inputs) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        line = self.process.stdout.readline()
        assert line, "the process died"
        return json.loads(line)

    def save(self, **inputs: Any) -> Any:
        """The path of the saved file in the output folder, or a dictionary with an error."""
        self.ask(**inputs)
        return self.answer()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def saving(tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    process = Saving(output)
    process.wait()
    yield process, output
    process.stop()


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("ow/", "ow"), ("", "VideoCrafter"), ("./one", "one"), ("sub/name", "sub/name"), ("sub//other/", "sub/other"), ("a/../b", "b"),
        ("take:1", "take:1"), ("%width%x%height%", "16x16"), ("ü あ", "ü あ"), ("x" * 200, "x" * 200), ("d/" * 32, "d/" * 31 + "d"),
    ],
)
def test_any_prefix_counts_on(saving, prefix, name):
    process, output = saving
    assert [process.save(filename_prefix=prefix) for _ in range(3)] == [f"{name}_0000{number}_.mp4" for number in (1, 2, 3)]
    for number in (1, 2, 3):
        with av.open(f"file:{output / f'{name}_0000{number}_.mp4'}") as file:
            assert len(list(file.decode(video=0))) == 2


def test_a_number_that_is_taken_in_between_is_skipped(saving):
    """Core looks for the largest number first; what another program makes after that must stay."""
    process, output = saving
    (output / "gap_00001_.mp4").mkdir()  # a folder, a link that leads nowhere: names are names
    (output / "gap_00002_.mp4").symlink_to("nowhere")
    assert process.save(filename_prefix="gap") == "gap_00003_.mp4"
    assert (output / "gap_00002_.mp4").is_symlink()


REFUSED = {
    "thousands of parts": ({"filename_prefix": "a/" * 2000}, "4000 bytes and 2000 parts; at most 1000 bytes and 32 parts are possible"),
    "33 parts": ({"filename_prefix": "a/" * 33}, "33 parts; at most"),
    "a long part": ({"filename_prefix": "x" * 201}, "longer than 200 bytes"),
    "a long part in bytes": ({"filename_prefix": "あ" * 67}, "longer than 200 bytes"),
    "outside": ({"filename_prefix": "../x"}, "leads out of the output folder"),
    "the folder above": ({"filename_prefix": ".."}, "leads out of the output folder"),
    "a link to itself": ({"filename_prefix": "loop/x"}, "leads out of the output folder"),
    "a file in the way": ({"filename_prefix": "file/x"}, "the file can't be made: Not a directory"),
    "a null": ({"filename_prefix": "a\0b"}, "characters that file names cannot have"),
    "half a character": ({"filename_prefix": "\ud800"}, "characters that file names cannot have"),
    "no text": ({"filename_prefix": None}, "it must be a text"),
    "a list": ({"extra_pnginfo": [1]}, "extra_pnginfo is of the type list; it must be a mapping"),
    "a circle": ({"extra_pnginfo": "a circle"}, "workflow can't be stored in the file as JSON"),
    "a set": ({"extra_pnginfo": "a set"}, "workflow can't be stored in the file as JSON"),
    "an escape": ({"extra_pnginfo": {"\x1b[31m": 1}}, "names must be texts of printable characters"),
    "no name": ({"extra_pnginfo": {"": 1}}, "names must be texts of printable characters"),
    "fps in words": ({"fps": "fast"}, "fps is 'fast'; it must be a number from 1"),
    "crf of nothing": ({"crf": None}, "crf is None; it must be a number from 0"),
    "fps of nan": ({"fps": "nan"}, "fps is nan; it must be a number"),
    "infinite crf": ({"crf": "infinity"}, "crf is inf; it must be a number"),
    "NaN": ({"black": True}, "2 of the images, the first of them number 1, hold values that are no numbers"),
    "a full disk": ({"filename_prefix": "full", "disk": 5000, "large": True}, "full_00001_.mp4: can't be written (File too large)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_saved_is_said_and_leaves_nothing(saving, case):
    process, output = saving
    inputs, message = REFUSED[case]
    (output / "file").touch()
    if not (output / "loop").is_symlink():
        (output / "loop").symlink_to("loop")
    before = sorted(output.rglob("*"))
    said = process.save(**inputs)
    assert message in said["error"] and all(line.isprintable() for line in said["error"].split("\n"))
    assert sorted(output.rglob("*")) == before
    if case == "a full disk":
        assert process.save(filename_prefix="full") == "full_00001_.mp4"  # the number is free again


def test_metadata_of_any_kind_is_kept(saving):
    process, output = saving
    extra = {"workflow": {"text": "\0\x1b\u202e\ud800 ' \" ; # = \\ \n"}, "k" * 5000: [None], "x=;#\\": float("nan"), "title": "T"}
    path = output / process.save(extra_pnginfo=extra, prompt={"1": {}})
    with av.open(str(path)) as file:
        assert json.loads(file.metadata["workflow"]) == extra["workflow"] and json.loads(file.metadata["prompt"]) == {"1": {}}


@pytest.mark.full
def test_two_servers_on_one_folder_never_overwrite(tmp_path):
    """30 clips each, as fast as they can; a clip's brightness says whose it is."""
    count, processes = 30, [Saving(tmp_path, colour) for colour in (0.25, 0.75)]
    try:
        for process in processes:
            process.wait()
        for process in processes:
            for _ in range(count):
                process.ask()
        answers = [[process.answer() for _ in range(count)] for process in processes]
    finally:
        for process in processes:
            process.stop()
    names = [name for each in answers for name in each]
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir()) and len(set(names)) == 2 * count
    for colour, own in zip((0.25, 0.75), answers, strict=True):
        for name in own:
            assert abs((read_video(tmp_path / name).mean() + 1) / 2 - colour) < 0.02


@pytest.mark.full
def test_a_part_of_the_fuzz():
    """`python -m dev.fuzz_media --kinds node` for longer."""
    report = fuzz(["node"], 0, 60, 200)
    assert report.faults == [] and report.endings["node"]["saved"] > 10 and report.endings["node"]["said"] > 50
