"""The example of a web page on Ray Serve, as its user starts it, and the script that queues prompts at ComfyUI."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from harness.comfyui import REPOSITORY
from harness.server import free_port
from serving import queue_prompts
from vc_core.media.video import read_video

SMALL = {"steps": 1, "frames": 2, "height": 16, "width": 16}
GRAPH = {
    "1": {"class_type": "VideoCrafterLoader", "inputs": {"ckpt_name": "x"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["1", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
    "8": {"class_type": "VideoCrafterConditioning", "inputs": {"positive": ["6", 0], "negative": ["7", 0], "fps": 8}},
    "3": {"class_type": "VideoCrafterSampler", "inputs": {"seed": 5, "positive": ["8", 0], "negative": ["8", 1]}},
}


def test_the_prompt_and_the_seed_of_a_graph_are_found():
    assert queue_prompts.positive_text(GRAPH) == "6.text"
    assert queue_prompts.seed_input(GRAPH) == "3.seed"
    inputs, name = queue_prompts.input_of(GRAPH, "6.text")
    assert inputs[name] == "a cat"
    with pytest.raises(SystemExit, match="no input 6.seed; there is .*3.seed"):
        queue_prompts.input_of(GRAPH, "6.seed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running example with a queue of 1 behind its replica."""
    pytest.importorskip("ray.serve")
    base, port = tmp_path_factory.mktemp("serving"), free_port()
    config = base / "config.yaml"
    application = "{name: app, route_prefix: /, import_path: 'serving.app:app'}"
    config.write_text(f"http_options: {{host: 127.0.0.1, port: {port}}}\napplications:\n- {application}\n")
    variables = {**os.environ, "FOLDER": str(base / "clips"), "WAITING": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    command = [str(Path(sys.executable).with_name("serve")), "run", "--app-dir", str(REPOSITORY), str(config)]
    with (base / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=variables, stdout=log, stderr=log, start_new_session=True)
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 600
    try:
        while True:
            try:
                if requests.get(address + "/health", timeout=10).ok:
                    break
            except requests.RequestException:
                pass
            assert process.poll() is None and time.monotonic() < until, (base / "log").read_text()[-3000:]
            time.sleep(1)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait(address: str, name: str) -> dict[str, object]:
    while (answer := requests.get(f"{address}/clips/{name}", timeout=60).json())["status"] == "waiting":
        time.sleep(0.2)
    return answer


@pytest.mark.full
def test_a_prompt_becomes_a_clip(page, tmp_path):
    name = requests.post(page + "/clips", json={"prompt": "a red circle moving right", **SMALL}, timeout=60).json()["id"]
    assert wait(page, name) == {"status": "done", "error": "", "before": 0}
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(requests.get(f"{page}/clips/{name}.mp4", timeout=60).content)
    assert list(read_video(clip).shape) == [3, 2, 16, 16]
    health = requests.get(page + "/health", timeout=60).json()
    assert health == {"status": "ok", "model": "videocrafter_tiny_t2v", "replicas": 1, "waiting": 0}


@pytest.mark.full
def test_what_is_wrong_is_said(page):
    refused = requests.post(page + "/clips", json={"prompt": "a cat", **SMALL, "steps": 0}, timeout=60)
    assert refused.status_code == 422 and "steps" in refused.text
    name = requests.post(page + "/clips", json={"prompt": "a cat", **SMALL, "height": 20}, timeout=60).json()["id"]
    assert "height is 20; it must be a multiple of 8" in wait(page, name)["error"]
    assert requests.get(page + "/clips/nothing", timeout=60).status_code == 404


@pytest.mark.full
def test_a_full_queue_refuses(page):
    """One that is made and one that waits; all that were taken are made."""
    answers = [requests.post(page + "/clips", json={"prompt": "a cat", **SMALL, "steps": 25}, timeout=60) for _ in range(4)]
    taken = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    assert [answer.status_code for answer in answers].count(503) >= 1 and len(taken) >= 2
    assert all(wait(page, name)["status"] == "done" for name in taken)


@pytest.mark.full
def test_the_page_in_a_browser(page):
    from playwright.sync_api import sync_playwright

    from tests.comfyui.test_browser import CHROMIUM

    if CHROMIUM is None:
        pytest.skip("there is no Chromium: set CHROMIUM, or put chromium on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(page)
        tab.fill("textarea", "a blue square moving up")
        tab.fill("input[name=steps]", "1")
        tab.fill("input[name=frames]", "4")
        tab.click("button")
        tab.wait_for_selector("video", timeout=300_000)
        tab.wait_for_function("document.querySelector('video').videoWidth == 64")
        if folder := os.environ.get("SCREENSHOTS"):
            tab.screenshot(path=Path(folder) / "serving.png")
        browser.close()
