"""Nodes that put latents and masks into a graph exactly, and that look at what a model gets, what is shown of it and what is loaded."""

import gc
import os
import time

import comfy.latent_formats
import comfy.model_management
import comfy.sample
import comfy.samplers
import folder_paths
import latent_preview
import numpy as np
import torch
from comfy.taesd.taesd import TAESD
from comfy_api.latest import ComfyExtension, io
from safetensors.torch import load_file, save_file


def from_input(file: str, name: str) -> torch.Tensor:
    """A tensor of a file in the input folder."""
    return load_file(os.path.join(folder_paths.get_input_directory(), file))[name]


class LatentFromFile(io.ComfyNode):
    """The tensor ``latent`` of a file, without any word on how many videos it is."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestLatent", inputs=[io.String.Input("file")], outputs=[io.Latent.Output()])

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput({"samples": from_input(file, "latent")})


class MaskFromFile(io.ComfyNode):
    """The tensor ``mask`` of a file."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestMask", inputs=[io.String.Input("file")], outputs=[io.Mask.Output()])

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(from_input(file, "mask"))


class NetworkInput(io.ComfyNode):
    """What the network is called with when core noises a latent to each of some timesteps, one after the other."""

    @classmethod
    def define_schema(cls):
        inputs = [
            io.Model.Input("model"), io.Conditioning.Input("positive"), io.Noise.Input("noise"), io.Latent.Input("latent"),
            io.String.Input("timesteps"),
        ]
        outputs = [io.Latent.Output(), io.Sigmas.Output(display_name="timesteps")]
        return io.Schema(node_id="TestNetworkInput", inputs=inputs, outputs=outputs)

    @classmethod
    def execute(cls, model, positive, noise, latent, timesteps: str) -> io.NodeOutput:
        sampling = model.get_model_object("model_sampling")
        samples, calls = latent["samples"], []

        def remember(module, given):
            calls.append((given[0].clone(), given[1][:1].clone()))

        watch = model.model.diffusion_model.register_forward_pre_hook(remember)
        try:
            for timestep in map(int, timesteps.split(",")):
                sigmas = torch.stack([sampling.sigmas[timestep].cpu(), torch.zeros(())])
                comfy.sample.sample_custom(
                    model, noise.generate_noise(latent), 1.0, comfy.samplers.sampler_object("euler"), sigmas, positive, positive, samples
                )
        finally:
            watch.remove()
        seen = torch.cat([inputs[:, : samples.shape[1]] for inputs, _ in calls])
        return io.NodeOutput({"samples": seen}, torch.cat([timestep for _, timestep in calls]).float())


class LoadedModels(io.ComfyNode):
    """Class names of the models that ComfyUI holds ready, and how many of this pack's are alive at all."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Latent.Input("after", optional=True)]
        return io.Schema(node_id="TestLoaded", is_output_node=True, inputs=inputs, outputs=[], not_idempotent=True)

    @classmethod
    def execute(cls, after=None) -> io.NodeOutput:
        gc.collect()
        loaded = [type(entry.model.model).__name__ for entry in comfy.model_management.current_loaded_models if entry.model is not None]
        alive = sum(type(thing).__name__ == "VideoCrafterModel" for thing in gc.get_objects())
        return io.NodeOutput(ui={"loaded": loaded, "alive": [alive]})


class Foreseen(io.ComfyNode):
    """A model that takes its time for each step and predicts a given latent, whatever it gets."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.Latent.Input("latent"), io.Float.Input("seconds")]
        return io.Schema(node_id="TestForeseen", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, latent, seconds: float) -> io.NodeOutput:
        def foreseen(args):
            time.sleep(seconds)
            return model.model.process_latent_in(latent["samples"]).to(args["denoised"])

        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(foreseen)
        return io.NodeOutput(clone)


class Stills(io.ComfyNode):
    """What core shows of each frame of a latent of Stable Diffusion."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestStills", inputs=[io.Latent.Input("latent")], outputs=[io.Image.Output()])

    @classmethod
    def execute(cls, latent) -> io.NodeOutput:
        space = comfy.latent_formats.SD15()
        previewer = latent_preview.get_previewer(torch.device("cpu"), space)
        stills = [previewer.decode_latent_to_preview(frame[None]) for frame in space.process_in(latent["samples"])]
        return io.NodeOutput(torch.from_numpy(np.stack([np.asarray(still) for still in stills])).float() / 255)


class RandomTAESD(io.ComfyNode):
    """Writes a small decoder of random weights to where previews look for it."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestTAESD", is_output_node=True, inputs=[], outputs=[], not_idempotent=True)

    @classmethod
    def execute(cls) -> io.NodeOutput:
        decoder = TAESD(None, None, latent_channels=4).taesd_decoder
        generator = torch.Generator().manual_seed(0)
        weights = {}
        for name, value in decoder.state_dict().items():
            weights[name] = torch.zeros(value.shape)  # biases; ComfyUI's layers begin with anything
            if value.ndim > 1:
                weights[name] = torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
        folder = folder_paths.get_folder_paths("vae_approx")[0]
        os.makedirs(folder, exist_ok=True)
        save_file(weights, os.path.join(folder, "taesd_decoder.safetensors"))
        return io.NodeOutput()


class WatchingExtension(ComfyExtension):
    async def get_node_list(self):
        return [LatentFromFile, MaskFromFile, NetworkInput, LoadedModels, Foreseen, Stills, RandomTAESD]


async def comfy_entrypoint():
    return WatchingExtension()
