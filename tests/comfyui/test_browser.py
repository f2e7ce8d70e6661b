"""The workflows in the real web interface: opened from the template browser, and run to a video in the page.

This needs Chromium (Debian's, or what `CHROMIUM` names) and Playwright; without them the tests are skipped, which the end of the run
says. `make test` runs one of the workflows, `make test-all` all. Screenshots are left in the folder that ``SCREENSHOTS`` names, else
among pytest's temporary files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness.client import files_of
from harness.comfyui import REPOSITORY
from harness.server import DEFAULT_PACK_NAME, Server, running
from vc_core.checkpoint.convert import CONFIG_KEY
from vc_core.config import to_yaml
from vc_core.family.model_file import ModelFile

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium: install it (apt-get install chromium), or let CHROMIUM name its path"
)

WORKFLOWS = [
    pytest.param(path, id=path.stem, marks=[] if path.stem == "text_to_video" else pytest.mark.full)
    for path in sorted((REPOSITORY / "workflows").glob("*.json"))
]
BLUEPRINTS = [pytest.param(path, id=path.stem) for path in sorted((REPOSITORY / "subgraphs").glob("*.json"))]
#: The interface splits a pack's folder name at its dots, so that help pages are not found under the other tests' one.
PACK_NAME = DEFAULT_PACK_NAME
PAGE = {"width": 1280, "height": 800}
CANVAS = (60, 40, 1280, 800)  # the page's part beside the side bar and below the tabs: left, top, right, bottom
PATIENCE = 180_000  # milliseconds: until the interface stands, and until a graph is done
#: The first graph stands: its loading, which is slow on a busy machine, would replace a graph that is opened before.
READY = "window.app?.vueAppReady && window.app.extensionManager.spinner === false && window.app.graph?.nodes.length"
#: The graphs' own steps are what the other tests and the thumbnails take; here it matters that a video comes of them.
FEWER_STEPS = "window.app.graph.nodes.forEach(node => node.widgets?.forEach(widget => { if (widget.name == 'steps') widget.value = 4 }))"
#: Errors in the console of any page of ComfyUI without a network and without settings.
USUAL = ("Failed to load resource", "ComfyApp graph accessed before initialization")
SETTINGS = {"Comfy.TutorialCompleted": True, "LiteGraph.Canvas.MinFontSizeForLOD": 0}  # no tour, and texts at any zoom


class Interface:
    """A page with ComfyUI's interface, and the errors that it reported."""

    def __init__(self, page: Any, screenshots: Path) -> None:
        self.page, self.screenshots = page, screenshots
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)

    def command(self, name: str) -> None:
        """One of the interface's own commands, as behind its menus."""
        self.page.evaluate("async name => { await window.app.extensionManager.command.execute(name) }", name)

    def nodes(self, what: str) -> list[Any]:
        """Something of every node on the canvas, in JavaScript."""
        return self.page.evaluate(f"window.app.graph.nodes.map(node => ({what}))")

    def setting(self, name: str, value: Any) -> None:
        """One of the interface's settings."""
        self.page.evaluate("([name, value]) => window.app.extensionManager.setting.set(name, value)", [name, value])

    def screenshot(self, name: str) -> None:
        """Keep what is seen."""
        self.page.screenshot(path=self.screenshots / f"{name}.png")

    def unusual(self) -> list[str]:
        """The errors that are not on every page."""
        return [error for error in self.errors if not any(usual in error for usual in USUAL)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("browser")
    user = base / "user" / "default"
    user.mkdir(parents=True)
    (user / "comfy.settings.json").write_text(json.dumps(SETTINGS))
    with running(base, pack_name=PACK_NAME) as server:
        yield server


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    pytestconfig.closing_lines.append(f"Screenshots: {folder}")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox, which root can't have; with WebGL in software, which the canvas may ask for.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        yield browser
        browser.close()


@pytest.fixture
def interface(browser: Any, server: Server, screenshots: Path) -> Iterator[Interface]:
    server.free()  # what is cached of another test's graph is not run, and its nodes show nothing
    page = browser.new_page(viewport=PAGE)
    page.set_default_timeout(PATIENCE)
    page.route(lambda url: not url.startswith((server.address, "blob:", "data:")), lambda route: route.abort())
    interface = Interface(page, screenshots)
    page.goto(server.address)
    page.wait_for_function(READY)
    yield interface
    page.close()


def open_template(interface: Interface, name: str) -> None:
    """Open a workflow as its user does."""
    page = interface.page
    interface.command("Comfy.BrowseTemplates")
    page.get_by_role("dialog").get_by_text(PACK_NAME).first.click()
    card = page.get_by_test_id(f"template-workflow-{name}")
    card.wait_for()
    card.scroll_into_view_if_needed()  # images are loaded where they are seen
    image = card.locator("img").first
    page.wait_for_function("image => image.complete && image.naturalWidth", arg=image.element_handle())
    assert image.evaluate("image => image.naturalWidth") >= 256  # its thumbnail, not the icon of a missing one
    interface.screenshot("templates")
    interface.errors.clear()  # those of the graph that stood there before, whose models aren't there
    card.click()
    page.get_by_test_id("template-workflows-content").wait_for(state="detached")


def place(interface: Interface, name: str) -> None:
    """Search for a node by its name and place it on an empty canvas: a double click, the name, Enter, a click for the place."""
    page = interface.page
    page.evaluate("window.app.graph.clear()")
    for _ in range(10):  # the canvas misses a double click now and then
        page.mouse.dblclick(640, 400)
        page.wait_for_timeout(1000)
        if page.evaluate("document.activeElement.tagName") == "INPUT":
            break
    page.keyboard.type(name)
    page.get_by_text(name).first.wait_for()
    page.wait_for_timeout(1000)  # the list follows what was typed by its own clock
    page.keyboard.press("Enter")
    page.wait_for_timeout(500)
    page.mouse.click(640, 250)
    page.wait_for_function("window.app.graph.nodes.length == 1")


@pytest.mark.parametrize("path", WORKFLOWS)
def test_a_workflow_opens_and_runs_in_the_interface(interface: Interface, server: Server, path: Path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page = interface.page
    assert path.with_suffix(".jpg").is_file()  # its thumbnail
    open_template(interface, path.stem)
    page.wait_for_function("count => window.app.graph.nodes.length == count", arg=len(workflow["nodes"]))
    page.wait_for_timeout(500)  # the canvas draws by its own clock
    assert [box for box in on_screen(interface) if not inside(box, CANVAS)] == []  # the whole graph is seen
    assert page.get_by_test_id("queue-button").is_visible()
    assert sorted(interface.nodes("node.type")) == sorted(node["type"] for node in workflow["nodes"])
    assert not any(interface.nodes("!LiteGraph.registered_node_types[node.type]"))
    assert page.evaluate("window.app.graph.links.size") == len(workflow["links"])
    interface.screenshot(f"{path.stem}_opened")
    assert not page.locator("[data-testid*=missing], [data-testid*=error-overlay]").count()

    page.evaluate(FEWER_STEPS)
    interface.command("Comfy.QueuePrompt")
    if any(node["type"] == "VideoCrafterSaveVideo" for node in workflow["nodes"]):
        page.wait_for_function("Array.from(document.querySelectorAll('video')).some(video => video.videoWidth && video.duration)")
    else:
        page.wait_for_function("window.app.ui.lastQueueSize > 0")
    page.wait_for_function("window.app.ui.lastQueueSize == 0")
    page.wait_for_timeout(500)
    interface.screenshot(f"{path.stem}_done")
    assert not any(interface.nodes("node.has_errors || Boolean(window.app.lastNodeErrors?.[node.id])"))
    assert page.evaluate("window.app.lastExecutionError") is None
    assert interface.unusual() == []
    page.get_by_text(re.compile(r"\((tiny_\w+|\w+_v\d)\)")).first.wait_for(state="attached")  # the loader says which model it was
    boxes = interface.nodes("[node.title, node.pos[0], node.pos[1] - 30, node.pos[0] + node.size[0], node.pos[1] + node.size[1]]")
    assert [pair for pair in pairs(boxes) if overlap(*pair)] == []  # nor by what grew in running


@pytest.mark.full
@pytest.mark.parametrize("renderer", ["canvas", "vue"])
@pytest.mark.parametrize("path", BLUEPRINTS)
def test_a_blueprint_is_placed_and_runs(interface: Interface, server: Server, path: Path, renderer: str):
    """From an empty graph to a clip: :func:`place`, and Run."""
    page = interface.page
    interface.setting("Comfy.VueNodes.Enabled", renderer == "vue")
    place(interface, path.stem)
    assert interface.nodes("node.title") == [path.stem]
    inside = json.loads(path.read_text(encoding="utf-8"))["definitions"]["subgraphs"][0]
    assert page.evaluate("window.app.graph.nodes[0].subgraph.links.size") == len(inside["links"])
    assert page.evaluate("window.app.graph.nodes[0].widgets.map(widget => widget.name)") == [
        each["name"] for each in inside["inputs"] if each["type"] != "IMAGE"
    ]
    page.evaluate("window.app.graph.nodes[0].widgets.find(widget => widget.name == 'steps').value = 2")
    interface.screenshot(f"{path.stem}_{renderer}_placed")
    before = set(server.get("/history"))
    interface.command("Comfy.QueuePrompt")
    assert [file["filename"][-4:] for file in files_of(outputs_after(before, interface, server))] == [".mp4"]
    page.wait_for_timeout(1500)
    interface.screenshot(f"{path.stem}_{renderer}_done")
    assert interface.unusual() == []


def test_every_node_has_a_help_page_in_the_interface(interface: Interface, server: Server):
    ours = [name for name, info in server.object_info().items() if info["python_module"] == f"custom_nodes.{PACK_NAME}"]
    for name in ours:
        page = interface.page.request.get(f"{server.address}/extensions/{PACK_NAME}/docs/{name}.md")
        assert page.ok and page.text().startswith("# "), name


def test_a_model_that_is_missing_is_offered(interface: Interface, server: Server):
    workflow = json.loads((REPOSITORY / "workflows" / "text_to_video.json").read_text(encoding="utf-8"))
    loader = next(node for node in workflow["nodes"] if node["type"] == "VideoCrafterLoader")
    loader["widgets_values"][0] = "videocrafter_t2v_512_v2.ckpt"
    interface.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    interface.page.get_by_text("videocrafter_t2v_512_v2.ckpt").first.wait_for()
    interface.page.wait_for_timeout(500)
    interface.screenshot("missing_model")


#: What the page makes of each format of Save Video: whether Chromium plays it, how it is called when it is dropped, and whether that
#: opens the graph. Browsers play H.265 by the graphics card only, and ComfyUI's page reads neither MKV nor GIF.
FORMATS = {
    "MP4 (H.264)": (True, "video/mp4", True), "MP4 (H.265, 10-bit)": (None, "video/mp4", True), "WebM (VP9)": (True, "video/webm", True),
    "WebM (AV1)": (True, "video/webm", True), "MOV (ProRes 422 HQ)": (False, "video/quicktime", True),
    "MKV (FFV1, lossless)": (False, "video/x-matroska", False), "WebP": (True, "image/webp", True), "GIF": (True, "image/gif", False),
    "PNG frames": (True, "image/png", True),
}
COLOUR = 0xA06040  # little blue: Chromium computes it with too small a factor (2.0 for 2.112)
#: A note of 300 KB, of what metadata stumble over.
NOTE = "one\ntwo; # = \\ \" ' {{ } \U0001f3ac 红色的圆 " + "{x; " * 75_000
PLAY = """async ([url, isVideo]) => {
  const shown = document.createElement(isVideo ? 'video' : 'img')
  const loaded = new Promise(done => {
    shown.addEventListener(isVideo ? 'loadeddata' : 'load', () => done(true)); shown.addEventListener('error', () => done(false))
  })
  shown.src = url
  if (!await loaded) return null
  if (isVideo) {
    const sought = new Promise(done => shown.addEventListener('seeked', done))
    shown.currentTime = 0.6
    await sought
  }
  const canvas = document.createElement('canvas')
  const width = canvas.width = shown.videoWidth || shown.naturalWidth, height = canvas.height = shown.videoHeight || shown.naturalHeight
  const context = canvas.getContext('2d')
  context.drawImage(shown, 0, 0)
  return {width, height, seconds: shown.duration ?? 0, colour: Array.from(context.getImageData(width / 2, height / 2, 1, 1).data)}
}"""
DROP = """async ([url, name, type]) => {
  const data = new DataTransfer()
  data.items.add(new File([await (await fetch(url)).blob()], name, {type}))
  document.getElementById('graph-canvas').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))
}"""


def noted_workflow(title: str) -> dict[str, Any]:
    """A graph as the interface saves it: an image, Save Video, and a long note."""
    links = [[1, 1, 0, 2, 0, "IMAGE"]]
    return {
        "nodes": [
            {"id": 1, "type": "EmptyImage", "pos": [0, 0], "size": [300, 130], "order": 0, "mode": 0, "inputs": [],
             "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}], "widgets_values": [64, 48, 8, COLOUR]},
            {"id": 2, "type": "VideoCrafterSaveVideo", "pos": [400, 0], "size": [300, 400], "order": 1, "mode": 0,
             "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": [],
             "widgets_values": ["dropped/clip", 8, 10, title, 2]},
            {"id": 3, "type": "Note", "pos": [0, 300], "size": [300, 300], "order": 2, "mode": 0, "inputs": [], "outputs": [],
             "widgets_values": [NOTE]},
        ],
        "links": links, "groups": [], "version": 0.4, "last_node_id": 3, "last_link_id": 1,
    }


@pytest.mark.parametrize("title", [pytest.param(title, marks=[] if title == "MP4 (H.264)" else pytest.mark.full)
                                   for title in FORMATS])
def test_a_saved_file_plays_in_the_page_and_opens_by_dropping_it(interface: Interface, server: Server, title: str, record_property: Any):
    plays, kind, opens = FORMATS[title]
    page = interface.page
    workflow = noted_workflow(title)
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    page.wait_for_function("window.app.graph.nodes.length == 3")
    interface.command("Comfy.QueuePrompt")
    page.wait_for_function("Object.keys(window.app.nodeOutputs ?? {}).length || window.app.lastExecutionError")
    page.wait_for_function("window.app.ui.lastQueueSize == 0")
    output = next(iter(page.evaluate("window.app.nodeOutputs").values()))
    shown, saved = output["images"][0], output.get("files", output["images"])[0]
    address = f"{server.address}/view?filename={saved['filename']}&subfolder={saved['subfolder']}&type={saved['type']}"
    found = page.evaluate(PLAY, [address, kind.startswith("video/")])
    record_property("plays", found)
    assert plays is None or (found is not None) == plays
    if found is not None:
        assert (found["width"], found["height"]) == (64, 48)
        assert max(abs(one - other) for one, other in zip(found["colour"], (0xA0, 0x60, 0x40), strict=False)) <= 6
        if kind.startswith("video/"):
            assert found["seconds"] == pytest.approx(2, abs=0.02)
    assert page.evaluate(PLAY, [address.replace(saved["filename"], shown["filename"]).replace(saved["type"], shown["type"])
                                .replace(f"subfolder={saved['subfolder']}", f"subfolder={shown['subfolder']}"),
                                not shown["filename"].endswith((".png", ".gif", ".webp"))])  # what the node shows, in any case
    interface.screenshot(f"saved_{kind.replace('/', '_')}_{title[:12]}")

    page.evaluate("window.app.graph.clear()")
    page.evaluate(DROP, [address, saved["filename"], kind])
    if opens:
        page.wait_for_function("window.app.graph.nodes.length == 3")
        assert sorted(interface.nodes("node.type")) == ["EmptyImage", "Note", "VideoCrafterSaveVideo"]
        assert interface.nodes("node.type == 'Note' ? node.widgets[0].value : ''").count(NOTE) == 1
    else:
        page.wait_for_timeout(2000)
        assert not [kind for kind in interface.nodes("node.type") if kind == "VideoCrafterSaveVideo"]


ATTACK = "<img src=x onerror='window.attacked = true'>"


@pytest.mark.parametrize("place", [pytest.param("title", marks=pytest.mark.full), "tensor"])
def test_a_stranger_s_file_puts_no_script_into_the_page(interface: Interface, server: Server, place: str):
    """By its title, which the loader shows, or by a tensor's name in an error."""
    file = ModelFile.open("videocrafter_tiny_t2v")
    tensors = {prefix + name: tensor for part, prefix in file.parts.items() for name, tensor in file.tensors(part).items()}
    text = to_yaml(replace(file.config, title=ATTACK) if place == "title" else file.config)
    if place == "tensor":
        tensors["model.diffusion_model." + ATTACK] = torch.zeros(1)
    save_file(tensors, server.checkpoints / f"{place}.safetensors", {CONFIG_KEY: text})
    workflow = json.loads((REPOSITORY / "workflows" / "text_to_video.json").read_text(encoding="utf-8"))
    loader = next(node for node in workflow["nodes"] if node["type"] == "VideoCrafterLoader")
    loader["widgets_values"][0] = f"{place}.safetensors"
    page = interface.page
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    page.evaluate(FEWER_STEPS)
    interface.command("Comfy.QueuePrompt")
    if place == "title":
        page.get_by_text("(tiny_t2v)").first.wait_for()
    else:
        page.wait_for_function("window.app.lastExecutionError?.exception_message.includes('onerror')")
    page.wait_for_timeout(1000)
    interface.screenshot(f"attack_by_{place}")
    assert page.evaluate("window.attacked") is None and not page.locator("img[src=x]").count()


def on_screen(interface: Interface) -> list[list[Any]]:
    """The nodes' boxes [title, left, top, right, bottom] in pixels of the page."""
    return interface.nodes(
        "(([x, y], [right, bottom]) => [node.title, x, y, right, bottom])"
        "(...[[0, -30], node.size].map(([a, b]) => window.app.canvas.ds.convertOffsetToCanvas([node.pos[0] + a, node.pos[1] + b])))"
    )


def inside(box: list[Any], outer: tuple[float, float, float, float]) -> bool:
    """Whether a box [title, left, top, right, bottom] lies in another one."""
    return box[1] >= outer[0] and box[2] >= outer[1] and box[3] <= outer[2] and box[4] <= outer[3]


def outputs_after(before: set[str], interface: Interface, server: Server) -> Any:
    """What the first run that isn't among those `before` has made; it must end well."""
    for _ in range(PATIENCE // 500):
        for number, run in server.get("/history").items():
            if number not in before:
                assert run["status"]["status_str"] == "success", run["status"]
                return run["outputs"]
        interface.page.wait_for_timeout(500)
    raise AssertionError("The run didn't end.")


def pairs(boxes: list[list[Any]]) -> Iterator[tuple[list[Any], list[Any]]]:
    """Each box with each later one."""
    for index, box in enumerate(boxes):
        for other in boxes[index + 1 :]:
            yield box, other


def overlap(one: list[Any], other: list[Any]) -> bool:
    """Whether two boxes [title, left, top, right, bottom] share any place."""
    (_, left, top, right, bottom), (_, *that) = one, other
    return left < that[2] and that[0] < right and top < that[3] and that[1] < bottom
