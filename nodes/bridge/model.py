"""MODEL: the core's UNet as a model of ComfyUI's.

To ComfyUI a video is a batch of frames ``[T, 4, h, w]``, as for its other video models of that time, so that samplers, noise
masks, previews and other people's nodes see what they know. Just before the UNet the batch is folded into videos, and
unfolded after it.
"""

from __future__ import annotations

from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models_base
import torch
from comfy.ldm.modules.attention import optimized_attention, optimized_attention_for_device
from einops import rearrange
from torch import Tensor

from ...vc_core.config import ModelConfig, UNetConfig
from ...vc_core.diffusion.schedule import Schedule
from ...vc_core.loading import ModelFile
from ...vc_core.models.layers import Layers
from ...vc_core.models.projector import Projector
from ...vc_core.models.unet import UNet
from .frames import FRAMES_KEY
from .sampling import ScaledModelSampling

#: Sequences up to this length (temporal attention, image tokens) are small to ComfyUI's choice of attention.
SMALL_SEQUENCE = 64
#: Conditioning key: the frames a second that the model is told.
FPS_KEY = "fps"
#: Conditioning keys: the image tower's features of each video's picture ``[B, n, width]``, and how strongly they are seen.
FEATURES_KEY = "image_features"
STRENGTH_KEY = "image_strength"
#: Conditioning key: the latents of pictures for each frame, as the VAE gives them. Core's image-to-video models use it too.
KEYFRAMES_KEY = "concat_latent_image"


def chosen_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """The attention that the user's ComfyUI is set to, in the shapes of :data:`vc_core.models.layers.Attention`."""
    attention = optimized_attention
    if k.shape[1] <= SMALL_SEQUENCE:
        attention = optimized_attention_for_device(q.device, mask=bias is not None, small_input=True)
    return attention(q, k, v, heads, mask=bias)


