"""Nodes that hand over what no sensible graph would: for trying what other nodes make of it."""

from __future__ import annotations

import torch
from comfy_api.latest import ComfyExtension, io

NAN = float("nan")


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


#: LATENTs by what is strange about them; the size that fits is ``[2, 4, 4, 4]``.
LATENTS = {
    "nan": lambda: {"samples": torch.full((2, 4, 4, 4), NAN)},
    "infinite": lambda: {"samples": torch.full((2, 4, 4, 4), float("inf"))},
    "huge numbers": lambda: {"samples": draw(2, 4, 4, 4) * 1e30},
    "16 channels": lambda: {"samples": draw(2, 16, 4, 4)},
    "16 empty channels": lambda: {"samples": torch.zeros(2, 16, 4, 4)},
    "1 channel": lambda: {"samples": draw(2, 1, 4, 4)},
    "a video model's": lambda: {"samples": draw(1, 16, 2, 4, 4)},
    "a video model's with 4 channels": lambda: {"samples": draw(1, 4, 2, 4, 4)},
    "an audio model's": lambda: {"samples": draw(1, 64, 32)},
    "no frames": lambda: {"samples": draw(0, 4, 4, 4)},
    "no height": lambda: {"samples": draw(2, 4, 0, 4)},
    "one place": lambda: {"samples": draw(2, 4, 1, 1)},
    "odd sides": lambda: {"samples": draw(2, 4, 5, 7)},
    "half": lambda: {"samples": draw(2, 4, 4, 4).half()},
    "whole numbers": lambda: {"samples": torch.ones(2, 4, 4, 4, dtype=torch.int64)},
    "videos of 3": lambda: {"samples": draw(4, 4, 4, 4), "frames_per_video": 3},
    "videos of 0": lambda: {"samples": draw(2, 4, 4, 4), "frames_per_video": 0},
    "videos of -1": lambda: {"samples": draw(2, 4, 4, 4), "frames_per_video": -1},
    "a mask of another size": lambda: {"samples": draw(2, 4, 4, 4), "noise_mask": torch.ones(1, 17, 5)},
    "a mask of more frames": lambda: {"samples": draw(2, 4, 4, 4), "noise_mask": torch.ones(7, 32, 32)},
    "a mask of five axes": lambda: {"samples": draw(2, 4, 4, 4), "noise_mask": torch.ones(1, 1, 2, 32, 32)},
    "a mask of nan": lambda: {"samples": draw(2, 4, 4, 4), "noise_mask": torch.full((1, 32, 32), NAN)},
    "places of other frames": lambda: {"samples": draw(2, 4, 4, 4), "batch_index": [5]},
}
#: IMAGEs; what fits is ``[1 or 2, 32, 32, 3]`` in [0, 1].
IMAGES = {
    "grey": lambda: draw(1, 32, 32, 1).sigmoid(),
    "2 channels": lambda: draw(1, 32, 32, 2).sigmoid(),
    "transparent": lambda: draw(1, 32, 32, 4).sigmoid(),
    "7 channels": lambda: draw(1, 32, 32, 7).sigmoid(),
    "nan": lambda: torch.full((1, 32, 32, 3), NAN),
    "beyond the range": lambda: draw(1, 32, 32, 3) * 1e6,
    "none": lambda: draw(0, 32, 32, 3),
    "one pixel": lambda: draw(1, 1, 1, 3).sigmoid(),
    "no height": lambda: draw(1, 0, 32, 3),
    "a line": lambda: draw(1, 1, 4000, 3).sigmoid(),
    "half": lambda: draw(1, 32, 32, 3).sigmoid().half(),
    "bytes": lambda: (draw(1, 32, 32, 3).sigmoid() * 255).byte(),
    "three images": lambda: draw(3, 24, 40, 3).sigmoid(),
    "without a batch": lambda: draw(32, 32, 3).sigmoid(),
}
#: CONDITIONINGs of a width that no model here has, and worse.
CONDITIONINGS = {
    "nothing": lambda: [],
    "narrow": lambda: [[draw(1, 77, 7), {}]],
    "another family's": lambda: [[draw(1, 256, 4096), {"pooled_output": draw(1, 768)}]],
    "nan": lambda: [[torch.full((1, 77, 32), NAN), {}]],
    "without words": lambda: [[draw(1, 0, 32), {}]],
    "without a batch": lambda: [[draw(77, 32), {}]],
    "fps of nan": lambda: [[draw(1, 77, 32), {"fps": NAN}]],
    "fps in words": lambda: [[draw(1, 77, 32), {"fps": "fast"}]],
    "frames in words": lambda: [[draw(1, 77, 32), {"num_video_frames": "many"}]],
    "frames of -3": lambda: [[draw(1, 77, 32), {"num_video_frames": -3}]],
    "another tower's image": lambda: [[draw(1, 77, 32), {"image_features": draw(1, 50, 5)}]],
    "images of nothing": lambda: [[draw(1, 77, 32), {"image_features": draw(0, 50, 32)}]],
    "another size's image": lambda: [[draw(1, 77, 32), {"concat_latent_image": draw(2, 4, 3, 3)}]],
}
#: Numbers that a link may bring, whatever its type says.
NUMBERS = {
    "nan": lambda: NAN,
    "infinity": lambda: float("inf"),
    "minus one": lambda: -1,
    "far too much": lambda: 10**30,
    "words": lambda: "many",
    "nothing": lambda: None,
    "yes": lambda: True,
    "a tensor": lambda: torch.ones(2),
}


def strange(name: str, kind: type, values: dict) -> type:
    """A node with a choice of these values."""

    class Strange(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id=name, inputs=[io.Combo.Input("what", options=list(values))], outputs=[kind.Output()])

        @classmethod
        def execute(cls, what: str) -> io.NodeOutput:
            return io.NodeOutput(values[what]())

    return Strange


class Keep(io.ComfyNode):
    """Holds on to models, so that ComfyUI does not forget them from graph to graph."""

    @classmethod
    def define_schema(cls):
        models = [io.Model.Input(f"model{number}", optional=True) for number in range(4)]
        return io.Schema(node_id="TestKeep", is_output_node=True, inputs=models, outputs=[])

    @classmethod
    def execute(cls, **models) -> io.NodeOutput:
        return io.NodeOutput()


class StrangeExtension(ComfyExtension):
    async def get_node_list(self):
        return [
            strange("TestStrangeLatent", io.Latent, LATENTS),
            strange("TestStrangeImage", io.Image, IMAGES),
            strange("TestStrangeConditioning", io.Conditioning, CONDITIONINGS),
            strange("TestStrangeNumber", io.AnyType, NUMBERS),
            Keep,
        ]


async def comfy_entrypoint():
    return StrangeExtension()
