"""Makes the images that the template browser shows of each workflow: `python -m dev.thumbnails`.

Each is four frames of what the workflow makes, side by side in a square.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageSequence

from harness.client import files_of
from harness.graph import to_prompt
from harness.server import Server, running

from .workflows import FOLDER

SIDE = 512


def thumbnail(server: Server, workflow: Path) -> Image.Image:
    """Run a workflow and lay four of its frames out as two by two."""
    files = files_of(server.run(to_prompt(json.loads(workflow.read_text()), server.object_info())))
    animation = next(file for file in files if file["filename"].endswith(".webp"))
    with Image.open(io.BytesIO(server.view(animation))) as clip:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(clip)]
    sheet = Image.new("RGB", (SIDE, SIDE))
    half = SIDE // 2
    for place in range(4):
        frame = frames[place * (len(frames) - 1) // 3].resize((half, half), Image.Resampling.BICUBIC)
        sheet.paste(frame, (place % 2 * half, place // 2 * half))
    return sheet


def main() -> None:
    """Write ``NAME.jpg`` beside each ``NAME.json``, or beside those whose names are given."""
    chosen = sys.argv[1:]
    with tempfile.TemporaryDirectory() as base, running(Path(base)) as server:
        for workflow in [FOLDER / f"{name}.json" for name in chosen] or sorted(FOLDER.glob("*.json")):
            target = workflow.with_suffix(".jpg")
            thumbnail(server, workflow).save(target, quality=90)
            print(target.relative_to(FOLDER.parent))


if __name__ == "__main__":
    main()
