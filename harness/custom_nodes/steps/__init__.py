"""A node that only counts: for tests of progress, previews, cancelling and errors."""

import time

import comfy.model_management
import comfy.utils
from comfy_api.latest import ComfyExtension, io
from PIL import Image


class Steps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestSteps",
            is_output_node=True,
            inputs=[io.Int.Input("steps", default=4), io.String.Input("error", default="")],
            outputs=[],
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, steps: int, error: str) -> io.NodeOutput:
        bar = comfy.utils.ProgressBar(steps)
        for step in range(steps):
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.02)
            bar.update_absolute(step + 1, steps, preview=("JPEG", Image.new("RGB", (12, 9), (255, 0, 0)), None))
        if error:
            raise ValueError(error)
        return io.NodeOutput()


class TestExtension(ComfyExtension):
    async def get_node_list(self):
        return [Steps]


async def comfy_entrypoint():
    return TestExtension()
