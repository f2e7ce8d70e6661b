"""Camera paths and paths of objects for a run: which of a model's means follows them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .adapters.control import Control, ControlAdapter
from .adapters.flow import flow_of_tracks
from .adapters.geometry import pixel_intrinsics
from .config import ModelConfig, UNetConfig
from .control.cameras import CameraPath, camera_path
from .control.drawn import read_tracks
from .control.pose_files import read_poses
from .control.tracks import Tracks
from .diffusion.boxes import BoxNoise, BoxPath
from .diffusion.freetraj import FreeTraj, places_of
from .errors import InputError
from .models.text_encoder import tokenize
from .pipeline import VideoModel
from .sampling import Sampling

#: Sides of FreeTraj's box in shares of the picture's, for a path that is drawn without a box.
BOX = 0.35
#: FreeTraj's steps whose attention is edited, unless others are asked for (the authors' number, of 50).
EDITED_STEPS = 6
#: Endings by which the text for a camera is a file's name, also where there is no such file.
POSE_FILES = (".txt", ".json")
NO_ADAPTER = (
    "The model has no layers for a camera, so it would ignore the path: load an adapter for it (MotionCtrl, or CameraCtrl or CamI2V for "
    "DynamiCrafter), or a checkpoint that has one, such as MotionCtrl's."
)


@dataclass(frozen=True)
class Motion:
    """What a video is to follow.

    Attributes:
        camera: the camera's path; None for none.
        tracks: the paths of objects, or of the subject; None for none.
        subject: the words of the prompt for what moves along the path, for FreeTraj.
        steps: FreeTraj's edited steps.
    """

    camera: CameraPath | None = None
    tracks: Tracks | None = None
    subject: str = ""
    steps: int = EDITED_STEPS

    def check(self, config: ModelConfig, has_adapter: bool) -> None:
        """
        Raises:
            InputError: a model with these means has no way to follow it.
        """
        if self.camera is not None and not has_adapter:
            raise InputError(NO_ADAPTER)
        if self.tracks is None or has_adapter:
            return
        if config.unet.concat_channels:
            raise InputError(f"{config.title} starts from an image; a path without MotionCtrl (FreeTraj) is for text-to-video models.")
        if not self.subject.strip():
            raise InputError("FreeTraj moves what some words of the prompt name along the path: say which words (subject).")


def read_motion(
    camera: str | None, trajectory: str | os.PathLike[str] | None, subject: str, sampling: Sampling, steps: int = EDITED_STEPS
) -> Motion:
    """The motion that is asked for, fitted to a run's size and length.

    Args:
        camera: moves in words, see :func:`vc_core.control.cameras.camera_path`, or the name of a file of poses.
        trajectory: a file of paths, see :func:`vc_core.control.drawn.read_tracks`.

    Raises:
        InputError: something that can't be read.
    """
    path, tracks = None, None
    if camera is not None:
        is_file = len(camera) < 1024 and Path(camera).is_file()
        if not is_file and Path(camera[:1024]).suffix.lower() in POSE_FILES:
            what = "a folder" if Path(camera).is_dir() else "no file that exists"
            raise InputError(f"{camera} is {what}: give a file of poses, or moves such as 'pan left'.")
        path = read_poses(_text(camera)).resampled(sampling.frames) if is_file else camera_path(camera, sampling.frames)
    if trajectory is not None:
        tracks = read_tracks(_text(trajectory), (sampling.width, sampling.height), sampling.frames)
        tracks = tracks.resampled(sampling.frames).scaled(sampling.width, sampling.height)
    return Motion(path, tracks, subject, steps)


def _text(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}.") from None


def with_motion(model: VideoModel, sampling: Sampling, motion: Motion, prompt: str) -> Sampling:
    """The settings of a run that follows the motion: with its hooks, and with its noise where that is FreeTraj's.

    Raises:
        InputError: the model can't follow it.
    """
    if motion.camera is None and motion.tracks is None:
        return sampling
    adapters = [each for each in model.adapters.values() if isinstance(each, ControlAdapter)]
    motion.check(model.config, bool(adapters))
    values: dict[str, Tensor | None] = {}
    if motion.camera is not None:
        lens = motion.camera.intrinsics
        matrices = None if lens is None else pixel_intrinsics(lens, sampling.height, sampling.width)[None]
        values |= {"poses": motion.camera.poses[None], "intrinsics": matrices}
    if motion.tracks is not None and adapters:
        flow = flow_of_tracks(motion.tracks.filled().points, sampling.height, sampling.width, motion.tracks.visible)
        values["flow"] = flow[None]
    hooks = list(sampling.hooks)
    if values:
        control = Control(**values, seed=sampling.seed)  # type: ignore[arg-type]
        hooks += [adapter.controlled(control) for adapter in adapters]
    if motion.tracks is None or adapters:
        return sampling.changed(hooks=hooks)
    factor, channels = model.config.downscale, model.config.unet.out_channels
    shape = (1, channels, sampling.frames, sampling.height // factor, sampling.width // factor)
    path = box_path(motion.tracks, BOX, model.config.unet, shape[-2:])
    hooks.append(FreeTraj(path, subject_places(prompt, motion.subject, model.config), motion.steps))
    return sampling.changed(hooks=hooks, noise=BoxNoise(shape, sampling.seed, path))


def box_path(tracks: Tracks, size: float, unet: UNetConfig, grid: tuple[int, int]) -> BoxPath:
    """The path of the box around the only track, for FreeTraj.

    Args:
        size: see :func:`boxed`.
        grid: height and width of the latent.

    Raises:
        InputError: there are several tracks, or the box is smaller than a place of the model's finest attention, so that it would change
            nothing.
    """
    path, finest = BoxPath.from_table(boxed(tracks, size)), min(unet.attention_resolutions)
    rows, columns = (side // finest for side in grid)
    if not all(path.grid(rows, columns)):
        raise InputError(
            f"The box that FreeTraj moves has {path.width:.3g} x {path.height:.3g} of the picture's width and height. For this size of "
            f"video it needs at least {0.5 / columns:.3g} x {0.5 / rows:.3g}: make the box or the video larger."
        )
    return path


def boxed(tracks: Tracks, size: float = BOX) -> Tensor:
    """The box of the only track in each frame, see :meth:`vc_core.control.tracks.Tracks.box_path`.

    Args:
        size: the box's sides in shares of the picture's, for a track without a box.

    Raises:
        InputError: there are several tracks.
    """
    if len(tracks) > 1:
        raise InputError(f"FreeTraj moves one subject along one path, but there are {len(tracks)}: leave the others out.")
    if tracks.size is not None and (tracks.boxes is None or not (tracks.boxes > 0).all()):
        tracks = replace(tracks, boxes=size * torch.tensor([tracks.size], dtype=torch.float32))
    return tracks.box_path()


def subject_places(prompt: str, subject: str, config: ModelConfig) -> tuple[int, ...]:
    """The places of a subject's words among a prompt's tokens.

    Raises:
        InputError: they are not in the prompt.
    """
    length = config.text_encoder.context_length
    tokens, words = (tokenize([text], length).flatten().tolist() for text in (prompt, subject))
    return places_of(words[1 : words.index(max(words))], tokens, subject)
