"""The nodes for motion in a real ComfyUI: cameras, drawn trajectories, and the pictures of both."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from harness.graphs import Graph, assert_fails, out
from harness.server import Server
from vc_core.control.cameras import camera_path
from vc_core.control.pictures import GROUND, MotionPicture
from vc_core.control.pose_files import read_poses

WIDTH, HEIGHT, LENGTH = 64, 48, 16
PATH = '[{"points": [{"x": 8, "y": 8}, {"x": 56, "y": 40}], "box": [16, 8]}]'
LINE = "{} 0.5 0.9 0.5 0.5 0 0 1 0 0 {} 0 1 0 0 0 0 1 0"


def drawn(graph: Graph, paths: object = PATH, **changes: object) -> str:
    return graph.add("VideoCrafterDrawTrajectory", **({"width": WIDTH, "height": HEIGHT, "length": LENGTH, "paths": paths} | changes))


def camera(graph: Graph, **changes: object) -> str:
    settings = {"move": "pan left", "with_move": "none", "length": LENGTH, "speed": 1.0, "easing": "linear"}
    return graph.add("VideoCrafterCamera", **(settings | changes))


def shown(graph: Graph, **inputs: object) -> list[object]:
    return out(graph.add("VideoCrafterShowMotion", **({"trail": 0, "opacity": 1.0} | inputs)))


def points_of(comfyui: Server, paths: object = PATH, **changes: object) -> torch.Tensor:
    """The node's output of coordinates, ``[N, T, 2]``."""
    graph = Graph()
    preview = graph.add("PreviewAny", source=out(drawn(graph, paths, **changes), 1))
    [text] = comfyui.run(graph.prompt)[preview]["text"]
    return torch.tensor([[[point["x"], point["y"]] for point in path] for path in json.loads(text)])


def images_of(comfyui: Server, graph: Graph, **images: object) -> dict[str, torch.Tensor]:
    """Several images of one run."""
    for name, image in images.items():
        graph.add("TestSave", file=f"{name}.safetensors", image=image)
    comfyui.run(graph.prompt)
    return {name: load_file(comfyui.base / "output" / f"{name}.safetensors")["image"] for name in images}


def line(start: tuple[float, float], end: tuple[float, float]) -> torch.Tensor:
    return torch.stack([torch.linspace(one, other, LENGTH) for one, other in zip(start, end, strict=True)], -1)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        pytest.param(PATH, line((8, 8), (56, 40)), id="drawn"),
        pytest.param('[{"x": -20, "y": 600}, {"x": 131, "y": 20}]', line((-20, 600), (131, 20)), id="outside the picture"),
        pytest.param('[{"x": 5, "y": 6}]', line((5, 6), (5, 6)), id="one point"),
        pytest.param(json.dumps([[number / 20, 9] for number in range(1000)]), line((0, 9), (49.95, 9)), id="1,000 points"),
        pytest.param(json.dumps([[number, 9] for number in range(49)]), line((0, 9), (48, 9)), id="another length than the video"),
    ],
)
def test_paths(comfyui, paths, expected):
    assert (points_of(comfyui, paths) - expected).abs().max() < 2e-3


def test_what_is_drawn_scales_with_size_and_length(comfyui):
    canvas = {"width": 32, "height": 24, "frames": 4}
    paths = json.dumps([{"points": [{"x": 4, "y": 4}, {"x": 28, "y": 20, "frame": 3}], "canvas": canvas}])
    assert (points_of(comfyui, paths) - line((8, 8), (56, 40))).abs().max() < 2e-3


