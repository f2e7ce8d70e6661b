"""The drawing widget of VideoCrafter Draw Trajectory in the real web interface, in both of its renderers.

What it needs, and where its screenshots are left, is as for ``test_browser.py``.
"""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from PIL import Image

from harness.server import DEFAULT_PACK_NAME, Server
from vc_core.control.drawn import read_tracks

from .test_browser import DROP, READY, Interface, browser, interface, outputs_after, screenshots, server

__all__ = ["browser", "interface", "screenshots", "server"]  # fixtures
SIZE, LENGTH = (512, 320), 16
NODE = "window.app.graph.nodes.find(node => node.type == 'VideoCrafterDrawTrajectory')"
TEXT = f"{NODE}.widgets.find(widget => widget.name == 'paths').value"
RENDERERS = ["canvas", pytest.param("vue", marks=pytest.mark.full)]


class Drawing:
    """The drawing area of the node, used as its user does."""

    def __init__(self, interface: Interface) -> None:
        self.interface, self.page = interface, interface.page
        self.area = self.page.locator(".vc-draw-area").first
        self.area.wait_for()

    @property
    def paths(self) -> list[dict[str, Any]]:
        """What is stored in the graph."""
        return json.loads(self.page.evaluate(TEXT) or "[]")

    @property
    def points(self) -> list[list[tuple[float, float]]]:
        """The points of each path."""
        return [[(point["x"], point["y"]) for point in path["points"]] for path in self.paths]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The place of the page at which a place of the picture is."""
        box = self.area.bounding_box()
        width, height = self.area.evaluate("area => [area.clientWidth, area.clientHeight]")
        scale = min((width - 44) / SIZE[0], (height - 44) / SIZE[1])
        left, top = (width - SIZE[0] * scale) / 2, (height - SIZE[1] * scale) / 2
        zoom = box["width"] / width
        return box["x"] + (left + x * scale) * zoom, box["y"] + (top + y * scale) * zoom

    def colour(self, x: float, y: float) -> list[int]:
        """What is seen at a place of the picture: red, green, blue."""
        box, (left, top) = self.area.bounding_box(), self.at(x, y)
        shares = [(left - box["x"]) / box["width"], (top - box["y"]) / box["height"]]
        return self.area.evaluate(
            """(area, [x, y]) => {
              const draw = area.getContext('2d')
              return Array.from(draw.getImageData(Math.round(x * area.width), Math.round(y * area.height), 1, 1).data).slice(0, 3)
            }""", shares,
        )

    def click(self, x: float, y: float, **options: Any) -> None:
        self.page.mouse.click(*self.at(x, y), **options)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=4)
        self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.area.press(key)

    def button(self, name: str) -> Any:
        return self.page.locator(f".vc-draw button[data-name={name}]").first

    def field(self, name: str) -> Any:
        return self.page.locator(f".vc-draw [aria-label='{name}']").first


def near(found: list[tuple[float, float]], wanted: list[tuple[float, float]]) -> bool:
    """Whether places are the same to 2 pixels of the picture, which are about 1 of the screen."""
    return len(found) == len(wanted) and all(max(abs(a - c), abs(b - d)) <= 2 for (a, b), (c, d) in zip(found, wanted, strict=True))


def graph() -> dict[str, Any]:
    """An image, the drawing node, and the picture of what was drawn, which is saved with the graph in it."""
    def node(number: int, kind: str, place: tuple[int, int], values: list[Any], inputs: list[Any], outputs: list[Any]) -> dict[str, Any]:
        return {"id": number, "type": kind, "pos": list(place), "size": [440, 100], "order": number, "mode": 0, "inputs": inputs,
                "outputs": outputs, "properties": {"Node name for S&R": kind}, "widgets_values": values}

    links = [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 1, "TRACKS"], [3, 1, 0, 3, 0, "IMAGE"], [4, 3, 0, 4, 0, "IMAGE"]]
    nodes = [
        node(1, "EmptyImage", (0, 0), [*SIZE, 1, 0x204060], [], [{"name": "IMAGE", "type": "IMAGE", "links": [1, 3]}]),
        node(2, "VideoCrafterDrawTrajectory", (460, 0), [*SIZE, LENGTH, ""],
             [{"name": "image", "type": "IMAGE", "link": 1}, {"name": "mask", "type": "MASK", "link": None}],
             [{"name": "tracks", "type": "TRACKS", "links": [2]}, {"name": "coordinates", "type": "STRING", "links": None},
              {"name": "boxes", "type": "MASK", "links": None}]),
        node(3, "VideoCrafterShowMotion", (900, 0), [0, 1.0],
             [{"name": "images", "type": "IMAGE", "link": 3}, {"name": "tracks", "type": "TRACKS", "link": 2},
              {"name": "camera", "type": "VC_CAMERA", "link": None}], [{"name": "pictures", "type": "IMAGE", "links": [4]}]),
        node(4, "SaveImage", (900, 200), ["drawn"], [{"name": "images", "type": "IMAGE", "link": 4}], []),
    ]
    return {"nodes": nodes, "links": links, "groups": [], "version": 0.4, "last_node_id": 4, "last_link_id": 4}


def opened(interface: Interface, renderer: str, workflow: dict[str, Any]) -> Drawing:
    """The graph in a renderer."""
    interface.setting("Comfy.VueNodes.Enabled", renderer == "vue")
    interface.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    interface.page.wait_for_function(f"window.app.graph.nodes.length == {len(workflow['nodes'])}")
    interface.page.evaluate("Object.assign(window.app.canvas.ds, {offset: [-390, 90], scale: 0.9}); window.app.canvas.setDirty(true, true)")
    interface.page.wait_for_timeout(1000)
    interface.errors.clear()
    return Drawing(interface)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_draw_move_undo_reload_save_drop_and_run(interface: Interface, server: Server, renderer: str):
    drawing, page = opened(interface, renderer, graph()), interface.page
    for place in ((60, 60), (200, 250), (450, 80)):
        drawing.click(*place)
    assert near(drawing.points[0], [(60, 60), (200, 250), (450, 80)])
    drawing.drag((200, 250), (260, 200))
    assert near(drawing.points[0], [(60, 60), (260, 200), (450, 80)])
    drawing.press("Control+z")
    assert near(drawing.points[0], [(60, 60), (200, 250), (450, 80)])
    drawing.press("Control+Shift+z")
    assert near(drawing.points[0], [(60, 60), (260, 200), (450, 80)])
    assert len(interface.nodes("node.id")) == 4  # the graph's own undo did nothing
    drawing.button("box").click()
    drawing.button("still").click()
    assert near(drawing.points[1], [(256, 160)]) and drawing.paths[1]["isSinglePoint"] and drawing.paths[0]["box"] == [128, 80]
    page.wait_for_timeout(300)
    interface.screenshot(f"drawing_{renderer}")
    kept = drawing.paths

    page.wait_for_timeout(1500)  # the page keeps the graph by its own clock
    page.reload()
    page.wait_for_function(READY)
    page.wait_for_timeout(1500)
    again = Drawing(interface)
    assert again.paths == kept
    before = set(server.get("/history"))
    interface.command("Comfy.QueuePrompt")
    file, *others = outputs_after(before, interface, server)["4"]["images"]
    assert len(others) == LENGTH - 1
    page.wait_for_timeout(800)
    interface.screenshot(f"drawing_{renderer}_done")
    assert again.colour(20, 300) == [0x20, 0x40, 0x60]  # the image lies behind what is drawn

    address = f"{server.address}/view?filename={file['filename']}&subfolder={file['subfolder']}&type={file['type']}"
    page.evaluate("window.app.graph.clear()")
    page.evaluate(DROP, [address, file["filename"], "image/png"])
    page.wait_for_function("window.app.graph.nodes.length == 4")
    page.wait_for_timeout(500)
    assert Drawing(interface).paths == kept
    assert interface.unusual() == []


def places(interface: Interface, server: Server, text: str, size: tuple[int, int] = SIZE, length: int = LENGTH) -> list[Any]:
    """Where the page's own code has the points of a text in each frame."""
    module = f"{server.address}/extensions/{DEFAULT_PACK_NAME}/js/paths.js"
    return interface.page.evaluate(
        """async ([module, text, canvas]) => {
          const {readPaths, samplePath} = await import(module)
          return readPaths(text, canvas).map(path => samplePath(path, canvas.frames))
        }""", [module, text, {"width": size[0], "height": size[1], "frames": length}],
    )


