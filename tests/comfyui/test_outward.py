"""The pack connects to nothing, starts nothing, and writes into ComfyUI's folders only, neither when it is imported nor when it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.bench import BUNDLED, I2V, Bench
from harness.comfyui import REPOSITORY
from harness.graphs import TextGraph, assert_fails, out
from harness.server import TEST_NODES, running
from tests.comfyui.conftest import PACK_NAME

AUDIT = Path(__file__).parent / "audit"


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict]]:
    """What a server did while it started with the pack and made videos with every kind of its nodes."""
    base = tmp_path_factory.mktemp("audited")
    log = tmp_path_factory.mktemp("audit") / "events.jsonl"
    places = [base / "custom_nodes" / PACK_NAME, *(REPOSITORY / part for part in ("nodes", "vc_core", "__init__.py"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(AUDIT))
        patch.setenv("AUDIT_LOG", str(log))
        patch.setenv("AUDIT_PLACES", os.pathsep.join(map(str, places)))
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        patch.setenv("XDG_CACHE_HOME", str(base.parent / "cache of the user"))
        with running(base, pack_name=PACK_NAME, custom_nodes=TEST_NODES) as server:
            bench = Bench(server, I2V, frames=2)
            frames = bench.decode(bench.authors(steps=1))
            image = out(bench.add("ImageFromBatch", image=frames, batch_index=0, length=1))
            bench.add("VideoCrafterSaveVideo", images=frames, filename_prefix="video/clip", fps=8.0, crf=23.0)
            measured = bench.add("VideoCrafterPictureKept", images=frames, image=image, clip_vision=bench.clip_vision)
            bench.save("plot", image=out(measured))
            bench.results()
            text = Bench(server, BUNDLED, frames=2)
            text.save("frames", image=text.decode(text.ksampler(steps=1)))
            text.results()
    yield [json.loads(line) for line in log.read_text().splitlines()] + [{"event": "base", "what": str(base), "ours": False}]


def test_the_audit_sees_what_there_is(events) -> None:
    """The server's own socket and the files that were asked for, or the tests below would show nothing."""
    base = events[-1]["what"]
    assert any(each["event"] == "socket.bind" and "127.0.0.1" in each["what"] for each in events)
    # The video itself is written by FFmpeg, which Python doesn't see; its folder is made before.
    assert any(each["ours"] and each["event"] == "os.mkdir" and each["what"] == base + "/output/video" for each in events)


def test_nothing_is_connected_to_and_nothing_started(events) -> None:
    """But matplotlib asks fontconfig which fonts there are, the first time that it draws on a machine."""
    ours = [each for each in events if each["ours"] and "fc-list" not in each["what"]]
    assert not [each for each in ours if each["event"].startswith("socket.")]
    assert not [each for each in ours if each["event"] in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")]


def test_writes_stay_in_comfyui_s_folders(events) -> None:
    base = events[-1]["what"]
    written = {each["what"] for each in events if each["ours"] and (each["event"] == "open" or each["event"].startswith("os."))}
    assert written, "a video was saved"
    outside = {path for path in written if not os.path.abspath(path).startswith(base + os.sep)}
    assert not outside


@pytest.mark.parametrize("prefix", ["../../evil", "/nowhere/evil", "..\\..\\evil", "video/../../../evil"])
def test_names_that_lead_out_of_the_output_folder(comfyui, prefix: str) -> None:
    graph = TextGraph(BUNDLED, "a dog", frames=1)
    image = out(graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0))
    graph.add("VideoCrafterSaveVideo", images=image, filename_prefix=prefix, fps=8.0, crf=30.0)
    if prefix.startswith("..\\") and os.name != "nt":
        comfyui.run(graph.prompt)  # an odd name, but one in the folder
        assert [path for path in (comfyui.base / "output").rglob("*evil*") if path.suffix == ".mp4"]
    else:
        assert_fails(comfyui, graph, "VideoCrafterSaveVideo", "leads out of the output folder")
    assert not list(comfyui.base.parent.glob("evil*")) and not Path("/nowhere").exists()
