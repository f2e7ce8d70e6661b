"""Graphs that strangers might send: each ends well or in an error that says why, and the server goes on as before.

`make test` sends a hundred, `make test-all` a thousand, `python -m dev.fuzz` as many as it is asked for.
"""

from __future__ import annotations

import pytest

from dev.fuzz import BETWEEN, clean_up, fuzz, judged, prepare
from harness.client import ComfyError
from harness.graphs import TextGraph, assert_fails

#: MB by which the server's memory may exceed its former peak.
GROWTH = 500
BARE = '  File "/comfyui/custom_nodes/pack/nodes/sampling.py", line 1, in execute\n    height, width = latent.shape[2:]\n    ^^^^^'
PACK = '  File "/comfyui/custom_nodes/pack/nodes/sampling.py", line 1, in execute\n    raise ValueError('
CORE = '  File "/comfyui/nodes.py", line 1, in sample'
TORCH = '  File "/usr/lib/python3/site-packages/torch/functional.py", line 1, in cat'


@pytest.mark.full
def test_graphs_of_strangers(comfyui) -> None:
    count = 1000
    prepare(comfyui)
    try:
        report = fuzz(comfyui, count, seed=0)
    finally:
        clean_up(comfyui)
    print("\n".join(report.lines()))
    assert not report.findings, "\n".join(report.findings[:20])
    assert report.endings.total() == count and report.known == count // BETWEEN
    # The graphs are neither all sound nor all refused at the door.
    assert min(report.endings[how] for how in ("result", "refused", "error of ours")) > count // 50, report.endings
    assert report.peak_growth < GROWTH


@pytest.mark.parametrize(
    "frames, kind, message, how",
    [
        ([CORE, PACK], "ValueError", "The latent has 5 frames, which do not divide by 3: give another.", "error of ours"),
        ([CORE, PACK], "vc_core.checkpoint.errors.CheckpointError", "model.ckpt: is empty (0 bytes). Download it again", "error of ours"),
        ([PACK], "AttributeError", "unet.safetensors holds no text encoder. Use CLIPLoader instead.", "error of ours"),
        ([PACK], "ValueError", "bad", "finding"),
        ([BARE], "ValueError", "not enough values to unpack (expected 4, got 3), says Python", "finding"),
        ([BARE], "AttributeError", "'NoneType' object has no attribute 'shape' that was looked for", "finding"),
        ([BARE], "KeyError", "'samples' and so on, for as long as a message of ours would be", "finding"),
        ([PACK, TORCH], "RuntimeError", "Sizes of tensors must match except in dimension 0. Expected 4.", "finding"),
        ([PACK, TORCH], "ValueError", "not enough values to unpack (expected 4, got 3), says a library", "finding"),
        ([CORE, TORCH], "RuntimeError", "Sizes of tensors must match except in dimension 0. Expected 4.", "core's error"),
    ],
)
def test_what_counts_as_a_finding(frames, kind, message, how) -> None:
    error = ComfyError(f"KSampler (node 3) failed: {message}", "3", "KSampler", kind, "\n".join(frames))
    assert judged(error)[0] == how


def test_what_no_memory_holds_is_refused_before_it_is_taken(comfyui) -> None:
    graph = TextGraph("videocrafter_tiny_t2v (bundled)", "a dog")
    node = graph.add("EmptyVideoCrafterLatent", width=4096, height=4096, length=4096, batch_size=64)
    graph.add("TestSave", file="huge.safetensors", latent=[node, 0])
    assert_fails(comfyui, graph, "EmptyVideoCrafterLatent", "64 videos of 4096 frames at 4096x4096", "GB of memory", "shorter or smaller")
