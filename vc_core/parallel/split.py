"""One clip on several GPUs: the passes of guidance, the frames, or both over the processes of a torchrun."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..models.unet import UNet
from .frames import FrameSplit, share_norms
from .ranks import Ranks
from .world import World

SPLITS = ("guidance", "frames", "both")


@dataclass(frozen=True)
class Split:
    """How the processes share a clip. All of them have the whole latent between the steps.

    Attributes:
        passes: share the passes of guidance, each of which is as in one process, to the bit.
        frames: share the frames of a pass, see :class:`.frames.FrameSplit`.
        decoding: share the frames that are decoded, which is as in one process.
    """

    passes: Ranks | None
    frames: FrameSplit | None
    decoding: FrameSplit

    @classmethod
    def of(cls, kind: str, world: World, unet: UNet) -> Split:
        """A split over all processes.

        Args:
            kind: ``guidance``; ``frames``; or ``both``: two halves of the processes, each with a pass whose frames they share.
            unet: its norms are made ready for shared frames; alone it computes as before.

        Raises:
            InputError: no such kind, an odd number of processes for ``both``, or frames of a model whose layers over time look at
                neighbouring positions, too.
        """
        if kind not in SPLITS:
            raise InputError(f"The split is {kind!r:.40}; it can be {', '.join(SPLITS)}.")
        everyone = Ranks.among([range(world.size)])
        if kind != "guidance" and unet.config.spatial_temporal_conv:
            raise InputError(f"--split is {kind}, but this model's frames can't be shared (Make-Your-Video): give --split guidance.")
        passes, frames = (everyone if kind == "guidance" else None), (FrameSplit(everyone) if kind == "frames" else None)
        if kind == "both":
            if world.size % 2:
                raise InputError(f"--split both halves the processes, but there are {world.size}: start an even number.")
            half = world.size // 2
            frames = FrameSplit(Ranks.among([range(half), range(half, world.size)]))
            passes = Ranks.among([(number, number + half) for number in range(half)])
        if frames is not None:
            share_norms(unet)
        return cls(passes, frames, FrameSplit(everyone))
