"""Nodes that let a test put tensors into a graph and take them out exactly."""

import copy
import os

import folder_paths
import node_helpers
import torch
from comfy_api.latest import ComfyExtension, io
from safetensors.torch import load_file, save_file


def tensor(file: str, name: str) -> torch.Tensor:
    """A tensor of a file in the input folder."""
    return load_file(os.path.join(folder_paths.get_input_directory(), file))[name]


class FixedNoise:
    """A NOISE that is given, frame by frame."""

    def __init__(self, noise: torch.Tensor) -> None:
        self.noise, self.seed = noise, 0

    def generate_noise(self, latent):
        return self.noise


class NoiseFromFile(io.ComfyNode):
    """The tensor ``noise`` of a file in the input folder."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestNoise", inputs=[io.String.Input("file")], outputs=[io.Noise.Output()])

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(FixedNoise(tensor(file, "noise")))


class ImageFromFile(io.ComfyNode):
    """The tensor ``image`` of a file in the input folder, exactly."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestImage", inputs=[io.String.Input("file")], outputs=[io.Image.Output()])

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(tensor(file, "image"))


class StepNoise(io.ComfyNode):
    """The pack's DDIM with the tensors ``steps`` of a file in the input folder as the noise of its steps."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Sampler.Input("sampler"), io.String.Input("file")]
        return io.Schema(node_id="TestStepNoise", inputs=inputs, outputs=[io.Sampler.Output()])

    @classmethod
    def execute(cls, sampler, file: str) -> io.NodeOutput:
        changed = copy.copy(sampler)  # the one that is given may be another graph's too, by ComfyUI's cache
        changed.extra_options = {**sampler.extra_options, "step_noise": list(tensor(file, "steps"))}
        return io.NodeOutput(changed)


class ConcatLatent(io.ComfyNode):
    """A conditioning with the tensor ``concat`` of a file in the input folder as the latents of its images."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Conditioning.Input("conditioning"), io.String.Input("file")]
        return io.Schema(node_id="TestConcat", inputs=inputs, outputs=[io.Conditioning.Output()])

    @classmethod
    def execute(cls, conditioning, file: str) -> io.NodeOutput:
        concat = tensor(file, "concat")
        return io.NodeOutput(node_helpers.conditioning_set_values(conditioning, {"concat_latent_image": concat}))


class SaveTensors(io.ComfyNode):
    """Whatever it is given, as one file in the output folder."""

    @classmethod
    def define_schema(cls):
        optional = [
            io.Latent.Input("latent", optional=True),
            io.Image.Input("image", optional=True),
            io.Conditioning.Input("conditioning", optional=True),
            io.Sigmas.Input("sigmas", optional=True),
        ]
        return io.Schema(node_id="TestSave", is_output_node=True, inputs=[io.String.Input("file"), *optional], not_idempotent=True)

    @classmethod
    def execute(cls, file, latent=None, image=None, conditioning=None, sigmas=None) -> io.NodeOutput:
        tensors = {"sigmas": sigmas, "image": image}
        tensors["latent"] = None if latent is None else latent["samples"]
        tensors["conditioning"] = None if conditioning is None else conditioning[0][0]
        kept = {name: tensor.contiguous().cpu() for name, tensor in tensors.items() if tensor is not None}
        save_file(kept, os.path.join(folder_paths.get_output_directory(), os.path.basename(file)))
        return io.NodeOutput()


class TensorsExtension(ComfyExtension):
    async def get_node_list(self):
        return [NoiseFromFile, ImageFromFile, StepNoise, ConcatLatent, SaveTensors]


async def comfy_entrypoint():
    return TensorsExtension()