class FoldedUNet(UNet):
    """The UNet as ComfyUI calls it: on batches of frames, several conditionings one after the other."""

    def __init__(self, config: UNetConfig, dtype: torch.dtype, device: Any = None, operations: Any = None) -> None:
        super().__init__(config, Layers(operations, chosen_attention, device, dtype))
        self.dtype = dtype

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] = {},
        num_video_frames: int | None = None,
        fps: Tensor | None = None,
        image_tokens: Tensor | None = None,
        image_strength: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """``[n, 4, h, w]``, n being conditionings times videos times frames, in this order; all else has n rows too.

        Raises:
            ValueError: the batch doesn't divide into videos of that many frames.
            NotImplementedError: a ControlNet is applied.
        """
        if control is not None:
            raise NotImplementedError("VideoCrafter models don't take ControlNets yet: remove the ControlNet from the conditioning.")
        conditionings = len(transformer_options.get("cond_or_uncond", [0]))
        frames = num_video_frames or x.shape[0] // conditionings
        if x.shape[0] % (conditionings * frames):
            raise ValueError(
                f"The latent has {x.shape[0] // conditionings} frames, which does not divide into videos of {frames}: give the "
                "conditioning node the latent that is sampled."
            )
        # What is the same for all frames of a video is read off its first.
        def of_video(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[::frames]

        video = rearrange(x, "(n t) c h w -> n c t h w", t=frames)
        out = super().forward(
            video, of_video(timesteps), of_video(context), of_video(image_tokens), of_video(fps), image_strength=of_video(image_strength)
        )
        return rearrange(out, "n c t h w -> (n t) c h w")


class VideoCrafterModelConfig(comfy.supported_models_base.BASE):
    """What ComfyUI asks of a model's configuration."""

    unet_config: dict[str, Any] = {}
    unet_extra_config: dict[str, Any] = {}
    latent_format = comfy.latent_formats.SD15
    sampling_settings: dict[str, Any] = {}
    supported_inference_dtypes = [torch.float16, torch.bfloat16, torch.float32]
    memory_usage_factor = 2.0

    def __init__(self, config: ModelConfig, has_projector: bool) -> None:
        super().__init__({"config": config.unet})
        self.config, self.has_projector = config, has_projector
        self.latent_format = comfy.latent_formats.SD15(config.autoencoder.scale_factor)


class VideoCrafterModel(comfy.model_base.BaseModel):
    """The model that ComfyUI loads, moves, patches and samples."""

    def __init__(self, model_config: VideoCrafterModelConfig, device: Any = None) -> None:
        types = comfy.model_base.ModelType
        kind = types.EPS if model_config.config.schedule.prediction == "eps" else types.V_PREDICTION
        super().__init__(model_config, kind, device=device, unet_model=FoldedUNet)
        self.config = model_config.config
        self.model_sampling = ScaledModelSampling(Schedule.from_config(self.config.schedule), self.config.sampling.spacing)
        self.image_proj_model: Projector | None = None
        if model_config.has_projector:
            operations = comfy.ops.pick_operations(self.get_dtype(), self.manual_cast_dtype)
            layers = Layers(operations, chosen_attention, device, self.get_dtype())
            self.image_proj_model = Projector(self.config.projector, layers).requires_grad_(False).eval()

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Text as in core, the number of frames (all of the batch unless said), fps, and the picture's tokens."""
        out = super().extra_conds(**kwargs)
        batch = kwargs["noise"].shape[0]
        frames = kwargs.get(FRAMES_KEY) or batch
        out[FRAMES_KEY] = comfy.conds.CONDConstant(frames)
        fps = kwargs.get(FPS_KEY)
        out[FPS_KEY] = comfy.conds.CONDRegular(torch.tensor([self.config.unet.default_fps if fps is None else fps], dtype=torch.float32))
        features = kwargs.get(FEATURES_KEY)
        if features is not None:
            tokens = self.image_tokens(features.to(kwargs["device"]), videos=max(1, batch // frames))
            out["image_tokens"] = comfy.conds.CONDRegular(tokens if len(tokens) == 1 else tokens.repeat_interleave(frames, dim=0))
            out[STRENGTH_KEY] = comfy.conds.CONDRegular(torch.tensor([kwargs.get(STRENGTH_KEY, 1.0)]))
        return out

    def concat_cond(self, **kwargs: Any) -> Tensor | None:
        """The pictures' latents for the input channels beside the noisy latent, ``[n, 4, h, w]`` with a row a frame.

        Raises:
            ValueError: the model needs them and there are none, or they are of another size.
        """
        if not self.config.unet.concat_channels:
            return None
        latents, noise = kwargs.get(KEYFRAMES_KEY), kwargs["noise"]
        if latents is None:
            raise ValueError(
                f"{self.config.title} needs the latent of its picture: connect vae and latent to VideoCrafter Image to Video (or to "
                "VideoCrafter Interpolation)."
            )
        batch = noise.shape[0]
        if latents.shape[1:] != noise.shape[1:] or batch % latents.shape[0]:
            raise ValueError(
                f"The picture's latents are {list(latents.shape)} and the video's {list(noise.shape)} (frames, channels, height, width): "
                "give the node that takes the picture the latent that is sampled."
            )
        return self.process_latent_in(latents).repeat(batch // latents.shape[0], 1, 1, 1).to(kwargs["device"])

    def image_tokens(self, features: Tensor, videos: int) -> Tensor:
        """Features of one picture, or of one a video, ``[n, l, width]`` -> image tokens ``[n, m, context]``.

        Raises:
            ValueError: a model without a projector, features of another width, or pictures that don't match the videos.
        """
        if self.image_proj_model is None:
            raise ValueError(
                f"{self.config.title} can't take a picture: its file has no image projector (image_proj_model). "
                "Use an image-to-video model."
            )
        width = self.config.projector.feature_dim
        if features.shape[-1] != width:
            raise ValueError(
                f"The CLIP vision model gives features of width {features.shape[-1]}, but {self.config.title} needs {width}: use the CLIP "
                "vision output of the model's own loader, or OpenCLIP ViT-H/14."
            )
        if len(features) not in (1, videos):
            raise ValueError(f"There are {len(features)} pictures for {videos} videos: give one, or set batch_size to {len(features)}.")
        return self.image_proj_model(features.to(self.manual_cast_dtype or self.get_dtype()))


def load_model(file: ModelFile, model_options: dict[str, Any]) -> comfy.model_patcher.ModelPatcher:
    """Build the model of a file and put it under ComfyUI's management.

    Args:
        model_options: ``dtype`` and ``fp8_optimizations``, as in core's diffusion model loader; both may be missing.
    """
    weights = file.tensors("unet")
    config = VideoCrafterModelConfig(file.config, has_projector="projector" in file.parts)
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    dtype = model_options.get("dtype") or comfy.model_management.unet_dtype(
        model_params=sum(tensor.numel() for tensor in weights.values()),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=next(iter(weights.values())).dtype,
    )
    cast = comfy.model_management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    config.optimizations["fp8"] = model_options.get("fp8_optimizations", False)

    model = VideoCrafterModel(config, device=offload_device)
    # Looked up now, not at import: where the server has a GPU it puts another class under this name when it starts.
    patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    # assign=True would bind the file's read-only mapping to the model, so weights are always copied.
    model.load_model_weights(weights, "")
    if model.image_proj_model is not None:
        model.image_proj_model.load_state_dict(file.tensors("projector"))
    return patcher
