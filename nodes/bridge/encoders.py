"""CLIP, VAE and CLIP_VISION: ComfyUI's own classes, filled from a checkpoint of the family.

The text tower is Stable Diffusion 2's and the autoencoder Stable Diffusion's, so their own nodes take them. Towers and
autoencoders of other sizes (the bundled model's) differ in the numbers they are built with only.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import folder_paths
import torch
from comfy.text_encoders.sd2_clip import SD2ClipHTokenizer, SD2ClipModel, SD2Tokenizer
from torch import Tensor

from ...vc_core.config import AutoencoderConfig, TextEncoderConfig
from ...vc_core.family.model_file import ModelFile
from ...vc_core.media.images import fit_picture
from ...vc_core.models.image_encoder import prepare_pictures
from .frames import frames_per_video

#: Added to the names of the core's tensors, this is what ComfyUI's converter expects.
TEXT_PREFIX = "cond_stage_model.model."


def load_clip(file: ModelFile, embedding_directory: Any) -> comfy.sd.CLIP:
    """ComfyUI's CLIP with the text tower of a file."""
    weights = file.tensors("text_encoder")
    converted = comfy.supported_models.SD20.process_clip_state_dict(
        None, {TEXT_PREFIX + name: tensor for name, tensor in weights.items()}
    )
    clip = comfy.sd.CLIP(
        target=_clip_target(file.config.text_encoder),
        embedding_directory=embedding_directory,
        parameters=sum(tensor.numel() for tensor in weights.values()),
    )
    missing, _ = clip.load_sd(converted, full_model=True)
    assert not [name for name in missing if not name.endswith("logit_scale")], missing
    return clip


def load_vae(file: ModelFile) -> comfy.sd.VAE:
    """ComfyUI's VAE with the autoencoder of a file."""
    vae = comfy.sd.VAE(sd=file.tensors("autoencoder"), config={"params": _autoencoder_parameters(file.config.autoencoder)})
    vae.downscale_ratio = vae.upscale_ratio = file.config.downscale
    return vae


def load_clip_vision(file: ModelFile) -> comfy.clip_vision.ClipVisionModel:
    """ComfyUI's CLIP_VISION with the image tower of a file."""
    config = file.config.image_encoder
    assert config is not None, "the file was said to hold an image encoder"
    architecture = {
        "hidden_act": "gelu",
        "hidden_size": config.width,
        "image_size": config.image_size,
        "intermediate_size": 4 * config.width,
        "layer_norm_eps": 1e-5,
        "model_type": "clip_vision_model",
        "num_attention_heads": config.heads,
        "num_channels": 3,
        "num_hidden_layers": config.layers,
        "patch_size": config.patch_size,
        "projection_dim": config.embed_dim,
    }
    temporary = folder_paths.get_temp_directory()
    os.makedirs(temporary, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=temporary) as folder:  # older releases take a path only
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(architecture))
        encoder = comfy.clip_vision.ClipVisionModel(str(path))
    missing, _ = encoder.load_sd(comfy.clip_vision.convert_to_transformers(file.tensors("image_encoder"), ""))
    assert not missing, missing
    return encoder


def image_features(encoder: Any, pictures: Tensor) -> Tensor:
    """The image tower's features as the authors take them: the whole picture, stretched, and the last layer's tokens before the norm.

    Args:
        encoder: a CLIP_VISION.
        pictures: an IMAGE ``[B, H, W, C]`` in [0, 1], as :func:`rgb_pictures` takes it.

    Returns:
        ``[B, 1 + patches, width]``.

    Raises:
        ValueError: another number of channels.
    """
    return _run_tower(encoder, rgb_pictures(pictures) * 2 - 1)[0].to(comfy.model_management.intermediate_device())


def keyframe_latents(vae: Any, first: Tensor, last: Tensor | None, latent: dict[str, Any]) -> Tensor:
    """The latents that a model's input channels get of pictures (see :meth:`vc_core.pipeline.VideoModel.keyframe_latents`).

    Args:
        vae: a VAE.
        first: an IMAGE, one picture or one a video.
        last: likewise, for videos that are to end with a picture.
        latent: the LATENT that is sampled, whose size and frames they get.

    Returns:
        ``[videos * T, C, h, w]`` as the VAE gives them, or ``[T, C, h, w]`` where there is one picture.

    Raises:
        ValueError: two pictures for videos of one frame.
    """
    frames = frames_per_video(latent)
    height, width = (side * vae.downscale_ratio for side in latent["samples"].shape[2:])

    def encoded(pictures: Tensor) -> Tensor:
        fitted = fit_picture(rgb_pictures(pictures), height, width)
        return vae.encode(fitted.movedim(1, -1))

    start = encoded(first)[:, None].expand(-1, frames, -1, -1, -1)
    if last is not None:
        if frames < 2:
            raise ValueError(f"The latent has {frames} frame; a clip between two pictures has at least 2.")
        start = torch.cat([start[:, :1], torch.zeros_like(start[:, 2:]), encoded(last)[:, None]], dim=1)
    return start.flatten(0, 1)


