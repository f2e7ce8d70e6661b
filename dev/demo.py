"""`make demo`: a video from a sentence, in a real ComfyUI without a window.

    make demo
    PROMPT="a green square moving up" make demo
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image

from .client import Progress, files_of
from .comfyui import REPOSITORY, STORE
from .graph import Prompt, find_node, to_prompt
from .server import LOG_NAME, Server, running

RESULTS = REPOSITORY / "demo_output"
BASE = STORE / "demo"  # ComfyUI's own folder during the demo


@dataclass(frozen=True)
class Setting:
    """An environment variable that changes one input of a workflow: the input `name` of the node titled `title`."""

    variable: str
    title: str
    name: str


@dataclass(frozen=True)
class Demo:
    """A workflow of the folder `workflows/`, and what of it can be changed from outside."""

    workflow: str
    settings: tuple[Setting, ...]


DEMOS = (Demo("text_to_video.json", (Setting("PROMPT", "Prompt", "text"),)),)


class ProgressLines:
    """Prints the steps of every node: one line that counts up in a terminal, some ten lines elsewhere."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._inplace = sys.stdout.isatty()

    def __call__(self, progress: Progress) -> None:
        done = progress.value >= progress.maximum
        if not (self._inplace or done or progress.value % max(1, progress.maximum // 10) == 0):
            return
        node = self._prompt.get(progress.node_id)
        title = node["_meta"]["title"] if node else progress.node_id
        line = f"  {title}: step {progress.value} of {progress.maximum}"
        print(f"\r{line}" if self._inplace else line, end="" if self._inplace and not done else "\n", flush=True)


def run(demo: Demo, server: Server) -> list[Path]:
    """Runs a demo's workflow and returns the files it saved."""
    path = REPOSITORY / "workflows" / demo.workflow
    prompt = to_prompt(json.loads(path.read_text(encoding="utf-8")), server.object_info())
    for setting in demo.settings:
        inputs = find_node(prompt, setting.name, title=setting.title)["inputs"]
        inputs[setting.name] = os.environ.get(setting.variable) or inputs[setting.name]
        print(f'Running {demo.workflow} with {setting.variable}="{inputs[setting.name]}"', flush=True)
    outputs = server.run(prompt, on_progress=ProgressLines(prompt))
    return [server.path(file) for file in files_of(outputs)]


def describe(path: Path) -> str:
    """What is in a video or animated picture: frames, size and playback speed."""
    if path.suffix == ".webp":
        with Image.open(path) as picture:
            return f"{getattr(picture, 'n_frames', 1)} frames of {picture.width}x{picture.height}"
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        frames = sum(1 for _ in video.decode(stream))
        return f"{frames} frames of {stream.width}x{stream.height} at {float(stream.average_rate):g} per second"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped then, too
    RESULTS.mkdir(exist_ok=True)
    started = time.monotonic()
    saved: list[Path] = []
    try:
        print("Starting ComfyUI ...", flush=True)
        with running(BASE, output=RESULTS) as server:
            for demo in DEMOS:
                saved += run(demo, server)
        if not saved:
            sys.exit(f"The workflows ran, but saved nothing: {', '.join(demo.workflow for demo in DEMOS)}.")
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"The demo failed: {error}\nComfyUI's log: {BASE / LOG_NAME}")
    print(f"Done in {time.monotonic() - started:.0f} s. The results:")
    for path in saved:
        print(f"  {path}  ({describe(path)})")


if __name__ == "__main__":
    main()
