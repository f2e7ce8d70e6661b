"""Nodes that let a test give a model's adapter exactly what was recorded."""

import os
import sys
from dataclasses import replace

import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io
from safetensors.torch import load_file

HOOKS_KEY = "videocrafter_hooks"


def tensors(file: str):
    """The tensors of a file in the input folder."""
    return load_file(os.path.join(folder_paths.get_input_directory(), file))


class CameraFromFile(io.ComfyNode):
    """The tensors ``poses`` ``[T, 3, 4]`` and ``intrinsics`` ``[T, 4]``, if any, as a camera path of the pack's."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestCamera", inputs=[io.String.Input("file")], outputs=[io.Custom("VC_CAMERA").Output()])

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        module = next(each for name, each in sys.modules.items() if name.endswith("vc_core.control.cameras"))
        found = tensors(file)
        return io.NodeOutput(module.CameraPath(found["poses"], found.get("intrinsics")))


class ControlFromFile(io.ComfyNode):
    """A model with other values in its control: the tensors of a file by their names there. ``boxes``, as of TestBoxes, are FreeTraj's."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestControl", inputs=[io.Model.Input("model"), io.String.Input("file")], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, file: str) -> io.NodeOutput:
        clone, values = model.clone(), tensors(file)
        options = clone.model_options["transformer_options"]
        if "boxes" in values:
            module = next(each for name, each in sys.modules.items() if name.endswith("vc_core.diffusion.boxes"))
            rows = values["boxes"].tolist()
            top, bottom, left, right = rows[0]
            path = module.BoxPath(bottom - top, right - left, tuple((row[0], row[2]) for row in rows))
            options[HOOKS_KEY] = tuple(replace(each, path=path) for each in options[HOOKS_KEY])
        else:
            options[HOOKS_KEY] = tuple(replace(each, control=replace(each.control, **values)) for each in options[HOOKS_KEY])
        return io.NodeOutput(clone)


class TextFromFile(io.ComfyNode):
    """A conditioning with another text: a tensor of a file."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Conditioning.Input("conditioning"), io.String.Input("file"), io.String.Input("name")]
        return io.Schema(node_id="TestText", inputs=inputs, outputs=[io.Conditioning.Output()])

    @classmethod
    def execute(cls, conditioning, file: str, name: str) -> io.NodeOutput:
        return io.NodeOutput([[tensors(file)[name], values] for _, values in conditioning])


class BoxesFromFile(io.ComfyNode):
    """The tensor ``boxes`` ``[T, (top, bottom, left, right)]`` in shares of the picture, as TRACKS with their boxes."""

    @classmethod
    def define_schema(cls):
        inputs = [io.String.Input("file"), io.Int.Input("width"), io.Int.Input("height")]
        return io.Schema(node_id="TestBoxes", inputs=inputs, outputs=[io.Custom("TRACKS").Output()])

    @classmethod
    def execute(cls, file: str, width: int, height: int) -> io.NodeOutput:
        module = next(each for name, each in sys.modules.items() if name.endswith("vc_core.control.tracks"))
        top, bottom, left, right = tensors(file)["boxes"].unbind(dim=1)
        points = torch.stack([(left + right) / 2 * width, (top + bottom) / 2 * height], dim=1)[None]
        sides = torch.stack([(right - left)[:1] * width, (bottom - top)[:1] * height], dim=1)
        return io.NodeOutput(module.Tracks(points, torch.ones(1, len(top), dtype=torch.bool), (width, height), sides).as_core())


class ControlExtension(ComfyExtension):
    async def get_node_list(self):
        return [CameraFromFile, ControlFromFile, TextFromFile, BoxesFromFile]


async def comfy_entrypoint():
    return ControlExtension()
