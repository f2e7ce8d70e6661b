"""The nodes that evaluate videos give what the core gives for the same frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from harness import goldens
from harness.client import Interrupted, Progress
from harness.graphs import Graph, assert_fails, out
from harness.server import Server
from tests.evaluation_clips import damaged, drawn
from vc_core.evaluation.clip import Clip
from vc_core.evaluation.evaluator import evaluate, title
from vc_core.evaluation.measures import chosen
from vc_core.evaluation.tools import Tools, flow_of
from vc_core.evaluation.towers import model_tower

NAME = "i2v_512_v1"
SETTINGS = {"prompt": "a red circle", "fps": 8.0, "measures": "fast"}


def stored(comfyui: Server, graph: Graph, clip: Clip, file: str) -> list[object]:
    """The frames of a clip as an IMAGE."""
    save_file({"image": torch.from_numpy(clip.pixels).float() / 255}, comfyui.base / "input" / file)
    return out(graph.add("TestImage", file=file))


def cells(table: str, column: int = 0) -> dict[str, float]:
    """The values of a Markdown table by their titles."""
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:] if line.startswith("|")]
    return {row[0]: float(row[1 + column]) for row in rows}


def test_the_measures_are_the_core_s(comfyui: Server, checkpoints: Path) -> None:
    path = goldens.write_checkpoint(NAME, checkpoints / f"{NAME}.safetensors")
    good = drawn(1)[0]
    bad = damaged(good, "noise", 0.5)
    graph = Graph()
    loader = graph.add("VideoCrafterLoader", ckpt_name=f"{NAME}.safetensors", weight_dtype="default")
    images = [stored(comfyui, graph, clip, f"clip{index}.st") for index, clip in enumerate((good, bad))]
    source = out(graph.add("ImageFromBatch", image=images[0], batch_index=0, length=1))
    parts = {"clip": out(loader, 1), "clip_vision": out(loader, 3), "image": source}
    one = graph.add("VideoCrafterEvaluate", images=images[0], **SETTINGS, **parts)
    both = graph.add("VideoCrafterCompare", images_a=images[0], images_b=images[1], **SETTINGS, **parts)
    shown = [graph.add("PreviewAny", source=source) for source in (out(one, 0), out(both, 1))]
    graph.add("TestSave", file="video.st", image=out(both, 0))
    graph.add("TestSave", file="plot.st", image=out(one, 1))
    results = comfyui.run(graph.prompt)
    tables = [results[each]["text"][0] for each in shown]

    measures = [each for each in chosen([]) if each.name not in ("brisque", "text_rendering")]
    tools = Tools({"tower": [model_tower(path)], "flow": [flow_of()]})
    image = good.images(0, 1)[0]
    for column, clip in enumerate((good, bad)):
        core = evaluate(Clip(clip.pixels, 8.0, SETTINGS["prompt"], image), measures, tools).values
        found = cells(tables[1], column)
        named = {name.partition(" (")[0]: value for name, value in found.items() if "SSIM" not in name}
        wanted = {title(name).partition(" (")[0]: value for name, value in core.items() if "ssim" not in name}
        assert named == pytest.approx(wanted, rel=2e-3, abs=2e-3)
        assert {"Text alignment", "Temporal consistency", "Flow score", "Color of plain shapes", "Sharpness"} <= set(named)
    assert cells(tables[0]) == cells(tables[1], 0)
    assert "Subject consistency: not measured; needs DINO's weights" in tables[0]

    video = load_file(comfyui.base / "output" / "video.st")["image"]
    assert video.shape[0] == 16 and video.shape[2] == 2 * 192 and video.shape[1] > 192  # both, enlarged, above their curves
    left, right = video[:, :192, :192], video[:, :192, 192:]
    for side, clip in ((left, good), (right, bad)):
        enlarged = np.stack([np.asarray(Image.fromarray(frame).resize((192, 192), Image.Resampling.NEAREST)) for frame in clip.pixels])
        assert np.abs(side.numpy() * 255 - enlarged).max() <= 0.51
    assert video[0, 192:].equal(video[-1, 192:]) and video[0, 192:].std() > 0.05
    assert load_file(comfyui.base / "output" / "plot.st")["image"].shape[0] == 1


def test_several_videos_have_a_column_each_and_the_mean(comfyui: Server) -> None:
    clips = drawn(2)
    together = Clip(np.concatenate([clip.pixels for clip in clips]))
    graph = Graph()
    images = [stored(comfyui, graph, clip, f"clip{index}_of_2.st") for index, clip in enumerate([*clips, together])]
    tables = [graph.add("VideoCrafterEvaluate", images=image, **SETTINGS) for image in images[:2]]
    both = graph.add("VideoCrafterEvaluate", images=images[2], **SETTINGS, videos=2)
    shown = [graph.add("PreviewAny", source=out(each)) for each in (*tables, both)]
    results = comfyui.run(graph.prompt)
    first, second, table = (results[each]["text"][0] for each in shown)
    assert table.startswith("| measure | video 1 | video 2 | mean |")
    assert cells(table, 0) == cells(first) and cells(table, 1) == cells(second)
    mean = {name: (value + cells(second)[name]) / 2 for name, value in cells(first).items()}
    assert cells(table, 2) == pytest.approx(mean, rel=1e-3)
    graph.prompt[both]["inputs"]["videos"] = 3
    assert_fails(comfyui, graph, "VideoCrafterEvaluate", "images has 32 frames, which are not 3 videos")


def test_cancelling_ends_it_between_two_measures(comfyui: Server) -> None:
    graph = Graph()
    images = out(graph.add("EmptyImage", width=256, height=256, batch_size=64, color=0x336699))
    graph.add("PreviewAny", source=out(graph.add("VideoCrafterEvaluate", images=images, **SETTINGS)))
    received: list[Progress] = []

    def cancel(progress: Progress) -> None:
        received.append(progress)
        if len(received) == 1:
            comfyui.interrupt()

    with pytest.raises(Interrupted, match="VideoCrafterEvaluate"):
        comfyui.run(graph.prompt, on_progress=cancel)
    assert received[-1].value < received[-1].maximum


def test_nothing_is_connected_but_frames(comfyui: Server) -> None:
    """One frame, without any model: what can't be measured says why."""
    graph = Graph()
    image = out(graph.add("EmptyImage", width=32, height=24, batch_size=1, color=0x336699))
    measured = graph.add("VideoCrafterEvaluate", images=image, **{**SETTINGS, "prompt": ""})
    shown = graph.add("PreviewAny", source=out(measured, 0))
    graph.add("TestSave", file="plot1.st", image=out(measured, 1))
    table = comfyui.run(graph.prompt)[shown]["text"][0]
    assert set(cells(table)) == {"Sharpness"}
    for reason in ("Text alignment: not measured; needs a prompt.", "Flow score: not measured; needs at least 2 frames."):
        assert reason in table