@pytest.mark.full
def test_the_pointer_touch_the_keyboard_and_other_programs_text(interface: Interface, server: Server):
    picture = io.BytesIO()
    Image.new("RGB", (300, 300), (200, 30, 40)).save(picture, "PNG")
    server.upload("red.png", picture.getvalue())
    drawing, page = opened(interface, "canvas", graph()), interface.page
    page.evaluate(f"""() => {{
      const image = window.LiteGraph.createNode('LoadImage')
      window.app.graph.add(image)
      image.widgets.find(widget => widget.name == 'image').value = 'red.png'
      image.connect(0, {NODE}, 0)
    }}""")
    page.wait_for_timeout(1500)
    assert drawing.colour(20, 300) == [200, 30, 40]  # a chosen file is shown before anything has run
    drawing.drag((100, 100), (900, 100))  # pressed in the picture, released far outside the node
    [[(x, y)]] = drawing.points
    assert x > 600 and abs(y - 100) <= 2  # it stays outside the picture
    page.mouse.move(*drawing.at(300, 300), steps=3)
    assert drawing.points == [[(x, y)]]  # and follows no pointer without a button
    page.mouse.move(*drawing.at(50, 50))
    page.mouse.down()
    page.evaluate("window.dispatchEvent(new Event('blur'))")  # the window loses the focus
    page.mouse.move(*drawing.at(300, 300), steps=3)
    page.mouse.up()
    assert near(drawing.points[0][1:], [(50, 50)])

    session = page.context.new_cdp_session(page)
    session.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    for kind, places_touched in (("touchStart", [(50, 50)]), ("touchMove", [(80, 90)]), ("touchMove", [(90, 100)]), ("touchEnd", [])):
        touched = [dict(zip("xy", drawing.at(*place), strict=True)) for place in places_touched]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})
    page.wait_for_timeout(200)
    assert near(drawing.points[0][1:], [(90, 100)])

    drawing.press("n", "Enter", "ArrowLeft", "Shift+ArrowUp", "Enter", "b", "s", "Home", "ArrowDown")
    assert drawing.points[1] == [(255, 150), (319, 151)] and drawing.paths[1]["box"] == [128, 80] and drawing.paths[1]["curve"] == "smooth"
    drawing.press(",", "k")
    assert drawing.paths[1]["points"][0] == {"x": 255, "y": 150, "frame": 0}
    drawing.field("then").select_option("ease in and out")
    drawing.field("at frame").fill("4")
    drawing.field("at frame").press("Tab")
    assert drawing.paths[1]["points"][0] == {"x": 255, "y": 150, "frame": 4, "ease": "ease in and out"}
    text = page.evaluate(TEXT)
    ours = torch.tensor(places(interface, server, text))
    assert (ours - read_tracks(text, SIZE, LENGTH).points).abs().max() < 1e-3
    smooth = '[{"points":[{"x":10,"y":20,"frame":3},{"x":100,"y":50,"frame":9,"ease":"ease in"},{"x":40,"y":60}],"curve":"smooth"}]'
    paths = json.loads(smooth)
    paths[0]["canvas"] = {"width": 128, "height": 64, "frames": 13}
    text = json.dumps(paths)
    scaled = torch.tensor(places(interface, server, text, SIZE, 25))
    assert (scaled - read_tracks(text, SIZE, 25).points).abs().max() < 1e-3
    drawing.press("PageUp", "Delete", "Shift+Delete")
    assert len(drawing.paths) == 1
    drawing.button("play").click()
    page.wait_for_timeout(700)
    assert int(drawing.field("frame").input_value()) > 0
    drawing.button("play").click()

    editor = '[{"points":[{"x":0,"y":320},{"x":205,"y":180},{"x":512,"y":0}],"color":"#1f77b4","name":"Spline 1"}]'
    for pasted, count in ((editor, 3), (json.dumps([[number / 2, 50] for number in range(1000)]), 1000), ("[{", 0)):
        drawing.button("text").click()
        page.locator(".vc-draw textarea").fill(pasted)
        drawing.button("text").click()
        assert page.evaluate(TEXT) == pasted  # it is not changed before something is drawn
        assert len(pasted) < 9 or near([tuple(each) for each in places(interface, server, pasted)[0][::15]],
                                       read_tracks(pasted, SIZE, LENGTH).points[0, ::15].tolist())
        if count == 1000:
            interface.screenshot("drawing_1000")
    assert "can't be read" in page.locator(".vc-draw-told").inner_text()
    drawing.press("Control+z", "Control+z")
    page.wait_for_timeout(300)
    assert page.evaluate(TEXT) == editor
    drawing.drag((205, 180), (205, 100))
    assert near(drawing.points[0], [(0, 320), (205, 100), (512, 0)])
    assert set(drawing.paths[0]) >= {"points", "color", "name"} and drawing.paths[0]["name"] == "Spline 1"  # what KJNodes' editor reads
    assert interface.unusual() == []