def image_embeddings(encoder: Any, pictures: Tensor) -> Tensor:
    """CLIP's embeddings ``[B, d]`` of pictures ``[B, 3, H, W]`` in [-1, 1], prepared as the authors do."""
    return _run_tower(encoder, pictures)[2].float()


def frames_for(vae: Any, latent: dict[str, Any]) -> Tensor:
    """The frames ``[T, C, h, w]`` of a LATENT that a VAE is to decode.

    Raises:
        ValueError: there are none, or another kind of model made them.
    """
    samples: Tensor = latent["samples"]
    channels = vae.latent_channels
    if samples.ndim != 4 or samples.shape[1] != channels or not samples.numel():
        raise ValueError(
            f"The latent is {list(samples.shape)}, but this VAE decodes frames of {channels} channels, [frames, {channels}, height, "
            "width], at least one. Connect the VAE of the model that made the latent, and a latent with frames in it."
        )
    return samples


def rgb_pictures(pictures: Tensor) -> Tensor:
    """An IMAGE ``[B, H, W, C]``, C being 1 (grey), 3 or 4 (the alpha is left out) -> ``[B, 3, H, W]`` in its range, in float32.

    Raises:
        ValueError: there is no picture in it, or it has another type or number of channels.
    """
    if pictures.ndim != 4 or not pictures.numel() or not pictures.is_floating_point():
        raise ValueError(
            f"The picture is {list(pictures.shape)} of {pictures.dtype}, but an image is [pictures, height, width, channels] of floating "
            "point numbers and has at least one pixel. Connect one that a loading or decoding node gives."
        )
    channels = pictures.shape[-1]
    if channels not in (1, 3, 4):
        raise ValueError(f"The picture has {channels} channels; 1 (grey), 3 (RGB) or 4 (RGBA) are possible. Connect such a one.")
    return pictures[..., :3].float().expand(*pictures.shape[:-1], 3).movedim(-1, 1)


def _run_tower(encoder: Any, pictures: Tensor) -> tuple[Tensor, ...]:
    comfy.model_management.load_model_gpu(encoder.patcher)
    pixels = prepare_pictures(pictures.to(encoder.load_device), encoder.image_size)
    return encoder.model(pixel_values=pixels, intermediate_output=-2)


def _clip_target(config: TextEncoderConfig) -> comfy.supported_models_base.ClipTarget:
    """Tokenizer and model for a tower of any size; the published one's are exactly those of Stable Diffusion 2."""
    architecture = {
        "hidden_act": "gelu",
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": config.context_length,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "vocab_size": config.vocab_size,
        "eos_token_id": 49407,
    }

    class Tower(comfy.sd1_clip.SDClipModel):
        """Read one layer before the end, through the final norm."""

        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] = {}, **kwargs: Any) -> None:
            super().__init__(
                device=device, dtype=dtype, layer="hidden", layer_idx=-2, textmodel_json_config=dict(architecture),
                special_tokens={"start": 49406, "end": 49407, "pad": 0}, return_projected_pooled=True, model_options=model_options,
            )  # fmt: skip

    class Model(SD2ClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] = {}, **kwargs: Any) -> None:
            comfy.sd1_clip.SD1ClipModel.__init__(
                self, device=device, dtype=dtype, model_options=model_options, clip_name="h", clip_model=Tower
            )

    class WindowTokenizer(SD2ClipHTokenizer):
        """Textual inversions of the tower's own width."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.embedding_size = config.width

    class Tokenizer(SD2Tokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: dict[str, Any] = {}) -> None:
            comfy.sd1_clip.SD1Tokenizer.__init__(
                self, embedding_directory=embedding_directory, tokenizer_data=tokenizer_data, clip_name="h", tokenizer=WindowTokenizer
            )

    return comfy.supported_models_base.ClipTarget(Tokenizer, Model)


def _autoencoder_parameters(config: AutoencoderConfig) -> dict[str, Any]:
    sizes = {
        "double_z": True,
        "z_channels": config.z_channels,
        "resolution": 256,
        "in_channels": config.image_channels,
        "out_ch": config.image_channels,
        "ch": config.channels,
        "ch_mult": list(config.channel_mult),
        "num_res_blocks": config.num_res_blocks,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    return {"ddconfig": sizes, "embed_dim": config.embed_dim}


class MissingPart:
    """Stands where a file lacks a part, and says so as soon as it is used.

    The error is an AttributeError, so that ComfyUI can ask whether it has an attribute without using it.
    """

    def __init__(self, file: ModelFile, part: str, remedy: str) -> None:
        self._message = f"{file.checkpoint.path.name} holds no {part}. {remedy}"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(self.__dict__["_message"])
