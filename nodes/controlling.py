"""Nodes that control the camera and the motion of objects."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..vc_core.adapters.flow import flow_of_tracks
from ..vc_core.adapters.geometry import pixel_intrinsics
from ..vc_core.adapters.table import open_adapter
from ..vc_core.control.drawn import read_tracks
from ..vc_core.control.tracks import Tracks, join_tracks, tracks_from_core, tracks_from_masks
from ..vc_core.controlling import BOX, box_path
from ..vc_core.diffusion.freetraj import FreeTraj
from ..vc_core.diffusion.guidance import CAMERA_SCHEDULES
from .bridge.adapters import ADAPTER_KEY, attach_adapter, files, path_of, with_control
from .bridge.frames import frames_per_video
from .bridge.guidance import CameraGuider
from .bridge.hooks import HOOKS_KEY, with_hooks
from .bridge.model import config_of
from .bridge.motion import CameraType, TracksType, checked_camera
from .bridge.progress_text import show
from .bridge.schema import advanced, checked_inputs, schema
from .bridge.trajectories import TrajectoryNoise, subject_places

#: How trajectories act.
AUTO, FREETRAJ, MOTIONCTRL = "auto", "FreeTraj", "MotionCtrl"


class VideoCrafterLoadMotionAdapter(io.ComfyNode):
    """Loads MotionCtrl, CameraCtrl or CamI2V beside a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterLoadMotionAdapter",
            display_name="VideoCrafter Load Motion Adapter",
            category="VideoCrafter",
            description="Loads the layers by which a model follows a camera path or paths of objects: MotionCtrl, CameraCtrl or CamI2V. "
            "Checkpoints that have them inside, such as MotionCtrl's, need no adapter: load them as the model.",
            search_aliases=["motionctrl", "cameractrl", "cami2v", "camera control", "adapter", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="The model that the adapter was made for."),
                io.Combo.Input(
                    "adapter_name", options=files(),
                    tooltip="A file in models/videocrafter_adapters. Which adapter it is, is read off its tensors.",
                ),
            ],
            outputs=[io.Model.Output(display_name="controlled_model", tooltip="The model with the adapter.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter_name: str | None = None, **_: object) -> tuple[int, int, int] | None:
        """The file's identity, so that another file under the same name is loaded anew; None where the name comes by a link."""
        if adapter_name is None:
            return None
        stat = path_of(adapter_name).stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    @classmethod
    @checked_inputs
    def execute(cls, model: Any, adapter_name: str) -> io.NodeOutput:
        config, clone = config_of(model), model.clone()
        if clone.get_additional_models_with_key(ADAPTER_KEY):
            raise ValueError("This model has a motion adapter already. A model can have one: load the other one with the model itself.")
        show(cls, attach_adapter(clone, open_adapter(path_of(adapter_name)), config))
        return io.NodeOutput(clone)


class VideoCrafterApplyCamera(io.ComfyNode):
    """Makes a model follow a camera path."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterApplyCamera",
            display_name="VideoCrafter Apply Camera",
            category="VideoCrafter",
            description="Makes a video follow a camera path, with a model that has camera layers: MotionCtrl, CameraCtrl or CamI2V.",
            search_aliases=["camera control", "motionctrl", "cameractrl", "cami2v", "pan", "zoom", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A model with camera layers: a MotionCtrl checkpoint, or of Load Motion Adapter."),
                CameraType.Input("camera", tooltip="The camera's path, from VideoCrafter Camera. It is fitted to the video's length."),
                io.Latent.Input("latent", tooltip="The latent that is sampled: the video's size and length."),
                io.Float.Input(
                    "trace_scale", default=1.0, min=0.0, max=100.0, step=0.05,
                    tooltip="How far the camera moves. 1: as the path says. For models that start from an image.",
                ),
                io.Int.Input(
                    "conditioned_frame", default=0, min=0, max=4095,
                    tooltip="The frame that shows the image, from 0. For models that start from an image.",
                ),
                advanced(
                    io.Int.Input(
                        "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, optional=True,
                        tooltip="CamI2V only: seed of the directions of lines between frames with the same camera.",
                    )
                ),
            ],
            outputs=[io.Model.Output(display_name="moving_model", tooltip="The model that follows the camera path, for any sampler.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, model: Any, camera: Any, latent: dict[str, Any], trace_scale: float, conditioned_frame: int, seed: int = 0
    ) -> io.NodeOutput:
        width, height, frames = _size(model, latent)
        path = checked_camera(camera).resampled(frames)
        lens = None if path.intrinsics is None else pixel_intrinsics(path.intrinsics, height, width)[None]
        given = {
            "poses": path.poses[None], "intrinsics": lens, "trace": trace_scale, "conditioned_frame": conditioned_frame, "seed": seed,
        }
        return io.NodeOutput(with_control(model, **given))


class VideoCrafterTrajectory(io.ComfyNode):
    """Makes things follow paths."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterTrajectory",
            display_name="VideoCrafter Trajectory",
            category="VideoCrafter",
            description="Makes things move along drawn paths. FreeTraj moves the subject of the prompt in a box, with any text-to-video "
            "model and without training; MotionCtrl moves what is at the points, with its own checkpoint.",
            search_aliases=["freetraj", "motionctrl", "trajectory", "drag", "motion path", "tracks", "spline", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A text-to-video model, or MotionCtrl."),
                io.Latent.Input("latent", tooltip="The latent that is sampled: the video's size and length."),
                io.Combo.Input(
                    "method", options=[AUTO, FREETRAJ, MOTIONCTRL], default=AUTO,
                    tooltip="auto: MotionCtrl if the model has its layers, else FreeTraj.",
                ),
                io.String.Input("subject", default="", tooltip="FreeTraj: the prompt's words for what moves, such as red circle."),
                io.String.Input("prompt", default="", multiline=True, tooltip="FreeTraj: the positive prompt, as encoded."),
                io.Float.Input(
                    "box_size", default=BOX, min=0.05, max=1.0, step=0.01,
                    tooltip="FreeTraj: sides of the box, in shares of the picture's, for paths that are drawn without a box.",
                ),
                io.Int.Input(
                    "edited_steps", default=6, min=0, max=1000,
                    tooltip="FreeTraj: how many steps are edited, from the first on. Authors: 6 of 50. More: closer, but worse.",
                ),
                io.Int.Input(
                    "noise_seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True,
                    tooltip="Seed of the noise that comes out.",
                ),
                TracksType.Input("tracks", optional=True, tooltip="Paths, of VideoCrafter Draw Trajectory or another node with TRACKS."),
                io.String.Input(
                    "paths", default="", optional=True,
                    tooltip="Paths as JSON in pixels of the video, such as KJNodes' Spline Editor gives, in place of tracks.",
                ),
                io.Mask.Input("mask", optional=True, tooltip="A mask for each frame, in place of tracks: the box around it is followed."),
                io.Clip.Input("clip", optional=True, tooltip="FreeTraj: the text encoder, which finds the subject's words in the prompt."),
            ],
            outputs=[
                io.Model.Output(display_name="moving_model", tooltip="The model that follows the paths, for any sampler."),
                io.Noise.Output(
                    display_name="noise", tooltip="The noise to start from, for VideoCrafter Sampler or SamplerCustomAdvanced. FreeTraj's "
                    "follows the path; MotionCtrl needs none of its own.",
                ),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, model: Any, latent: dict[str, Any], method: str, subject: str, prompt: str, box_size: float, edited_steps: int,
        noise_seed: int, tracks: Any = None, paths: str = "", mask: Any = None, clip: Any = None,
    ) -> io.NodeOutput:
        width, height, frames = _size(model, latent)
        found = _paths(tracks, paths, mask, (width, height), frames)
        if method == MOTIONCTRL or method == AUTO and model.get_additional_models_with_key(ADAPTER_KEY):
            flow = flow_of_tracks(found.filled().points, height, width, found.visible)
            return io.NodeOutput(with_control(model, flow=flow[None]), TrajectoryNoise(noise_seed, None))
        if config_of(model).unet.concat_channels:
            raise ValueError(
                f"FreeTraj is for text-to-video models; {config_of(model).title} starts from an image, which says where things are. Load a "
                "text-to-video model."
            )
        if any(isinstance(each, FreeTraj) for each in model.model_options["transformer_options"].get(HOOKS_KEY, ())):
            raise ValueError(
                "This model follows a path by FreeTraj already, which moves one subject along one path: connect the model from before the "
                "first VideoCrafter Trajectory."
            )
        path = box_path(found, box_size, config_of(model).unet, latent["samples"].shape[-2:])
        edits = FreeTraj(path, subject_places(clip, prompt, subject), edited_steps)
        return io.NodeOutput(with_hooks(model, edits), TrajectoryNoise(noise_seed, path))


def _size(model: Any, latent: dict[str, Any]) -> tuple[int, int, int]:
    """Width and height in pixels, and frames of each video of a LATENT."""
    factor, (height, width) = config_of(model).downscale, latent["samples"].shape[-2:]
    return width * factor, height * factor, frames_per_video(latent)


def _paths(tracks: Any, paths: str, mask: Any, size: tuple[int, int], frames: int) -> Tracks:
    """What of the three is given, fitted to a video.

    Raises:
        ValueError: none of them is.
    """
    found = []
    if tracks is not None:
        found.append(tracks_from_core(tracks))
    if paths.strip():
        found.append(read_tracks(paths, size, frames))
    if mask is not None:
        found.append(tracks_from_masks(mask))
    if not found:
        raise ValueError("There is no path: connect tracks (VideoCrafter Draw Trajectory) or a mask, or give paths as JSON.")
    return join_tracks([each.resampled(frames).scaled(*size) for each in found])


class VideoCrafterCameraGuider(io.ComfyNode):
    """Guidance by the camera's path, as a GUIDER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterCameraGuider",
            display_name="VideoCrafter Camera Guider",
            category="VideoCrafter",
            description="Pushes a video further towards its camera path, by a third pass without it at each step. For "
            "SamplerCustomAdvanced, with a model of VideoCrafter Apply Camera.",
            search_aliases=["camera cfg", "camera guidance", "cami2v", "guider", "videocrafter"],
            inputs=[
                io.Model.Input("model", tooltip="A model of VideoCrafter Apply Camera."),
                io.Conditioning.Input("positive", tooltip="The positive conditioning."),
                io.Conditioning.Input("negative", tooltip="The negative conditioning."),
                io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.5, round=0.01, tooltip="CFG scale of the text and image."),
                io.Float.Input(
                    "camera_cfg", default=1.5, min=0.0, max=100.0, step=0.1, round=0.01,
                    tooltip="CFG scale of the camera. 1: off, without a third pass.",
                ),
                io.Combo.Input(
                    "schedule", options=list(CAMERA_SCHEDULES), default="cosine",
                    tooltip="constant: camera_cfg at all steps. cosine: it falls to nothing over the run.",
                ),
                advanced(
                    io.Float.Input(
                        "guidance_rescale", default=0.7, min=0.0, max=1.0, step=0.05, round=0.01,
                        tooltip="Reduces the contrast that high CFG scales add. 0: off. Authors of the adapters for DynamiCrafter: 0.7.",
                    )
                ),
            ],
            outputs=[io.Guider.Output(tooltip="The guider, for SamplerCustomAdvanced.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, model: Any, positive: Any, negative: Any, cfg: float, camera_cfg: float, schedule: str, guidance_rescale: float = 0.7
    ) -> io.NodeOutput:
        config_of(model)  # which refuses other models
        guider = CameraGuider(model)
        guider.set_guidance(cfg, camera_cfg, schedule, guidance_rescale)
        guider.set_conds(positive, negative)
        return io.NodeOutput(guider)
