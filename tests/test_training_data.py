"""Training sets: what is read of a folder, a CSV or shards, what is left out and why, and what is computed only once."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

import vc_core
from harness import goldens
from tests.training_clips import draw_clip, write_clips
from vc_core.errors import InputError
from vc_core.family.bundled import bundled_models
from vc_core.media.video import save_video
from vc_core.training.cache import Cache, build
from vc_core.training.clips import ClipSet, ClipSettings
from vc_core.training.plan import Plan
from vc_core.training.sources import find_items
from vc_core.training.strides import Frames, StrideSettings, draw_frames, draw_stride

SETTINGS = ClipSettings(frames=8, height=32, width=32, strides=StrideSettings(1, 1), buckets=False)


@pytest.fixture(scope="module")
def model() -> vc_core.VideoModel:
    return vc_core.load(bundled_models()["videocrafter_tiny_t2v"])


def prepared(model: vc_core.VideoModel, data: Path, folder: Path, settings: ClipSettings = SETTINGS) -> tuple[ClipSet, Cache, list[str]]:
    cache, said = Cache(folder, model), []
    found = build(find_items(data), settings, cache, said.append)
    return found, cache, [*said, *found.lines(settings)]


def clip(path: Path, frames: int = 16, caption: str | None = "a cyan circle moving left", fps: float = 12) -> Path:
    save_video(draw_clip("left", "circle", 12, (32, 32)).repeat(1, 3, 1, 1)[:, :frames], path, fps)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


# --- strides --------------------------------------------------------------------------------------------------------


@pytest.mark.golden
@pytest.mark.skipif(not goldens.recording("training_loss").has("crop"), reason="not recorded")
def test_frames_are_drawn_as_in_the_published_training():
    """Each row was recorded of the authors' class: what was drawn, and what was read because of it."""
    for row in goldens.recording("training_loss").json("data_pipeline.json"):
        given, drawn = row["settings"], [tuple(each) for each in row["drawn"]]
        least = given.get("frame_stride_min", 1) if given.get("random_fs") else given["frame_stride"]
        settings = StrideSettings(least, given["frame_stride"], given.get("fixed_fps", 0), given.get("fps_max", 0))

        def draw(low: int, high: int, drawn: list = drawn) -> int:
            expected_low, expected_high, value = drawn.pop(0)
            assert (low, high) == (expected_low, expected_high)
            return value

        stride = draw_stride(settings, draw)
        found = draw_frames(settings, stride, row["frames"], row["average_fps"], 16, draw)
        if row["read"] == "2":  # the first video was too short; of the second only what was drawn is recorded
            assert found is None
            continue
        assert found is not None and drawn == []
        assert [found.start + found.stride * index for index in range(16)] == row["indices"]
        assert (found.stride, found.fps) == (row["frame_stride"], row["fps_told"])


def test_a_rate_that_is_aimed_at():
    """30 frames at 30 fps, 16 frames at 8 fps wanted: every 3rd needs 46, and half of it is there, so the stride is 30 // 16."""
    settings = StrideSettings(1, 1, fps=8)
    assert draw_frames(settings, 1, 30, 30.0, 16, lambda low, high: low) == Frames(0, 1, 16, 30)
    assert draw_frames(settings, 1, 20, 30.0, 16, lambda low, high: low) is None


# --- what is used ---------------------------------------------------------------------------------------------------


