"""The nodes, and the one place where they are registered."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .bridge import adapters, detection, initial_noise, style
from .conditioning import VideoCrafterConditioning, VideoCrafterImageToVideo, VideoCrafterInterpolation, VideoCrafterKeyframes
from .controlling import VideoCrafterApplyCamera, VideoCrafterCameraGuider, VideoCrafterLoadMotionAdapter, VideoCrafterTrajectory
from .decoding import VideoCrafterDecode
from .depth import VideoCrafterDepthToVideo
from .drawing import VideoCrafterCamera, VideoCrafterDrawTrajectory, VideoCrafterShowMotion
from .evaluating import VideoCrafterCompare, VideoCrafterEvaluate
from .fitting import VideoCrafterFitVideo
from .framing import VideoCrafterFramesToVideo
from .images import VideoCrafterExampleImage
from .joining import VideoCrafterJoinClips
from .latents import EmptyVideoCrafterLatent, VideoCrafterImageSize
from .loading import VideoCrafterLoader
from .lora import VideoCrafterLoadLora
from .measuring import VideoCrafterPictureKept
from .patching import VideoCrafterDeepCache, VideoCrafterMotionStrength
from .prompts import VideoCrafterPromptSchedule
from .sampling import VideoCrafterConsistency, VideoCrafterDDIM, VideoCrafterGuider, VideoCrafterSampler, VideoCrafterScheduler
from .saving import VideoCrafterSaveVideo
from .settings import VideoCrafterModelSettings
from .starting import VideoCrafterFreeInit, VideoCrafterInitialNoise
from .styling import VideoCrafterStyle, VideoCrafterStyleGuider
from .training import VideoCrafterTrainingClips, VideoCrafterTrainLora
from .warping import VideoCrafterWarpedNoise

NODES: list[type[io.ComfyNode]] = [
    VideoCrafterLoader,
    VideoCrafterModelSettings,
    VideoCrafterLoadLora,
    VideoCrafterPromptSchedule,
    VideoCrafterConditioning,
    VideoCrafterImageToVideo,
    VideoCrafterInterpolation,
    VideoCrafterKeyframes,
    VideoCrafterExampleImage,
    VideoCrafterFramesToVideo,
    VideoCrafterDepthToVideo,
    VideoCrafterImageSize,
    VideoCrafterFitVideo,
    EmptyVideoCrafterLatent,
    VideoCrafterSampler,
    VideoCrafterDDIM,
    VideoCrafterConsistency,
    VideoCrafterScheduler,
    VideoCrafterInitialNoise,
    VideoCrafterWarpedNoise,
    VideoCrafterFreeInit,
    VideoCrafterGuider,
    VideoCrafterStyle,
    VideoCrafterStyleGuider,
    VideoCrafterDeepCache,
    VideoCrafterMotionStrength,
    VideoCrafterLoadMotionAdapter,
    VideoCrafterApplyCamera,
    VideoCrafterTrajectory,
    VideoCrafterCameraGuider,
    VideoCrafterCamera,
    VideoCrafterDrawTrajectory,
    VideoCrafterShowMotion,
    VideoCrafterDecode,
    VideoCrafterJoinClips,
    VideoCrafterSaveVideo,
    VideoCrafterPictureKept,
    VideoCrafterEvaluate,
    VideoCrafterCompare,
    VideoCrafterTrainLora,
    VideoCrafterTrainingClips,
]


class VideoCrafterExtension(ComfyExtension):
    """The pack's nodes, for ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> VideoCrafterExtension:
    """Called by ComfyUI when it loads the pack."""
    adapters.register()
    detection.register()
    initial_noise.register()
    style.register()
    return VideoCrafterExtension()
