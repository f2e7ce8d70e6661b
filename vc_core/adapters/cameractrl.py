"""CameraCtrl: features of the camera's rays in temporal attention (He et al., arXiv:2404.02101), in CamI2V's form over DynamiCrafter."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..checkpoint.reading import Checkpoint
from ..config import ModelConfig
from ..errors import InputError
from ..models.attention import TemporalAttention
from ..models.hooks import Hooks, PassInputs, Site, TemporalHooks
from ..models.layers import Attention, LayerFactory
from .control import Control, ControlAdapter, controlled_rows, for_frames, for_videos
from .geometry import default_intrinsics, rays, relative_poses, square
from .places import Place, key_of, temporal_places
from .pose_encoder import PIXELS, PoseEncoder, channels_of


def camera_places(config: ModelConfig) -> list[Place]:
    """The blocks that have camera layers: all of temporal transformers but for the one after the first convolution."""
    return [each for each in temporal_places(config.unet) if each.part != "init"]


class RayAdapter(ControlAdapter):
    """An adapter that reads features of the camera's rays in each temporal block.

    Args:
        channels: of the features of each level.
    """

    def __init__(self, config: ModelConfig, channels: list[int], layers: LayerFactory) -> None:
        super().__init__()
        self.pose_encoder = PoseEncoder(channels, layers)
        self.levels = {each.key: each.level for each in camera_places(config)}

    def check(self, control: Control) -> None:
        self._refuse_flow(control)
        if control.poses is None:
            raise InputError(f"{self.title} needs a camera path: give its poses.")

    def act(self, control: Control, inputs: PassInputs) -> Hooks | None:
        rows = controlled_rows(inputs)
        if rows is not None and not len(rows):
            return None
        height, width = (PIXELS * side for side in inputs.x.shape[3:])
        self._check_size(height, width)
        features = self.pose_encoder(self.rays(control, inputs).to(inputs.x))
        return RayHooks(self, features, self.attending(control, inputs, rows), rows)

    def geometry(self, control: Control, inputs: PassInputs) -> tuple[Tensor, Tensor]:
        """Relative camera-to-world poses ``[B, T, 4, 4]`` and intrinsics ``[B, T, 3, 3]`` of the whole path, on the pass's device."""
        assert control.poses is not None
        poses = square(control.poses).to(inputs.x.device)
        frames = torch.as_tensor(control.conditioned_frame).reshape(-1).expand(len(poses))
        relative = relative_poses(poses, frames, control.trace)
        if control.intrinsics is None:
            height, width = (PIXELS * side for side in inputs.x.shape[3:])
            return relative, default_intrinsics(height, width).to(relative).expand(*relative.shape[:2], 3, 3)
        return relative, control.intrinsics.to(relative)

    def rays(self, control: Control, inputs: PassInputs) -> Tensor:
        """The rays of a pass's frames, ``[n, 6, T, 8 h, 8 w]``."""
        relative, intrinsics = self.geometry(control, inputs)
        relative, intrinsics = (for_frames(each, inputs, 1, "camera poses") for each in (relative, intrinsics))
        made = rays(relative, intrinsics, *(PIXELS * side for side in inputs.x.shape[3:]))
        return for_videos(made, len(inputs.roles), "camera paths")

    def attending(self, control: Control, inputs: PassInputs, rows: Tensor | None) -> object:
        """What :meth:`joined` needs of a pass beside the features, for its controlled videos."""
        return None

    def joined(self, site: Site, attend: Callable[[Tensor], Tensor], normed: Tensor, features: Tensor, given: object) -> Tensor:
        """The result of a block's first attention: normed tokens and features ``[b, t, l, c]`` -> the same shape."""
        raise NotImplementedError

    def _check_size(self, height: int, width: int) -> None:
        step = PIXELS * 2 ** max(self.levels.values())
        if height % step or width % step:
            raise InputError(f"{self.title} needs a width and a height that are multiples of {step}; this video has {width}x{height}.")


class CameraCtrl(RayAdapter):
    """CameraCtrl's layers beside a UNet."""

    title = "CameraCtrl"

    def __init__(self, config: ModelConfig, channels: list[int], layers: LayerFactory) -> None:
        super().__init__(config, channels, layers)
        self.cc_projection = nn.ModuleDict({each.key: layers.linear(each.width, each.width) for each in camera_places(config)})

    def joined(self, site: Site, attend: Callable[[Tensor], Tensor], normed: Tensor, features: Tensor, given: object) -> Tensor:
        return attend(normed + self.cc_projection[key_of(site)](normed + features))


class RayHooks(Hooks):
    """The features of rays in one pass.

    Args:
        features: of each level, ``[b, t, l, c]``.
        given: see :meth:`RayAdapter.attending`.
        rows: the videos whose camera is controlled; None: all.
    """

    def __init__(self, adapter: RayAdapter, features: list[Tensor], given: object, rows: Tensor | None) -> None:
        self.adapter, self.features, self.given, self.rows = adapter, features, given, rows

    def temporal(self, site: Site) -> TemporalHooks | None:
        return None if site.part == "init" else RayBlockHooks(self, site)


class RayBlockHooks(TemporalHooks):
    """The features of rays in the first attention of one temporal block."""

    def __init__(self, hooks: RayHooks, site: Site) -> None:
        self.hooks, self.site = hooks, site

    def attention(self, layer: TemporalAttention, x: Tensor, name: str, attention: Attention | None) -> Tensor:
        if name != "attn1":
            return layer(x, attention)
        adapter, rows = self.hooks.adapter, self.hooks.rows
        features = self.hooks.features[adapter.levels[key_of(self.site)]].to(x)

        def attend(tokens: Tensor) -> Tensor:
            return layer(tokens, attention)

        if rows is None:
            return adapter.joined(self.site, attend, x, features, self.hooks.given)
        return layer(x, attention).index_copy(0, rows, adapter.joined(self.site, attend, x[rows], features[rows], self.hooks.given).to(x))


def own(checkpoint: Checkpoint, config: ModelConfig) -> Checkpoint:
    """The tensors of a file with our names, ``camera.{layer}.{place}...`` and ``camera.pose_encoder...``."""
    paths = {f"model.diffusion_model.{each.path}.": each.key for each in temporal_places(config.unet)}
    names = {}
    for name in checkpoint.names():
        path = next((path for path in paths if name.startswith(path)), None)
        if name.startswith("pose_encoder.") and not name.endswith(".pos_encoder.pe"):
            names[name] = f"camera.{name}"
        elif path is not None:
            layer, _, rest = name[len(path) :].removeprefix("epipolar.").partition(".")
            names[name] = f"camera.{layer}.{paths[path]}.{rest}"
    return checkpoint.renamed(names)


def build(config: ModelConfig, checkpoint: Checkpoint, layers: LayerFactory) -> CameraCtrl:
    """The adapter of a file whose tensors have our names."""
    return CameraCtrl(config, channels_of(checkpoint, "camera.pose_encoder."), layers)
