"""Nodes for motion: where the camera and things go, drawn, written or read, and pictures of it."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..vc_core.control.cameras import EASINGS, MOVES, CameraPath, camera_path
from ..vc_core.control.drawn import read_tracks, write_points
from ..vc_core.control.pictures import GROUND, MotionPicture
from ..vc_core.control.pose_files import MOTIONCTRL_SCALE, read_poses
from ..vc_core.control.tracks import join_tracks, tracks_from_core, tracks_from_masks
from ..vc_core.media.images import fit_image
from .bridge.frames import LARGEST
from .bridge.images import rgb_frames, rgb_images
from .bridge.motion import CameraType, TracksType, background, checked_camera
from .bridge.schema import advanced, checked_inputs, schema

NO_MOVE = "none"
#: How the translations of a pose file are taken.
UNITS = ("as they are", "MotionCtrl's examples")


class VideoCrafterCamera(io.ComfyNode):
    """A camera path, from moves or from a pose file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterCamera",
            display_name="VideoCrafter Camera",
            category="VideoCrafter",
            description="How the camera moves: one move or two at once, moves in words, or the poses of a RealEstate10K file.",
            search_aliases=["camera motion", "pan", "zoom", "orbit", "cameractrl", "motionctrl", "camera pose", "videocrafter"],
            inputs=[
                io.Combo.Input("move", options=list(MOVES), default="pan left", tooltip="A move of the camera. still: it does not move."),
                io.Combo.Input(
                    "with_move", options=[NO_MOVE, *(move for move in MOVES if move != "still")], default=NO_MOVE,
                    tooltip="A second move, made at the same time.",
                ),
                io.Int.Input("length", default=16, min=1, max=4096, tooltip="Frames of the video. Nodes that apply it fit it to theirs."),
                io.Float.Input(
                    "speed", default=1.0, min=0.0, max=10.0, step=0.05,
                    tooltip="How far all moves go. 1: 60 degrees, or MotionCtrl's distance, over the whole video, of whatever length.",
                ),
                io.Combo.Input("easing", options=list(EASINGS), default="linear", tooltip="How the pace of each move changes."),
                io.String.Input(
                    "words", default="", optional=True,
                    tooltip="Moves in words, in place of the two above: 'pan left, zoom in 0.5 then orbit right'. A comma: at once; then: "
                    "one after the other; a number: the move's own speed.",
                ),
                advanced(
                    io.String.Input(
                        "poses", default="", multiline=True, optional=True,
                        tooltip="The text of a pose file, in place of moves: RealEstate10K's lines of 19 numbers, or JSON of 3x4 matrices. "
                        "It is fitted to the length.",
                    )
                ),
                advanced(
                    io.Combo.Input(
                        "units", options=list(UNITS), default=UNITS[0], optional=True,
                        tooltip="Translations of the pose file as they are, times speed; or also times 1.5, 1 and 1.3, as MotionCtrl's "
                        "program takes its example files.",
                    )
                ),
            ],
            outputs=[CameraType.Output(display_name="camera", tooltip="The camera's path, for the nodes that apply or show it.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, move: str, with_move: str, length: int, speed: float, easing: str, words: str = "", poses: str = "", units: str = UNITS[0]
    ) -> io.NodeOutput:
        if poses.strip():
            path = read_poses(poses).resampled(length).scaled(speed)
            return io.NodeOutput(path.scaled(MOTIONCTRL_SCALE) if units == UNITS[1] else path)
        moves = words.strip() or (move if with_move == NO_MOVE else f"{move} and {with_move}")
        return io.NodeOutput(camera_path(moves, length, speed=speed, easing=easing))


class VideoCrafterDrawTrajectory(io.ComfyNode):
    """Trajectories and boxes, drawn on the node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterDrawTrajectory",
            display_name="VideoCrafter Draw Trajectory",
            category="VideoCrafter",
            description="Draw where things go: paths, points that stay, and boxes, on the image itself, with the time of each point.",
            search_aliases=["trajectory", "spline editor", "motion path", "tracks", "drag", "dragnuwa", "freetraj", "videocrafter"],
            inputs=[
                io.Int.Input("width", default=512, min=16, max=LARGEST, step=8, tooltip="Width of the picture in pixels."),
                io.Int.Input("height", default=320, min=16, max=LARGEST, step=8, tooltip="Height of the picture in pixels."),
                io.Int.Input("length", default=16, min=1, max=4096, tooltip="Frames of the video. Nodes that apply it fit it to theirs."),
                io.String.Input(
                    "paths", default="", multiline=True,
                    tooltip="What is drawn, as JSON. Text of KJNodes' Spline Editor and lists of points of other nodes are read, too.",
                ),
                io.Image.Input("image", optional=True, tooltip="The image to draw on. It is scaled and cut to width and height."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="A mask for each frame, from another node: the box around it becomes one more track."
                ),
            ],
            outputs=[
                TracksType.Output(display_name="tracks", tooltip="The trajectories and their boxes, as core's TRACKS."),
                io.String.Output(
                    display_name="coordinates", tooltip="A point for each frame of each path, as JSON, for the nodes of KJNodes and others."
                ),
                io.Mask.Output(display_name="boxes", tooltip="The inside of all boxes in each frame; empty where no path has a box."),
            ],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, width: int, height: int, length: int, paths: str, image: Tensor | None = None, mask: Tensor | None = None
    ) -> io.NodeOutput:
        found = [] if mask is None else [tracks_from_masks(mask).resampled(length).scaled(width, height)]
        if not found or (isinstance(paths, str) and paths.strip() not in ("", "[]")) or not isinstance(paths, str):
            found.insert(0, read_tracks(paths, (width, height), length))
        tracks = join_tracks(found)
        shown = None
        if image is not None:
            fitted = fit_image(rgb_images(rgb_frames(image)[:1]), height, width).movedim(1, -1)
            shown = background(fitted, cls)
        return io.NodeOutput(tracks.as_core(), write_points(tracks), tracks.masks(), ui=shown)


class VideoCrafterShowMotion(io.ComfyNode):
    """Pictures of motion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="VideoCrafterShowMotion",
            display_name="VideoCrafter Show Motion",
            category="VideoCrafter",
            description="Draws trajectories, boxes and the camera's path over the frames of a video, to see what is asked for.",
            search_aliases=["visualize tracks", "draw tracks", "camera path", "plot camera", "trajectory", "videocrafter"],
            inputs=[
                io.Image.Input("images", optional=True, tooltip="The frames to draw on; one image is used for all. None: a dark ground."),
                TracksType.Input("tracks", optional=True, tooltip="Trajectories and boxes, from VideoCrafter Draw Trajectory."),
                CameraType.Input("camera", optional=True, tooltip="The camera's path, which is shown as a small plot in three dimensions."),
                io.Int.Input("trail", default=0, min=0, max=4096, tooltip="How many frames of a point's way are shown. 0: all of them."),
                io.Float.Input("opacity", default=1.0, min=0.0, max=1.0, step=0.05, tooltip="Opacity of the drawing over the frames."),
            ],
            outputs=[io.Image.Output(display_name="pictures", tooltip="The frames with the drawing.")],
        )

    @classmethod
    @checked_inputs
    def execute(
        cls, trail: int, opacity: float, images: Tensor | None = None, tracks: Any = None, camera: CameraPath | None = None
    ) -> io.NodeOutput:
        drawn = None if tracks is None else tracks_from_core(tracks)
        path = None if camera is None else checked_camera(camera)
        picture = MotionPicture(drawn, path, trail, opacity)
        length = drawn.frames if drawn is not None else 1 if path is None else len(path)
        if images is None:
            width, height = (drawn.size if drawn is not None else None) or (512, 320)
            ground = torch.tensor(GROUND, dtype=torch.float32) / 255
            return io.NodeOutput(picture.over(ground.expand(length, height, width, 3)))
        frames = rgb_frames(images)
        return io.NodeOutput(picture.over(frames.expand(length, -1, -1, -1) if len(frames) == 1 else frames))
