"""A node that gives sound as VideoHelperSuite does: an AUDIO that is no dict, and reads the file when it is asked."""

from collections.abc import Mapping

import torch
from comfy_api.latest import ComfyExtension, io

RATE = 8000


class LazyAudio(Mapping):
    """A ramp from 0 on, which is computed when it is asked for."""

    def __init__(self, seconds: float) -> None:
        self._count = round(seconds * RATE)

    def __getitem__(self, key: str):
        return {"waveform": lambda: torch.arange(self._count)[None, None] / 16000, "sample_rate": lambda: RATE}[key]()

    def __iter__(self):
        return iter(("waveform", "sample_rate"))

    def __len__(self) -> int:
        return 2


class LazyAudioNode(io.ComfyNode):
    """The AUDIO."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestLazyAudio", inputs=[io.Float.Input("seconds")], outputs=[io.Audio.Output()])

    @classmethod
    def execute(cls, seconds: float) -> io.NodeOutput:
        return io.NodeOutput(LazyAudio(seconds))


class TestExtension(ComfyExtension):
    async def get_node_list(self):
        return [LazyAudioNode]


async def comfy_entrypoint():
    return TestExtension()