def test_what_is_used_and_why_the_rest_is_not(model, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for frames in (1, 3, 7, 8, 9):
        clip(data / f"of_{frames}.mp4", frames)
    clip(data / "empty.mp4", caption="  \n")
    clip(data / "without.mp4", caption=None)
    (data / "broken.mp4").write_bytes((data / "of_9.mp4").read_bytes()[:300])
    (data / "text.mp4").write_text("no video")
    Image.new("RGB", (90, 60), "red").save(data / "still.png")
    found, _, lines = prepared(model, data, tmp_path / "cache")
    assert sorted(each.name for each in found.clips) == ["empty.mp4", "of_8.mp4", "of_9.mp4", "still.png", "without.mp4"]
    reasons = {each.name: each.reason for each in found.left}
    assert reasons["of_7.mp4"] == "7 frames at 12 fps; 8 are needed" and reasons["of_1.mp4"].startswith("1 frames at 12 fps")
    assert "can't be read" in reasons["broken.mp4"] and "can't be read" in reasons["text.mp4"]
    text = "\n".join(lines)
    assert "5 clips are used (1 of 1x32x32, 4 of 8x32x32), 5 are left out." in text
    assert "1 of them have an empty caption" in text and "2 of them have no caption file" in text
    assert "of_9.mp4: 9 frames at 12 fps, 8 of them, stride 1, 12 fps" in text
    only_videos = ClipSettings(**{**vars(SETTINGS), "images": False})
    assert "an image" in {each.name: each.reason for each in prepared(model, data, tmp_path / "cache", only_videos)[0].left}["still.png"]


def test_no_clip_that_can_be_used(model, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(InputError, match="holds no clips"):
        find_items(data)
    with pytest.raises(InputError, match="no training data at"):
        find_items(tmp_path / "elsewhere")
    clip(data / "short.mp4", 3)
    with pytest.raises(InputError, match=r"No clip of .* can be used(.|\n)*short.mp4: 3 frames at 12 fps; 8 are needed"):
        prepared(model, data, tmp_path / "cache")[0].check(data)


def test_aspects_get_sizes_of_their_own(model, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name, size in (("wide", (128, 64)), ("tall", (64, 128)), ("square", (64, 64))):
        Image.new("RGB", size, "red").save(data / f"{name}.png")
    settings = ClipSettings(frames=8, height=64, width=64)
    sizes = {each.name: (each.width, each.height) for each in prepared(model, data, tmp_path / "cache", settings)[0].clips}
    assert sizes["square.png"] == (64, 64) and sizes["wide.png"] == (88, 48) and sizes["tall.png"] == (48, 88)


@pytest.mark.parametrize("trigger, expected", [("", "a cat"), ("zwx style", "zwx style, a cat")])
def test_trigger_words(model, tmp_path, trigger, expected):
    data = tmp_path / "data"
    data.mkdir()
    clip(data / "a.mp4", caption="a cat")
    found = prepared(model, data, tmp_path / "cache", ClipSettings(**{**vars(SETTINGS), "trigger": trigger}))[0]
    assert found.clips[0].caption == expected


# --- where clips come from ------------------------------------------------------------------------------------------


def test_names_are_not_mixed_up(model, tmp_path):
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    names = ["a.mp4", "a.mov", "a_1.mp4", "sub/a.mp4", "кот 01.mp4", "[x].mp4"]
    clip(data / "a.mp4")
    for name in names[1:]:
        shutil.copyfile(data / "a.mp4", data / name)
    (data / "a.mov.txt").write_text("another")
    found, cache, _ = prepared(model, data, tmp_path / "cache")
    assert sorted(each.name for each in found.clips) == sorted(names)
    assert len({each.latents for each in found.clips}) == 6 == cache.encoded
    captions = {each.name: each.caption for each in found.clips}
    assert captions["a.mov"] == "another" and captions["a.mp4"] != "another"


@pytest.mark.parametrize("header", ["path,caption", "file_name,text"])
def test_a_csv(tmp_path, header):
    clip(tmp_path / "a.mp4", caption=None)
    (tmp_path / "set.csv").write_text(f'{header}\na.mp4,"a cat, asleep"\nb.mp4,\n', encoding="utf-8")
    items = find_items(tmp_path / "set.csv")
    assert [(item.name, item.caption, item.path) for item in items] == [
        ("a.mp4", "a cat, asleep", tmp_path / "a.mp4"), ("b.mp4", "", tmp_path / "b.mp4"),
    ]


def test_the_published_csv(tmp_path):
    (tmp_path / "set.csv").write_text("page_dir,videoid,name\n000,12,a cat\n")
    assert find_items(tmp_path / "set.csv")[0].path == tmp_path / "000" / "12.mp4"


@pytest.mark.parametrize("content, message", [("path\na.mp4\n", "path and caption are needed"), ("path,caption\n,x\n", "line 2: the path")])
def test_a_wrong_csv(tmp_path, content, message):
    (tmp_path / "set.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        find_items(tmp_path / "set.csv")


def test_a_file_of_a_csv_that_is_missing(model, tmp_path):
    (tmp_path / "set.csv").write_text("path,caption\nnone.mp4,a cat\n")
    found = prepared(model, tmp_path / "set.csv", tmp_path / "cache")[0]
    assert not found.clips and "none.mp4" in found.left[0].reason


def test_a_shard(model, tmp_path):
    clip(tmp_path / "a.mp4")
    with tarfile.open(tmp_path / "set.tar", "w") as shard:
        for name, content in (("0001.txt", b"first"), ("0001.mp4", (tmp_path / "a.mp4").read_bytes()), ("0002.mp4", b"broken")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    found, cache, _ = prepared(model, tmp_path / "set.tar", tmp_path / "cache")
    assert [(each.name, each.caption) for each in found.clips] == [("0001.mp4", "first")] and cache.encoded == 1
    assert [each.name for each in found.left] == ["0002.mp4"]
    (tmp_path / "set.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match="can't be read as a shard"):
        find_items(tmp_path / "set.tar")


# --- the cache ------------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_computed_again(model, tmp_path):
    data, other, folder = write_clips(tmp_path / "data", 3), write_clips(tmp_path / "other", 1), tmp_path / "cache"
    assert prepared(model, data, folder)[1].encoded == 3
    assert prepared(model, data, folder)[1].encoded == 0
    kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    clip(data / "one_more.mp4")
    assert prepared(model, data, folder)[1].encoded == 1
    assert prepared(model, other, folder)[1].encoded == 1
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert prepared(model, data, folder, ClipSettings(**{**vars(SETTINGS), "height": 64, "width": 64}))[1].encoded == 4
    clip(data / "one_more.mp4", 9)  # another file of the same name
    assert prepared(model, data, folder)[1].encoded == 1


def test_a_damaged_file_of_the_cache_is_computed_again(model, tmp_path):
    data = write_clips(tmp_path / "data", 1)
    found = prepared(model, data, tmp_path / "cache")[0]
    found.clips[0].latents.write_bytes(b"cut")
    found, cache, _ = prepared(model, data, tmp_path / "cache")
    assert cache.encoded == 1 and found.clips[0].latents.stat().st_size > 1000


def test_moments_are_the_autoencoders(model, tmp_path):
    video = draw_clip("left", "circle", 12, (32, 32))
    Image.fromarray(((video[:, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    settings = ClipSettings(**{**vars(SETTINGS), "height": 64, "width": 64})
    found = prepared(model, tmp_path, tmp_path / "cache", settings)[0]
    with safe_open(found.clips[0].latents, "pt") as file:
        mean = file.get_tensor("moments")[:, :4] * model.config.autoencoder.scale_factor
    frame = ((video[:, :1] + 1) * 127.5).round() / 127.5 - 1
    torch.testing.assert_close(mean, model.encode(frame[None])[:, :, 0], rtol=1e-4, atol=1e-4)


# --- the order ------------------------------------------------------------------------------------------------------


def test_every_epoch_has_each_clip_once_and_a_resumed_run_goes_on():
    plan = Plan(["a"] * 5, 2, 0)
    samples = [sample for number in range(10) for sample in plan.samples(number)]
    for epoch in range(4):
        assert sorted(sample.clip for sample in samples[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
        assert {sample.epoch for sample in samples[5 * epoch : 5 * epoch + 5]} == {epoch}
    assert Plan(["a"] * 5, 2, 0).samples(7) == plan.samples(7)
    assert [Plan(["a"] * 5, 2, 1).samples(number) for number in range(10)] != [plan.samples(number) for number in range(10)]


def test_passes_have_clips_of_one_size():
    buckets = ["a", "b", "a", "b", "b"]
    passes = [Plan(buckets, 2, 3).samples(number) for number in range(25)]
    assert all(len({buckets[sample.clip] for sample in each}) == 1 and len(each) == 2 for each in passes)
    used = [sample.clip for each in passes for sample in each]
    assert {used.count(index) for index in range(5)} == {10}

