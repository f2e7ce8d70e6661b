"""Nodes that load models."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..vc_core.adapters.table import identify_adapter
from ..vc_core.config import published
from ..vc_core.family.bundled import bundled_models
from ..vc_core.family.model_file import ModelFile
from ..vc_core.family.parts import PARTS
from .bridge.encoders import MissingPart, load_clip, load_clip_vision, load_vae
from .bridge.model import load_model
from .bridge.progress_text import show
from .bridge.schema import advanced, schema

#: Added to a bundled model's name in the list of checkpoints.
BUNDLED_MARK = " (bundled)"
#: In the list of bases.
NO_BASE = "none"
#: As in core's diffusion model loader.
WEIGHT_DTYPES = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}


class VideoCrafterLoader(io.ComfyNode):
    """Loads a checkpoint of the family as MODEL, CLIP, VAE and CLIP_VISION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        # The first one is the default of a new node: text to video, which needs no image.
        bundled = sorted(bundled_models(), key=lambda name: ("t2v" not in name, name))
        names = [name + BUNDLED_MARK for name in bundled] + folder_paths.get_filename_list("checkpoints")
        return schema(
            node_id="VideoCrafterLoader",
            display_name="Load VideoCrafter Model",
            category="VideoCrafter",
            description=(
                "Loads a VideoCrafter or DynamiCrafter model. The model and its size are detected from the file. The "
                "bundled models need no download; they are tiny and make moving coloured shapes."
            ),
            search_aliases=["videocrafter", "videocrafter2", "text to video", "image to video", "t2v", "i2v", "load checkpoint"],
            inputs=[
                io.Combo.Input(
                    "ckpt_name",
                    options=names,
                    tooltip="A .ckpt or .safetensors file in a checkpoints folder of ComfyUI (extra_model_paths.yaml "
                    "included), or a bundled model. After loading, the node shows which model it is.",
                ),
                advanced(
                    io.Combo.Input(
                        "weight_dtype",
                        options=list(WEIGHT_DTYPES),
                        default="default",
                        tooltip="Data type of the UNet weights. fp8 halves their memory and costs a little quality.",
                    )
                ),
                io.Combo.Input(
                    "model",
                    options=["auto", *published()],
                    default="auto",
                    optional=True,
                    tooltip="The model in the file. Leave it at auto unless an error asks for it. DynamiCrafter 512, "
                    "1024 and interpolation have the same tensors: if neither the file's schedule nor its name tells "
                    "which one it is, choose it here.",
                ),
                io.Combo.Input(
                    "base",
                    options=[NO_BASE, *names],
                    default=NO_BASE,
                    optional=True,
                    tooltip="For a file that holds a part of a model: the file with the rest. T2V-Turbo's files need "
                    "VideoCrafter2's here. none: the file is complete, or CLIP and VAE come from other loaders.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    tooltip="The video diffusion model, for VideoCrafter Sampler, KSampler or any node that takes a "
                    "MODEL.",
                ),
                io.Clip.Output(tooltip="The text encoder, for CLIPTextEncode."),
                io.Vae.Output(tooltip="The autoencoder, for VAEDecode and VAEEncode."),
                io.ClipVision.Output(
                    tooltip="The image encoder of an image-to-video model, for VideoCrafter Image to Video, "
                    "Interpolation or Keyframes.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, ckpt_name: str | None = None, base: str | None = NO_BASE, **_: object) -> tuple[int, ...] | None:
        """The files' identity, so that another file under the same name is loaded anew; None where a name comes by a link."""
        if ckpt_name is None or base is None:
            return None
        stats = [checkpoint_path(name).stat() for name in (ckpt_name, base) if name != NO_BASE]
        return tuple(number for stat in stats for number in (stat.st_ino, stat.st_size, stat.st_mtime_ns))

    @classmethod
    def execute(cls, ckpt_name: str, weight_dtype: str, model: str = "auto", base: str = NO_BASE) -> io.NodeOutput:
        path, below = checkpoint_path(ckpt_name), None if base == NO_BASE else checkpoint_path(base)
        file = ModelFile.open(path, None if model == "auto" else {"name": model}, below)
        patcher = load_model(file, WEIGHT_DTYPES[weight_dtype])
        remedy = "Use CLIPLoader with type sd2 and the text encoder of OpenCLIP ViT-H/14 (in models/text_encoders) instead."
        clip: object = MissingPart(file, "text encoder", remedy)
        if "text_encoder" in file.parts:
            clip = load_clip(file, folder_paths.get_folder_paths("embeddings"))
        remedy = "Use VAELoader with a VAE for Stable Diffusion 1 or 2 (vae-ft-mse-840000, in models/vae) instead."
        vae: object = MissingPart(file, "autoencoder", remedy)
        if "autoencoder" in file.parts:
            vae = load_vae(file)
        remedy = (
            "Use CLIPVisionLoader with OpenCLIP ViT-H/14 (in models/clip_vision) for an image-to-video model; "
            "text-to-video models take no image."
        )
        clip_vision: object = MissingPart(file, "image encoder", remedy)
        if "image_encoder" in file.parts:
            clip_vision = load_clip_vision(file)
        show(cls, description(file))
        return io.NodeOutput(patcher, clip, vae, clip_vision)


def checkpoint_path(name: str) -> Path:
    """The file of an entry in the list of checkpoints.

    Raises:
        FileNotFoundError: there is none.
    """
    if name.endswith(BUNDLED_MARK):
        return bundled_models()[name.removesuffix(BUNDLED_MARK)]
    return Path(folder_paths.get_full_path_or_raise("checkpoints", name))


def description(file: ModelFile) -> str:
    """The model of a file and its authors' settings, for the node to show."""
    config, sampling = file.config, file.config.sampling
    spacing = f", {sampling.spacing}" if sampling.spacing != "uniform" else ""
    guidance = f", guidance {sampling.distilled_guidance:g}" if config.unet.guidance_embedding else ""
    rescale = f", guidance_rescale {sampling.guidance_rescale:g}" if sampling.guidance_rescale else ""
    fps = f", fps {config.unet.default_fps}" if config.unet.fps_embedding else ""
    lines = [
        f"{config.title} ({config.name})",
        f"{sampling.width}x{sampling.height}, {sampling.frames} frames, {sampling.steps} steps{spacing}",
        f"cfg {sampling.guidance_scale:g}{rescale}{guidance}, eta {sampling.eta:g}{fps}",
        *([] if file.added is None else [f"with {identify_adapter(file.added).title}: VideoCrafter Apply Camera, VideoCrafter Trajectory"]),
        *file.notes,
    ]
    missing = [part.title for name, part in PARTS.items() if getattr(config, name) is not None and name not in file.parts]
    return "\n".join(lines) + (f"\nwithout its {' and '.join(missing)}" if missing else "")