def test_what_can_t_be_read_is_an_error_of_the_node(comfyui):
    for paths, part in {"": "There is no trajectory. Draw one", "[{": "can't be read", '[{"x": 1}]': "Point 0 of a path"}.items():
        graph = Graph()
        graph.add("PreviewAny", source=out(drawn(graph, paths)))
        assert_fails(comfyui, graph, "VideoCrafterDrawTrajectory", part)
    for changes, part in {"words": "'fly' is not known", "poses": "Line 2 of the camera file has 3 numbers"}.items():
        graph = Graph()
        text = {"words": "fly", "poses": f"{LINE.format(0, 0)}\n1 2 3"}[changes]
        graph.add("PreviewAny", source=out(camera(graph, **{changes: text})))
        assert_fails(comfyui, graph, "VideoCrafterCamera", part)
    graph = Graph()
    graph.add("PreviewAny", source=shown(graph))
    assert_fails(comfyui, graph, "VideoCrafterShowMotion", "nothing to draw")


def test_boxes_and_masks(comfyui):
    """The boxes of a drawn path, and a mask that becomes a track, are where they were."""
    graph = Graph()
    first = drawn(graph)
    again = drawn(graph, "", mask=out(first, 2), width=2 * WIDTH)
    images = {name: out(graph.add("MaskToImage", mask=out(node, 2))) for name, node in (("first", first), ("again", again))}
    boxes = images_of(comfyui, graph, **images)
    assert boxes["first"].shape == (LENGTH, HEIGHT, WIDTH, 3) and boxes["first"][:, :, :, 0].sum((1, 2)).tolist() == [16 * 8] * LENGTH
    assert boxes["first"][0, 4:12, 0:16].all() and boxes["first"][-1, 36:44, 48:64].all()
    assert torch.equal(boxes["again"][:, :, ::2], boxes["first"])


def test_pictures_are_the_core_s(comfyui):
    """Of moves, and of a file with 3 poses for 16 frames."""
    poses = f"https://example.com\n{LINE.format(0, 0)}\n{LINE.format(1, 1)}\n{LINE.format(2, 5)}"
    graph = Graph()
    moves = shown(graph, camera=out(camera(graph, with_move="zoom in", easing="ease out")))
    file = shown(graph, camera=out(camera(graph, poses=poses)))
    words = shown(graph, camera=out(camera(graph, words="roll left then still")), tracks=out(drawn(graph)))
    results = images_of(comfyui, graph, moves=moves, file=file, words=words)
    ground = (torch.tensor(GROUND) / 255).expand(LENGTH, 320, 512, 3)
    expected = MotionPicture(camera=camera_path("pan left, zoom in", LENGTH, easing="ease out")).over(ground)
    assert (results["moves"] - expected).abs().max() < 1e-6
    path = read_poses(poses).resampled(LENGTH)
    assert path.poses[-1, 0, 3] == 5 and (results["file"] - MotionPicture(camera=path).over(ground)).abs().max() < 1e-6
    assert results["words"].shape == (LENGTH, HEIGHT, WIDTH, 3)


def test_core_s_nodes_take_the_tracks(comfyui):
    """And ours take core's, which ``WanMoveTracksFromCoords`` makes of our coordinates."""
    graph = Graph()
    node = drawn(graph)
    if "WanMoveTracksFromCoords" not in comfyui.object_info():
        pytest.skip("this ComfyUI has no node for tracks")
    core = out(graph.add("WanMoveTracksFromCoords", track_coords=out(node, 1)))
    image = out(graph.add("EmptyImage", width=WIDTH, height=HEIGHT, batch_size=LENGTH, color=0))
    look = {"line_resolution": 24, "circle_size": 2, "opacity": 1.0, "line_width": 2}
    theirs = out(graph.add("WanMoveVisualizeTracks", images=image, tracks=out(node), **look))
    results = images_of(comfyui, graph, ours=shown(graph, tracks=core, images=image), theirs=theirs)
    place = results["theirs"][-1].sum(-1).amax()
    assert results["theirs"].shape == (LENGTH, HEIGHT, WIDTH, 3) and place > 0.5
    lit = results["ours"][-1].sum(-1) > 0.5
    assert lit[38:43, 54:59].any() and not lit[:6].any()
