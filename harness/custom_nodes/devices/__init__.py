"""Stand-ins for a second GPU: to ComfyUI the processor is two devices, ``cpu`` and ``cpu:0``, whose tensors can be mixed."""

import copy
import json
import threading
from pathlib import Path
from unittest import mock

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io

SECOND = torch.device("cpu", 0)


class TwoDevices(io.ComfyNode):
    """Core's MultiGPU CFG Split, on two devices; which of them each pass ran on, and in which thread, goes into a file."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestTwoDevices",
            inputs=[io.Model.Input("model"), io.String.Input("file", default="devices.jsonl")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, file: str) -> io.NodeOutput:
        from comfy import multigpu  # which older releases don't have

        devices = [model.load_device, SECOND]
        with mock.patch.object(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: devices):
            split = multigpu.create_multigpu_deepclones(model, 2)
        path = Path(folder_paths.get_output_directory()) / file
        path.write_text("")
        lock = threading.Lock()

        def record(apply, arguments):
            options = arguments["c"]["transformer_options"]
            line = [str(options.get("multigpu_thread_device")), threading.current_thread().name, id(apply.__self__)]
            with lock, path.open("a") as opened:
                opened.write(json.dumps(line) + "\n")
            return apply(arguments["input"], arguments["timestep"], **arguments["c"])

        split.set_model_unet_function_wrapper(record)
        return io.NodeOutput(split)


class Reloaded(io.ComfyNode):
    """CLIP, VAE or CLIP_VISION on the second device, as core's Select CLIP Device and Select VAE Device do it."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TestReloaded",
            inputs=[io.Clip.Input("clip"), io.Vae.Input("vae"), io.ClipVision.Input("clip_vision", optional=True)],
            outputs=[io.Clip.Output(), io.Vae.Output(), io.ClipVision.Output(display_name="vision")],
        )

    @classmethod
    def execute(cls, clip, vae, clip_vision=None) -> io.NodeOutput:
        moved_clip = clip.clone()
        moved_clip.patcher = _moved(clip.patcher)
        moved_vae = cls._wrapped(vae, "first_stage_model")
        return io.NodeOutput(moved_clip, moved_vae, None if clip_vision is None else cls._wrapped(clip_vision, "model"))

    @staticmethod
    def _wrapped(holder, attribute: str):
        moved = copy.copy(holder)
        moved.patcher = _moved(holder.patcher)
        setattr(moved, attribute, moved.patcher.model)
        return moved


def _moved(patcher):
    moved = patcher.deepclone_multigpu(new_load_device=SECOND)
    assert moved.model is not patcher.model and moved.load_device == SECOND
    return moved


class TestExtension(ComfyExtension):
    async def get_node_list(self):
        return [TwoDevices, Reloaded]


async def comfy_entrypoint():
    return TestExtension()
