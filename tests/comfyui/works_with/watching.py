"""Previews, progress and cancelling."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from dev.client import Interrupted, Progress

from .bench import BUNDLED, DYNAMICRAFTER, Bench
from .table import WATCHING, Check, row


@row(
    WATCHING, "previews (latent2rgb), progress", "a picture of the first frame at each step; steps and decoded frames are counted",
    BUNDLED, DYNAMICRAFTER, flags=("--preview-method", "latent2rgb"),
)  # fmt: skip
def previews(bench: Bench) -> Check:
    core, own = bench.ksampler(steps=5), bench.authors(steps=4, seed=1)
    decoded = bench.decode(own)
    bench.keep("core", latent=core)
    bench.keep("own", image=decoded)

    def check(seen: dict[str, Tensor]) -> None:
        counted = {node: [told.value for told in bench.progress if told.node_id == node] for node in (core[0], own[0], decoded[0])}
        assert counted[core[0]] == [1, 2, 3, 4, 5] and counted[own[0]] == [1, 2, 3, 4]
        assert counted[decoded[0]][-1] == 4 == next(told.maximum for told in bench.progress if told.node_id == decoded[0])
        pictures = [Image.open(io.BytesIO(preview)) for preview in bench.previews]
        assert len(pictures) == 5 + 4 and all(picture.width == picture.height for picture in pictures), pictures
        assert min(np.asarray(picture).std() for picture in pictures) > 1

    return check


@row(WATCHING, "Cancel", "ends a run within the step that is under way", BUNDLED, frames=16)
def cancelling(bench: Bench) -> Check:
    sampler = bench.ksampler(steps=60)
    bench.add("TestSave", file="x", latent=sampler)
    told: list[int] = []
    at: list[int] = []

    def watch(progress: Progress) -> None:
        told.append(progress.value)
        if progress.value >= 2 and not at:  # a quick step may go untold
            bench.comfyui.interrupt()
            at.append(len(told))

    with pytest.raises(Interrupted) as stopped:
        bench.comfyui.run(bench.prompt, on_progress=watch)
    assert stopped.value.node_id == sampler[0]
    # A message that was under way when the server took the order may still come.
    assert len(told) - at[0] <= 1, told
    return lambda seen: None
