"""CLIP, VAE and CLIP_VISION: ComfyUI's own classes, with the weights of a checkpoint of the family.

The text tower is Stable Diffusion 2's and the autoencoder Stable Diffusion's, so ComfyUI's nodes for these work. Towers and
autoencoders of other sizes (the bundled models') differ only in the sizes they are built with.

The functions that end in ``_patcher`` are how ComfyUI loads one of them again, for another device (``cached_patcher_init``).
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import folder_paths
from comfy.text_encoders.sd2_clip import SD2ClipHTokenizer, SD2ClipModel, SD2Tokenizer

from ...vc_core.config import AutoencoderConfig, TextEncoderConfig
from ...vc_core.errors import printable
from ...vc_core.family.model_file import ModelFile

#: Prefix that ComfyUI's converter expects before the names of the core's tensors.
TEXT_PREFIX = "cond_stage_model.model."


def load_clip(file: ModelFile, embedding_directory: Any, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """ComfyUI's CLIP with the text tower of a file.

    Args:
        disable_dynamic: load all weights at once rather than when they are used.
    """
    weights = file.tensors("text_encoder")
    converted = comfy.supported_models.SD20.process_clip_state_dict(
        None, {TEXT_PREFIX + name: tensor for name, tensor in weights.items()}
    )
    clip = comfy.sd.CLIP(
        target=_clip_target(file.config.text_encoder),
        embedding_directory=embedding_directory,
        parameters=sum(tensor.numel() for tensor in weights.values()),
        **({"disable_dynamic": True} if disable_dynamic else {}),  # older releases don't have it
    )
    missing, _ = clip.load_sd(converted, full_model=True)
    assert not [name for name in missing if not name.endswith("logit_scale")], missing
    clip.patcher.cached_patcher_init = (clip_patcher, (file, embedding_directory))
    return clip


def clip_patcher(file: ModelFile, embedding_directory: Any, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The text tower alone, newly loaded; see :func:`load_clip`."""
    return load_clip(file, embedding_directory, disable_dynamic).patcher


def load_vae(file: ModelFile) -> comfy.sd.VAE:
    """ComfyUI's VAE with the autoencoder of a file."""
    vae = comfy.sd.VAE(sd=file.tensors("autoencoder"), config={"params": _autoencoder_parameters(file.config.autoencoder)})
    vae.downscale_ratio = vae.upscale_ratio = file.config.downscale
    vae.patcher.cached_patcher_init = (vae_patcher, (file,))
    return vae


def vae_patcher(file: ModelFile, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The autoencoder alone, newly loaded; ``disable_dynamic`` is ignored, as by core's own for VAEs."""
    return load_vae(file).patcher


def load_clip_vision(file: ModelFile) -> comfy.clip_vision.ClipVisionModel:
    """ComfyUI's CLIP_VISION with the image tower of a file."""
    config = file.config.image_encoder
    assert config is not None, "the file has no image encoder"
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
    encoder.patcher.cached_patcher_init = (clip_vision_patcher, (file,))
    return encoder


def clip_vision_patcher(file: ModelFile, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The image tower alone, newly loaded; ``disable_dynamic`` is ignored, since core's class for it has no such choice."""
    return load_clip_vision(file).patcher


def _clip_target(config: TextEncoderConfig) -> comfy.supported_models_base.ClipTarget:
    """Tokenizer and model for a tower of any size; for the published size they equal those of Stable Diffusion 2."""
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
            )

    class Model(SD2ClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: dict[str, Any] = {}, **kwargs: Any) -> None:
            comfy.sd1_clip.SD1ClipModel.__init__(
                self, device=device, dtype=dtype, model_options=model_options, clip_name="h", clip_model=Tower
            )

    class WindowTokenizer(SD2ClipHTokenizer):
        """Takes textual inversions of the tower's own width."""

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
    """A placeholder for a part that a file lacks; using it raises an error that says so.

    The error is an AttributeError, so that ``hasattr`` works on it, as ComfyUI uses it.
    """

    def __init__(self, file: ModelFile, part: str, remedy: str) -> None:
        self._message = f"{printable(file.checkpoint.path.name)} holds no {part}. {remedy}"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(self.__dict__["_message"])
