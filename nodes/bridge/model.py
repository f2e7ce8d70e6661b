"""MODEL: the core's UNet as a model of ComfyUI's.

To ComfyUI a video is a batch of frames ``[T, 4, h, w]``, as for its other video models based on Stable Diffusion, so that
samplers, noise masks, previews and other packs' nodes work. The batch is folded into videos just before the UNet, and unfolded
after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.supported_models
import comfy.supported_models_base
import torch
from torch import Tensor

from ...vc_core.checkpoint.reading import Checkpoint
from ...vc_core.config import ModelConfig, UNetConfig
from ...vc_core.diffusion.schedule import Schedule
from ...vc_core.family.model_file import ModelFile
from ...vc_core.kernels.operations import operations_for
from ...vc_core.memory import activations_per_position
from ...vc_core.models.conditioning import Conditioning
from ...vc_core.models.layers import LayerFactory
from ...vc_core.models.projector import Projector
from ...vc_core.models.unet import UNet
from . import distilled, foreign_layers, previews, windows
from .adapters import attach_adapter
from .attention import EXPLICIT_ATTENTION, QUERIES_AT_ONCE, attention_on, chosen_attention
from .deep_cache import deep_features_of
from .depth import DEPTH_KEY, check_depth_taken, depth_latents
from .frames import FRAMES_KEY, check_noise, checked_frames, fold, unfold
from .hooks import ROLE_KEY, check_controlnet, hooks_of, role_of
from .keyframes import FEATURES_KEY, KEYFRAMES_KEY, PLACE_KEY, check_place, latents_of_frames, scaled_to
from .memory import check_pass
from .sampling import ScaledModelSampling
from .text import TEXT_PER_FRAME_KEY, AnyOf, check_text, text_of_frames

#: Conditioning key: the model's fps condition.
FPS_KEY = "fps"
#: Conditioning key: the strength of attention to the image.
STRENGTH_KEY = "image_strength"


class FoldedUNet(UNet):
    """The UNet as ComfyUI calls it: on batches of frames, several conditionings one after the other."""

    def __init__(
        self, config: UNetConfig, dtype: torch.dtype, device: Any = None, operations: Any = None, **described: Any
    ) -> None:
        """``described`` is ignored: :func:`core_terms` of ``config``, which ComfyUI passes too."""
        operations = operations_for(comfy.model_management.get_torch_device(), operations)
        super().__init__(config, LayerFactory(operations, chosen_attention, device, dtype))
        self.dtype = dtype

    def to(self, *args: Any, **kwargs: Any) -> FoldedUNet:
        """As ``torch.nn.Module.to``, but channels-last is applied to 4-D weights only; those of Conv3d are 5-D."""
        if kwargs.get("memory_format") is torch.channels_last:
            for weight in self.parameters():
                if weight.ndim == 4:
                    weight.data = weight.data.to(memory_format=torch.channels_last)
            kwargs = {name: value for name, value in kwargs.items() if name != "memory_format"}
        return super().to(*args, **kwargs) if args or kwargs else self

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        transformer_options: dict[str, Any] = {},
        **kwargs: Any,
    ) -> Tensor:
        """:meth:`evaluate`, within the wrappers that nodes added. They rely on the order of the first six arguments, which is core's."""
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self.evaluate, self, wrappers)
        return executor.execute(x, timesteps, context, y, control, transformer_options, **kwargs)

    def evaluate(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        transformer_options: dict[str, Any] = {},
        num_video_frames: int | None = None,
        fps: Tensor | None = None,
        image_tokens: Tensor | None = None,
        image_strength: Tensor | None = None,
        role: Tensor | None = None,
        text_per_frame: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """``[n, c, h, w]`` -> ``[n, 4, h, w]``, n being conditionings times videos times frames, in this order.

        All other tensors have n rows too.

        Core's training has a row for each video in place of each frame, ``[n, c, T, h, w]`` -> ``[n, 4, T, h, w]``; there, control, hooks
        and DeepCache have no place.

        Args:
            y: ignored; no model of the family has classes.
            text_per_frame: the rows of ``context`` differ within a video.
            kwargs: the scales of :mod:`.distilled`; others are ignored.
            control: residuals, see :func:`.hooks.hooks_of`.

        Raises:
            ValueError: the batch is no multiple of the number of frames; patches or residuals that don't fit.
        """
        if x.ndim == 5:
            scales = distilled.scales_of_videos(kwargs)
            return UNet.forward(self, x, timesteps, Conditioning(context, image_tokens, image_strength, fps, **scales))
        conditionings = len(transformer_options.get("cond_or_uncond", [0]))
        frames = num_video_frames or x.shape[0] // conditionings
        if x.shape[0] % (conditionings * frames):
            raise ValueError(
                f"The latent has {x.shape[0] // conditionings} frames, which is not a multiple of the conditioning's {frames} frames per "
                "video: connect the latent that is sampled to the conditioning node."
            )

        def of_video(value: Tensor | None) -> Tensor | None:  # conditions of a video are read off its first frame's row
            return None if value is None else value[::frames]

        videos = fold(x, frames)
        conditioning = Conditioning(
            context.unflatten(0, (-1, frames)) if text_per_frame else context[::frames],
            of_video(image_tokens), of_video(image_strength), of_video(fps), **distilled.scales_of_videos(kwargs, frames),
        )
        hooks = hooks_of(transformer_options, control, videos, timesteps[::frames], conditioning, of_video(role))
        attention = None
        if "optimized_attention_override" in transformer_options:
            attention = partial(chosen_attention, transformer_options=transformer_options)
        run = self.prepare(videos, timesteps[::frames], conditioning, hooks, attention)
        hidden = self.stem(videos, conditioning, run)
        features = deep_features_of(transformer_options, x)
        hidden = self.body(hidden, run) if features is None else features.run(self, hidden, run)
        return unfold(self.head(hidden, run))


def core_terms(config: UNetConfig) -> dict[str, Any]:
    """The spatial part of a UNet in ComfyUI's terms, which nodes read (FreeU the widths, LoRA loaders the blocks)."""
    attends = [2**level in config.attention_resolutions for level in range(len(config.channel_mult))]

    def depths(blocks: int) -> list[int]:
        return [config.transformer_depth if at else 0 for at in attends for _ in range(blocks)]

    return {
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
        "adm_in_channels": None,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "model_channels": config.model_channels,
        "channel_mult": list(config.channel_mult),
        "num_res_blocks": [config.num_res_blocks] * len(attends),
        "transformer_depth": depths(config.num_res_blocks),
        "transformer_depth_output": depths(config.num_res_blocks + 1),
        "transformer_depth_middle": config.transformer_depth,
        "use_linear_in_transformer": True,
        "context_dim": config.context_dim,
        "num_heads": -1,
        "num_head_channels": config.head_channels,
    }


class VideoCrafterModelConfig(comfy.supported_models_base.BASE):
    """The model configuration that ComfyUI needs."""

    unet_config: dict[str, Any] = {}
    unet_extra_config: dict[str, Any] = {}
    latent_format = previews.FramesFormat
    sampling_settings: dict[str, Any] = {}
    supported_inference_dtypes = [torch.float16, torch.bfloat16, torch.float32]

    def __init__(self, config: ModelConfig, has_projector: bool) -> None:
        super().__init__(core_terms(config.unet))
        self.config, self.has_projector = config, has_projector
        # In core's unit: 0.01 MiB per position and byte of the data type.
        self.memory_usage_factor = activations_per_position(config.unet) / (0.01 * 2**20)
        self.latent_format = previews.FramesFormat(config.autoencoder.scale_factor)

    def process_clip_state_dict_for_saving(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Under the names that the family's files have, which are Stable Diffusion 2's."""
        return comfy.supported_models.SD20.process_clip_state_dict_for_saving(self, state_dict)


class VideoCrafterModel(comfy.model_base.BaseModel):
    """The model that ComfyUI loads, moves, patches and samples."""

    def __init__(self, model_config: VideoCrafterModelConfig, device: Any = None) -> None:
        types = comfy.model_base.ModelType
        kind = types.EPS if model_config.config.schedule.prediction == "eps" else types.V_PREDICTION
        super().__init__(model_config, kind, device=device, unet_model=partial(FoldedUNet, model_config.config.unet))
        self.config = model_config.config
        self.model_sampling = ScaledModelSampling(Schedule.from_config(self.config.schedule), self.config.sampling.spacing)
        self.image_proj_model: Projector | None = None
        #: The tensors of an adapter in the model's file.
        self.added: Checkpoint | None = None
        if model_config.has_projector:
            operations = comfy.ops.pick_operations(self.get_dtype(), self.manual_cast_dtype)
            operations = operations_for(comfy.model_management.get_torch_device(), operations)
            layers = LayerFactory(operations, chosen_attention, device, self.get_dtype())
            self.image_proj_model = Projector(self.config.projector, layers).requires_grad_(False).eval()

    def memory_required(self, input_shape: Sequence[int], cond_shapes: dict[str, Any] = {}) -> float:
        """Bytes that a pass takes beside the model's weights.

        Args:
            input_shape: ``(n, c, h, w)``, n being conditionings times frames.
            cond_shapes: ignored; the conditions of text and image are small.
        """
        rows, positions = input_shape[0], math.prod(input_shape[2:])
        dtype = self.manual_cast_dtype or self.get_dtype()
        activations = rows * positions * activations_per_position(self.config.unet)
        if attention_on(comfy.model_management.get_torch_device()) in EXPLICIT_ATTENTION:
            # The logits and their softmax, at full resolution.
            heads = self.config.unet.model_channels // self.config.unet.head_channels
            activations += 2 * rows * heads * positions * min(positions, QUERIES_AT_ONCE)
        # Convolutions copy their weights into another layout, and casting copies them once more; this is the peak of tiny videos.
        copies = max(each.numel() for each in self.diffusion_model.parameters()) * (1 if self.manual_cast_dtype is None else 2)
        return max(activations, copies) * comfy.model_management.dtype_size(dtype)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Text (a row for each frame if there are several), frames per video (by default, of the batch), role, fps, scales, image tokens.

        Raises:
            ValueError: a latent, text, ControlNet or image that doesn't fit the model.
        """
        check_place(self.config, kwargs)
        check_depth_taken(self.config, kwargs)
        check_controlnet(kwargs.get("control"), self.config.unet.context_dim)
        self._check_inputs(kwargs["noise"], kwargs.get("cross_attn"), kwargs.get(FRAMES_KEY), kwargs.get(FPS_KEY))
        out = super().extra_conds(**kwargs)
        batch = kwargs["noise"].shape[0]
        frames = 1 if kwargs["noise"].ndim == 5 else kwargs.get(FRAMES_KEY) or batch
        out[FRAMES_KEY] = comfy.conds.CONDConstant(frames)
        text = kwargs.get("cross_attn")
        if text is not None and len(text) > 1:
            out["c_crossattn"] = comfy.conds.CONDCrossAttn(text_of_frames(text, batch, frames))
        out[TEXT_PER_FRAME_KEY] = AnyOf(text is not None and len(text) not in (1, batch // frames))
        out[ROLE_KEY] = comfy.conds.CONDRegular(role_of(kwargs.get("prompt_type", "positive")))
        fps = kwargs.get(FPS_KEY)
        out[FPS_KEY] = comfy.conds.CONDRegular(torch.tensor([self.config.unet.default_fps if fps is None else fps], dtype=torch.float32))
        out |= distilled.scale_conds(self.config, kwargs)
        features = kwargs.get(FEATURES_KEY)
        if features is not None:
            tokens = self.image_tokens(features.to(kwargs["device"]), videos=max(1, batch // frames))
            out["image_tokens"] = comfy.conds.CONDRegular(tokens if len(tokens) == 1 else tokens.repeat_interleave(frames, dim=0))
            out[STRENGTH_KEY] = comfy.conds.CONDRegular(torch.tensor([kwargs.get(STRENGTH_KEY, 1.0)]))
        return out

    def _check_inputs(self, latent: Tensor, text: Tensor | None, frames: Any, fps: Any) -> None:
        unet, title = self.config.unet, self.config.title
        if latent.ndim == 5 and unet.concat_channels:
            what = "depth maps" if unet.takes_depth else "an image"
            raise ValueError(f"{title} starts from {what}, which core's training can't give it: use VideoCrafter Train LoRA.")
        if latent.ndim not in (4, 5) or latent.shape[1] != unet.out_channels or not latent.numel():
            raise ValueError(
                f"The latent has the shape {list(latent.shape)}; {title} samples [frames, {unet.out_channels}, height, width], at least 1 "
                "frame. Use Empty VideoCrafter Latent, or VAEEncode with the model's own VAE."
            )
        if text is not None:
            check_text(text, unet.context_dim, title)
        if frames:
            checked_frames(frames)
        if fps is not None and not (isinstance(fps, (int, float)) and math.isfinite(fps)):
            raise ValueError(f"The conditioning's fps is {fps!r}; a finite number is needed. Use VideoCrafter Conditioning, which sets it.")

    def concat_cond(self, **kwargs: Any) -> Tensor | None:
        """What the concat channels hold, a row per frame; None for models without such channels.

        These are the latents of images, ``[n, 4, h, w]``, or depth maps, ``[n, 1, h, w]``.

        Raises:
            ValueError: there are none, or they have another aspect, or depth maps another number.
        """
        if not self.config.unet.concat_channels:
            return None
        latents, noise = kwargs.get(KEYFRAMES_KEY), kwargs["noise"]
        if self.config.unet.takes_depth:
            return depth_latents(self.config, kwargs[DEPTH_KEY], noise, kwargs.get(FRAMES_KEY) or len(noise)).to(kwargs["device"])
        if latents is None:
            raise ValueError(
                f"{self.config.title} needs the latent of its image: connect vae and latent to VideoCrafter Image to Video (or to "
                "VideoCrafter Interpolation)."
            )
        latents = scaled_to(latents, noise)
        batch = noise.shape[0]
        each_frame = latents_of_frames(latents, kwargs.get(PLACE_KEY), batch, kwargs.get(FRAMES_KEY) or batch)
        return self.process_latent_in(each_frame).to(kwargs["device"])

    def state_dict_for_saving(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """As core's, with the image projector, the adapter that its file has, and the schedule, by which models with the same tensors
        are identified."""
        saved = super().state_dict_for_saving(*args, **kwargs)
        if self.image_proj_model is not None:
            saved |= {"image_proj_model." + name: tensor for name, tensor in self.image_proj_model.state_dict().items()}
        if self.added is not None:
            saved |= {name: self.added.sound_tensor(name) for name in self.added}
        schedule = Schedule.from_config(self.config.schedule)
        saved["alphas_cumprod"] = schedule.alphas_cumprod
        if self.config.schedule.scale_end is not None:
            saved["scale_arr"] = schedule.scale
        return saved

    def image_tokens(self, features: Tensor, videos: int) -> Tensor:
        """Features of one image, or of one per video, ``[n, l, width]`` -> image tokens ``[n, m, context]``.

        Raises:
            ValueError: a model without a projector, features of another width, or another number of images than 1 or ``videos``.
        """
        if self.image_proj_model is None:
            raise ValueError(
                f"{self.config.title} can't take an image from this file, which has no image projector (image_proj_model): load a complete "
                "file, such as the published one."
            )
        width = self.config.projector.feature_dim
        if features.shape[-1] != width:
            raise ValueError(
                f"The CLIP vision model gives features of width {features.shape[-1]}, but {self.config.title} needs {width}: use the CLIP "
                "vision output of the model's own loader, or OpenCLIP ViT-H/14."
            )
        if len(features) not in (1, videos):
            raise ValueError(f"There are {len(features)} images for {videos} videos: connect one, or set batch_size to {len(features)}.")
        return self.image_proj_model(features.to(self.manual_cast_dtype or self.get_dtype()))


def config_of(model: Any) -> ModelConfig:
    """The configuration of a MODEL.

    Raises:
        ValueError: a model of another family.
    """
    if not isinstance(model.model, VideoCrafterModel):
        raise ValueError(
            f"This node needs a VideoCrafter model, but got {type(model.model).__name__}. Connect MODEL of Load VideoCrafter Model."
        )
    return model.model.config


def load_model(file: ModelFile, model_options: dict[str, Any], disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The model of a file as a MODEL.

    Args:
        model_options: ``dtype`` and ``fp8_optimizations``, as in core's diffusion model loader; both may be missing.
        disable_dynamic: load all weights at once rather than when they are used, as is needed to compile a model.
    """
    names = file.names("unet")
    config = VideoCrafterModelConfig(file.config, has_projector="projector" in file.parts)
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    dtype = model_options.get("dtype") or comfy.model_management.unet_dtype(
        model_params=sum(math.prod(file.checkpoint.shape(name)) for name in names),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=file.checkpoint.dtype(names[0]),
    )
    cast = comfy.model_management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    config.optimizations["fp8"] = model_options.get("fp8_optimizations", False)

    model = VideoCrafterModel(config, device=offload_device)
    # Looked up now, not at import: on a GPU the server assigns another class to this name when it starts.
    plain = comfy.model_patcher.ModelPatcher
    patcher_class = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    # Of several wrappers of the same kind, the first one added runs outermost.
    windows.install(patcher)
    outer_sample = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    patcher.add_wrapper_with_key(outer_sample, "videocrafter noise", check_noise)
    patcher.add_wrapper_with_key(outer_sample, "videocrafter memory", check_pass)
    patcher.add_wrapper_with_key(outer_sample, "videocrafter foreign layers", foreign_layers.tell)
    previews.install(patcher)
    patcher.cached_patcher_init = (load_model, (file, model_options))  # how ComfyUI loads it again
    file.load_into("unet", model.diffusion_model)
    if model.image_proj_model is not None:
        file.load_into("projector", model.image_proj_model)
    if file.added is not None:
        model.added = file.added
        attach_adapter(patcher, file.added, file.config)
    return patcher