@pytest.mark.parametrize(
    ("size", "count", "message"), [((4, 4), 1, "at least 8 pixels"), ((16, 16), 3, "image has 3 images; exactly one is needed")]
)
def test_frames_that_can_not_be_measured(comfyui: Server, size: tuple[int, int], count: int, message: str) -> None:
    graph = Graph()
    image = out(graph.add("EmptyImage", width=size[0], height=size[1], batch_size=count, color=0))
    measured = graph.add("VideoCrafterEvaluate", images=image, image=image, **SETTINGS)
    graph.add("PreviewAny", source=out(measured, 0))
    assert_fails(comfyui, graph, "VideoCrafterEvaluate", message)


def test_axes_and_values_of_other_forms_are_refused(comfyui: Server) -> None:
    """A clip in another order of axes, or in 0..255, gives no plausible numbers (EvalCrafter 1)."""
    frames = torch.from_numpy(drawn(1)[0].pixels).float()  # [T, H, W, C]
    cases = [(frames.permute(3, 0, 1, 2) / 255, "The image has 64 channels"), (frames, "an IMAGE is in [0, 1]")]
    for number, (frame, message) in enumerate(cases):
        graph = Graph()
        save_file({"image": frame.contiguous()}, comfyui.base / "input" / f"other{number}.st")
        image = out(graph.add("TestImage", file=f"other{number}.st"))
        graph.add("PreviewAny", source=out(graph.add("VideoCrafterEvaluate", images=image, **SETTINGS), 0))
        assert_fails(comfyui, graph, "VideoCrafterEvaluate", message)
