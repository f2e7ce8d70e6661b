"""Makes what the README shows first: three clips, and pictures of the graphs that made them: `python -m dev.showcase`.

The clips are what the workflows save, with the bundled models, four times as large. The graphs are opened in a real browser, and run.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence

from harness.client import files_of
from harness.comfyui import REPOSITORY
from harness.graph import to_prompt
from harness.server import DEFAULT_PACK_NAME, Server, running

from .workflows import FOLDER as WORKFLOWS

FOLDER = REPOSITORY / "docs" / "showcase"
SHOWN = ("text_to_video", "prompt_schedule", "dynamicrafter_interpolation")
CLIP_SCALE, FRAME_TIME = 4, 125  # times as large; milliseconds of a frame
PAGE = {"width": 1280, "height": 800}
GRAPH_WIDTH = 720  # pixels of a graph's picture
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "LiteGraph.Canvas.MinFontSizeForLOD": 0}
#: The first graph stands, so that its loading doesn't replace what is opened.
READY = "window.app?.vueAppReady && window.app.extensionManager.spinner === false && window.app.graph?.nodes.length"
DONE = "Array.from(document.querySelectorAll('video')).some(video => video.videoWidth && video.duration)"


def save_clip(server: Server, name: str) -> None:
    """Run a workflow and save its clip as an animated image that GitHub plays."""
    workflow = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    files = files_of(server.run(to_prompt(workflow, server.object_info())))
    animation = next(file for file in files if file["filename"].endswith(".webp"))
    with Image.open(io.BytesIO(server.view(animation))) as clip:
        size = (clip.width * CLIP_SCALE, clip.height * CLIP_SCALE)
        frames = [frame.convert("RGB").resize(size, Image.Resampling.BICUBIC) for frame in ImageSequence.Iterator(clip)]
    frames[0].save(FOLDER / f"{name}.webp", save_all=True, append_images=frames[1:], duration=FRAME_TIME, loop=0, quality=80, method=6)


def save_graph(page: Any, name: str) -> None:
    """Open a workflow as a template, run it, and save a picture of the page."""
    page.evaluate("window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_role("dialog").get_by_text(DEFAULT_PACK_NAME).first.click()
    page.get_by_test_id(f"template-workflow-{name}").click()
    page.get_by_test_id("template-workflows-content").wait_for(state="detached")
    page.evaluate("window.app.extensionManager.command.execute('Comfy.QueuePrompt')")
    page.wait_for_function(DONE)
    page.wait_for_timeout(8000)  # until the note about the finished run has gone
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        height = round(picture.height * GRAPH_WIDTH / picture.width)
        picture.convert("RGB").resize((GRAPH_WIDTH, height), Image.Resampling.LANCZOS).save(FOLDER / f"{name}_graph.webp", quality=85)


def main() -> int:
    """Write the clips and the pictures of the graphs."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        print("Chromium is needed for the pictures of the graphs: install it, or let CHROMIUM name its path.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as base:
        user = Path(base) / "user" / "default"
        user.mkdir(parents=True)
        (user / "comfy.settings.json").write_text(json.dumps(SETTINGS))
        with running(Path(base)) as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
            for name in SHOWN:
                save_clip(server, name)
                page = browser.new_page(viewport=PAGE)
                page.set_default_timeout(180_000)
                page.goto(server.address)
                page.wait_for_function(READY)
                save_graph(page, name)
                page.close()
                print(f"docs/showcase/{name}.webp, docs/showcase/{name}_graph.webp")
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
