"""A node for tests that measures what a pass takes of memory, and asks the model what it would."""

import json
import os

import comfy.patcher_extension
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io


def most_held(run):
    """The result of a call, and the most bytes that torch's allocator held during it beside those from before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        out = run()
    held = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return out, peak


class Footprint(io.ComfyNode):
    """A model that writes down, for its last pass: shape, bytes taken and bytes that it says it would take."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.String.Input("file")]
        return io.Schema(node_id="TestFootprint", inputs=inputs, outputs=[io.Model.Output()], not_idempotent=True)

    @classmethod
    def execute(cls, model, file: str) -> io.NodeOutput:
        def measured(executor, x, *given, **named):
            out, taken = most_held(lambda: executor(x, *given, **named))
            told = {"shape": list(x.shape), "taken": taken, "required": executor.class_obj.memory_required(x.shape)}
            with open(os.path.join(folder_paths.get_output_directory(), file), "w") as stream:
                json.dump(told, stream)
            return out

        clone = model.clone()
        clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "footprint", measured)
        return io.NodeOutput(clone)


class FootprintExtension(ComfyExtension):
    async def get_node_list(self):
        return [Footprint]


async def comfy_entrypoint():
    return FootprintExtension()
