"""`make demo`: a video from a sentence and one from an image, in a real ComfyUI without a window.

    make demo
    PROMPT="a green square moving up" make demo
    IMAGE=image.png MOTION="moving up" make demo
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageOps

from harness.client import Progress, files_of
from harness.comfyui import REPOSITORY, STORE
from harness.graph import Prompt, find_node, set_input, to_prompt
from harness.server import LOG_NAME, Server, running

RESULTS = REPOSITORY / "demo_output"
BASE = STORE / "demo"  # ComfyUI's own folder during the demo


class Setting(ABC):
    """An environment variable that changes something of a workflow."""

    variable: str

    @abstractmethod
    def read(self, text: str) -> Any:
        """The value that the variable's text means; its `str` is shown to users. Raises ValueError for a text that means none."""

    @abstractmethod
    def default(self, prompt: Prompt) -> str:
        """The workflow's own value, as a text."""

    @abstractmethod
    def apply(self, value: Any, prompt: Prompt, server: Server) -> None:
        """Puts a value that was read into the prompt."""


@dataclass(frozen=True)
class TextSetting(Setting):
    """The text of the node titled `title`."""

    variable: str
    title: str

    def read(self, text: str) -> str:
        return text

    def default(self, prompt: Prompt) -> str:
        return prompt[find_node(prompt, "text", title=self.title)]["inputs"]["text"]

    def apply(self, value: str, prompt: Prompt, server: Server) -> None:
        set_input(prompt, "text", value, title=self.title)


@dataclass(frozen=True)
class ImageFile:
    """An image file, read and written anew."""

    path: Path
    png: bytes

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class ImageSetting(Setting):
    """An image file: the LoadImage titled `loader` loads it, and the Example Image titled `target` takes that in place of drawing one."""

    variable: str
    loader: str
    target: str

    def read(self, text: str) -> ImageFile:
        path = Path(text).expanduser()
        if not path.is_file():
            raise ValueError(f"{self.variable} is {text!r}, but there is no such file.")
        try:
            # One image as a PNG: LoadImage doesn't read all that Pillow does, and makes a batch of animated ones.
            with Image.open(path) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # as Pillow says it of damaged files
            raise ValueError(f"{self.variable} is {text!r}, which can't be read as an image: {error}") from error
        png = io.BytesIO()
        upright.save(png, "PNG")
        return ImageFile(path, png.getvalue())

    def default(self, prompt: Prompt) -> str:
        drawn = prompt[find_node(prompt, "shape", title=self.target)]["inputs"]
        return f"a {drawn['color']} {drawn['shape']}, drawn"

    def apply(self, value: ImageFile, prompt: Prompt, server: Server) -> None:
        set_input(prompt, "image", server.upload(f"{value.path.stem}.png", value.png), title=self.loader)
        prompt[find_node(prompt, "shape", title=self.target)]["inputs"]["image"] = [find_node(prompt, "image", title=self.loader), 0]


@dataclass(frozen=True)
class Demo:
    """A workflow of the folder `workflows/`, and what of it can be changed from outside."""

    workflow: str
    settings: tuple[Setting, ...]


DEMOS = (
    Demo("text_to_video_turbo.json", (TextSetting("PROMPT", "Prompt"),)),
    Demo("image_to_video.json", (ImageSetting("IMAGE", "Your image", "The image"), TextSetting("MOTION", "Motion"))),
)


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


def read_settings(environment: Mapping[str, str]) -> dict[Setting, Any]:
    """What the environment gives for the settings of all demos. Raises ValueError with the variable that is wrong."""
    settings = [setting for demo in DEMOS for setting in demo.settings]
    return {setting: setting.read(environment[setting.variable]) for setting in settings if environment.get(setting.variable)}


def run(demo: Demo, values: Mapping[Setting, Any], server: Server) -> list[Path]:
    """Runs a demo's workflow with its settings' values, where there are any, and returns the files it saved."""
    path = REPOSITORY / "workflows" / demo.workflow
    prompt = to_prompt(json.loads(path.read_text(encoding="utf-8")), server.object_info())
    values_shown = [f'{setting.variable}="{values.get(setting) or setting.default(prompt)}"' for setting in demo.settings]
    print(f"Running {demo.workflow} with {' and '.join(values_shown)}", flush=True)
    for setting in demo.settings:
        if setting in values:
            setting.apply(values[setting], prompt, server)
    outputs = server.run(prompt, on_progress=ProgressLines(prompt))
    return [server.path(file) for file in files_of(outputs)]


def describe(path: Path) -> str:
    """What is in a video or animated image: frames, size and playback speed."""
    if path.suffix == ".webp":
        with Image.open(path) as image:
            return f"{getattr(image, 'n_frames', 1)} frames of {image.width}x{image.height}"
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        frames = sum(1 for _ in video.decode(stream))
        return f"{frames} frames of {stream.width}x{stream.height} at {float(stream.average_rate):g} per second"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped then, too
    try:
        values = read_settings(os.environ)
    except ValueError as error:
        sys.exit(str(error))
    RESULTS.mkdir(exist_ok=True)
    started = time.monotonic()
    saved: list[Path] = []
    try:
        print("Starting ComfyUI ...", flush=True)
        with running(BASE, output=RESULTS) as server:
            for demo in DEMOS:
                saved += run(demo, values, server)
        if not saved:
            sys.exit(f"The workflows ran, but saved nothing: {', '.join(demo.workflow for demo in DEMOS)}.")
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"The demo failed: {error}\nComfyUI's log: {BASE / LOG_NAME}")
    print(f"Done in {time.monotonic() - started:.0f} s. The results:")
    for path in saved:
        print(f"  {path}  ({describe(path)})")


if __name__ == "__main__":
    main()
