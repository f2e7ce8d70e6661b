"""Nodes that load models."""

from __future__ import annotations

import folder_paths
import torch
from comfy_api.latest import io

from ..vc_core.config import published
from ..vc_core.family.bundled import bundled_models
from ..vc_core.family.model_file import ModelFile
from .bridge.encoders import MissingPart, load_clip, load_clip_vision, load_vae
from .bridge.model import load_model
from .bridge.progress_text import show
from .bridge.schema import advanced, schema

#: How a bundled model is listed, after its name.
BUNDLED_MARK = " (bundled)"
#: What files of the family may lack.
PARTS = ("text_encoder", "autoencoder", "image_encoder", "projector")
#: As in core's diffusion model loader.
WEIGHT_DTYPES = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}


class VideoCrafterLoader(io.ComfyNode):
    """A checkpoint of the family to MODEL, CLIP, VAE and CLIP_VISION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        # The first is what a new node has: text to video, which needs least.
        bundled = sorted(bundled_models(), key=lambda name: ("t2v" not in name, name))
        names = [name + BUNDLED_MARK for name in bundled] + folder_paths.get_filename_list("checkpoints")
        return schema(
            node_id="VideoCrafterLoader",
            display_name="Load VideoCrafter Model",
            category="VideoCrafter",
            description=(
                "Loads a text-to-video or image-to-video model of the VideoCrafter family. Which one it is, and of which size, is read off "
                "the file. The bundled model is tiny and knows coloured shapes that move; it needs no download."
            ),
            search_aliases=["videocrafter", "videocrafter2", "text to video", "image to video", "t2v", "i2v", "load checkpoint"],
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=names,
                    tooltip="A .ckpt or .safetensors file in ComfyUI's checkpoints folders (those of extra_model_paths.yaml too), or a "
                    "bundled model. Once loaded, the node shows which model it is.",
                ),
                advanced(
                    io.Combo.Input(
                        "weight_dtype",
                        options=list(WEIGHT_DTYPES),
                        default="default",
                        tooltip="The type the UNet's weights are kept in. fp8 halves their memory at a small loss of quality.",
                    )
                ),
                io.Combo.Input(
                    "model",
                    options=["auto", *published()],
                    default="auto",
                    optional=True,
                    tooltip="Which model the file holds. It is read off the file; only DynamiCrafter's for 512, 1024 and interpolation "
                    "have the same tensors, and files without a schedule or a telling name must be told apart here.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The video diffusion model, for KSampler and all that takes a MODEL."),
                io.Clip.Output(tooltip="The text encoder, for CLIPTextEncode."),
                io.Vae.Output(tooltip="The autoencoder, for VAEDecode and VAEEncode."),
                io.ClipVision.Output(tooltip="The image encoder of an image-to-video model, for VideoCrafter Image to Video."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, ckpt_name: str, weight_dtype: str, model: str = "auto") -> io.NodeOutput:
        if ckpt_name.endswith(BUNDLED_MARK):
            path = bundled_models()[ckpt_name.removesuffix(BUNDLED_MARK)]
        else:
            path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        file = ModelFile.open(path, None if model == "auto" else {"name": model})
        patcher = load_model(file, WEIGHT_DTYPES[weight_dtype])
        remedy = "Use CLIPLoader with type sd2 and OpenCLIP ViT-H's text tower (in models/text_encoders) instead."
        clip: object = MissingPart(file, "text encoder", remedy)
        if "text_encoder" in file.parts:
            clip = load_clip(file, folder_paths.get_folder_paths("embeddings"))
        remedy = "Use VAELoader with Stable Diffusion's VAE (vae-ft-mse-840000, in models/vae) instead."
        vae: object = MissingPart(file, "autoencoder", remedy)
        if "autoencoder" in file.parts:
            vae = load_vae(file)
        remedy = (
            "Use CLIPVisionLoader with OpenCLIP ViT-H/14 (in models/clip_vision) for an image-to-video model; text-to-video models take no "
            "picture."
        )
        clip_vision: object = MissingPart(file, "image encoder", remedy)
        if "image_encoder" in file.parts:
            clip_vision = load_clip_vision(file)
        show(cls, told(file))
        return io.NodeOutput(patcher, clip, vae, clip_vision)


def told(file: ModelFile) -> str:
    """What a file holds, for the node to show."""
    missing = [part.replace("_", " ") for part in PARTS if getattr(file.config, part) is not None and part not in file.parts]
    return f"{file.config.title} ({file.config.name})" + (f"; without its {' and '.join(missing)}" if missing else "")
