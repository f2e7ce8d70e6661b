"""MotionCtrl: control of the camera and of objects (Wang et al., arXiv:2312.03641, sections 3.2 and 3.3).

The camera's pose of each frame is joined to the tokens of every temporal transformer, after its first attention. The objects' paths, as
a map of motion, give features that are added to the input blocks while the noise is high.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from ..checkpoint.reading import Checkpoint
from ..config import ModelConfig
from ..errors import InputError
from ..models.hooks import Hooks, PassInputs, Site, TemporalHooks
from ..models.layers import LayerFactory
from .control import Control, ControlAdapter, controlled_rows, for_frames, for_videos
from .geometry import relative_poses, square
from .places import key_of, temporal_places

#: The numbers of a pose.
POSE = 12
#: The lowest timestep at which objects are controlled, under guidance.
LOWEST_TIMESTEP = 800
#: A flow's pixels at a position of the latent, on each axis.
PIXELS = 8


class ResidualBlock(nn.Module):
    """Two convolutions, after a halving of the size and a change of the channels where the level begins."""

    def __init__(self, inputs: int, outputs: int, halves: bool, layers: LayerFactory, kernels: tuple[int, int, int] = (3, 3, 3)) -> None:
        """``kernels``: of the change of the channels and of the two convolutions."""
        super().__init__()
        self.halves = halves
        changes, first, second = ((kernel, kernel // 2) for kernel in kernels)
        self.in_conv = None if inputs == outputs else layers.conv2d(inputs, outputs, changes[0], padding=changes[1])
        self.block1 = layers.conv2d(outputs, outputs, first[0], padding=first[1])
        self.block2 = layers.conv2d(outputs, outputs, second[0], padding=second[1])

    def forward(self, x: Tensor) -> Tensor:
        """``[n, c, h, w]`` -> ``[n, c', h', w']``."""
        x = nn.functional.avg_pool2d(x, 2) if self.halves else x
        x = x if self.in_conv is None else self.in_conv(x)
        return self.block2(nn.functional.relu(self.block1(x))) + x


class ObjectEncoder(nn.Module):
    """Features of a map of motion at each level of the UNet: MotionCtrl's object motion control module, ``omcm`` in its files."""

    def __init__(self, channels: Sequence[int], blocks: int, layers: LayerFactory) -> None:
        super().__init__()
        self.blocks = blocks
        self.conv_in = layers.conv2d(2 * PIXELS**2, channels[0], 3, padding=1)
        self.body = nn.ModuleList()
        before = channels[0]
        for level, width in enumerate(channels):
            for number in range(blocks):
                self.body.append(ResidualBlock(before, width, level > 0 and number == 0, layers))
                before = width

    def forward(self, flow: Tensor) -> list[Tensor]:
        """``[b, 2, t, 8 h, 8 w]`` -> ``[(b t), c, h', w']`` of each level."""
        hidden = self.conv_in(nn.functional.pixel_unshuffle(rearrange(flow, "b c t h w -> (b t) c h w"), PIXELS))
        features = []
        for number, block in enumerate(self.body, start=1):
            hidden = block(hidden)
            if number % self.blocks == 0:
                features.append(hidden)
        return features


class MotionCtrl(ControlAdapter):
    """MotionCtrl's layers beside a UNet; camera, objects or both, as its file has them.

    Args:
        channels: of each level of the object module; empty for none.
    """

    title = "MotionCtrl"

    def __init__(self, config: ModelConfig, camera: bool, channels: Sequence[int], blocks: int, layers: LayerFactory) -> None:
        super().__init__()
        self.blocks_per_level = config.unet.num_res_blocks + 1
        #: Poses are relative to the frame of the image, in image-to-video models (CamI2V's MotionCtrl).
        self.relative = config.unet.concat_channels > 0
        places = temporal_places(config.unet) if camera else []
        self.cc_projection = nn.ModuleDict({each.key: layers.linear(each.width + POSE, each.width) for each in places})
        self.omcm = ObjectEncoder(channels, blocks, layers) if channels else None

    def check(self, control: Control) -> None:
        if control.poses is not None and not len(self.cc_projection):
            raise InputError("This MotionCtrl file has the object module only, which doesn't control the camera: leave the camera out.")
        if control.flow is not None and self.omcm is None:
            raise InputError("This MotionCtrl file has the camera module only, which doesn't control objects: leave their paths out.")

    def act(self, control: Control, inputs: PassInputs) -> Hooks | None:
        rows, videos = controlled_rows(inputs), len(inputs.roles)
        if rows is not None and not len(rows):
            return None
        poses = None
        if control.poses is not None:
            poses = for_videos(for_frames(self.pose_numbers(control), inputs, 1, "camera poses"), videos, "camera paths").to(inputs.x)
        features = [] if control.flow is None else self._features(control.flow, inputs)
        acts = poses is not None or features
        return MotionCtrlHooks(self.cc_projection, poses, features, self.blocks_per_level, rows) if acts else None

    def pose_numbers(self, control: Control) -> Tensor:
        """The 12 numbers of each pose, row by row, ``[B, T, 12]`` in float32."""
        assert control.poses is not None
        if not self.relative:
            return control.poses[..., :3, :].flatten(2).float()
        frames = torch.as_tensor(control.conditioned_frame).reshape(-1).expand(len(control.poses))
        worlds = relative_poses(square(control.poses), frames, control.trace)
        return torch.linalg.inv(worlds)[..., :3, :].flatten(2).float()

    def _features(self, flow: Tensor, inputs: PassInputs) -> list[Tensor]:
        """What is added at each level, ``[(b t), c, h, w]``; empty for a pass at a low timestep."""
        assert self.omcm is not None
        if inputs.guided and bool((inputs.timesteps < LOWEST_TIMESTEP).all()):
            return []
        height, width = (PIXELS * side for side in inputs.x.shape[3:])
        if tuple(flow.shape[3:]) != (height, width):
            raise InputError(f"The paths of objects are for {flow.shape[4]}x{flow.shape[3]} pixels, but the video has {width}x{height}.")
        videos = len(inputs.roles)
        moving = for_videos(for_frames(flow, inputs, 2, "paths of objects"), videos, "paths of objects").to(inputs.x)
        still = torch.tensor([role == "negative" for role in inputs.roles], device=moving.device)
        frames, rows = moving.shape[2], torch.arange(videos, device=moving.device)
        if not still.any():
            return self.omcm(moving)
        resting = self.omcm(torch.zeros_like(moving[:1, :, :1]))  # the same for all frames
        if still.all():
            return [each.expand(videos * frames, -1, -1, -1) for each in resting]
        encoded = self.omcm(moving[~still])
        mixed = []
        for each, rest in zip(encoded, resting, strict=True):
            whole = rest.expand(videos, frames, *rest.shape[1:]).clone()
            whole[rows[~still]] = each.unflatten(0, (-1, frames))
            mixed.append(whole.flatten(0, 1))
        return mixed


class MotionCtrlHooks(Hooks, TemporalHooks):
    """MotionCtrl in one pass.

    Args:
        poses: ``[b, t, 12]``.
        features: of each level, ``[(b t), c, h, w]``.
        blocks_per_level: input blocks of a level of the UNet.
        rows: the videos whose camera is controlled; None: all.
    """

    def __init__(
        self, projections: nn.ModuleDict, poses: Tensor | None, features: list[Tensor], blocks_per_level: int, rows: Tensor | None
    ) -> None:
        self.projections, self.poses, self.features, self.blocks_per_level, self.rows = projections, poses, features, blocks_per_level, rows

    def temporal(self, site: Site) -> TemporalHooks | None:
        if self.poses is None:
            return None
        return CameraHooks(self.projections[key_of(site)], self.poses, self.rows)

    def after_input_block(self, number: int, hidden: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        level, last = divmod(number + 1, self.blocks_per_level)
        if last or not 0 < level <= len(self.features):
            return hidden, skip
        added = self.features[level - 1]
        return hidden + added, skip + added


class CameraHooks(TemporalHooks):
    """The camera's poses in one block of a temporal transformer."""

    def __init__(self, projection: nn.Module, poses: Tensor, rows: Tensor | None) -> None:
        self.projection, self.poses, self.rows = projection, poses, rows

    def between(self, x: Tensor) -> Tensor:
        if self.rows is None:
            return self._joined(x, self.poses)
        return x.index_copy(0, self.rows, self._joined(x[self.rows], self.poses[self.rows]).to(x))

    def _joined(self, x: Tensor, poses: Tensor) -> Tensor:
        """``[b, t, l, c]`` with the poses ``[b, t, 12]`` -> ``[b, t, l, c]``."""
        spread = poses[:, :, None].expand(-1, -1, x.shape[2], -1).to(x)
        return self.projection(torch.cat([x, spread], dim=-1))


def own(checkpoint: Checkpoint, config: ModelConfig) -> Checkpoint:
    """The tensors of a file with our names: ``motionctrl.cc_projection.{place}...``, ``motionctrl.omcm...``."""
    names = {f"model.diffusion_model.{each.path}.cc_projection.{kind}": f"motionctrl.cc_projection.{each.key}.{kind}"
             for each in temporal_places(config.unet) for kind in ("weight", "bias")}
    for name in checkpoint.names():
        if name.startswith("omcm."):
            names[name] = f"motionctrl.{name}"
        elif name.startswith(("body.", "conv_in.")):  # the object module alone
            names[name] = f"motionctrl.omcm.{name}"
    return checkpoint.renamed(names)


def build(config: ModelConfig, checkpoint: Checkpoint, layers: LayerFactory) -> MotionCtrl:
    """The adapter of a file whose tensors have our names."""
    names = checkpoint.names()
    camera = any(name.startswith("motionctrl.cc_projection.") for name in names)
    body = sorted({int(name.split(".")[3]) for name in names if name.startswith("motionctrl.omcm.body.")})
    blocks = len(body) // len(config.unet.channel_mult)
    channels = [checkpoint.shape(f"motionctrl.omcm.body.{first}.block1.weight")[0] for first in body[:: max(1, blocks)]]
    return MotionCtrl(config, camera, channels, blocks, layers)
