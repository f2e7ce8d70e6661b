"""What the numbers of a configuration can be.

Files of strangers contain configurations: without bounds, a depth in one would build a network for hours, and a default in one would
ask for a video of any size. The bounds are far beyond all models of the family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import ConfigError

#: Most parts of a list of sizes.
LONGEST_LIST = 8
#: Most transformers in a UNet's half: levels times blocks times depth.
MOST_TRANSFORMERS = 48
WIDTH, CHANNELS, HEADS = (1, 1 << 16), (1, 4096), (1, 1024)
#: The smallest and the largest value, by part and name.
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "unet": {
        "in_channels": CHANNELS, "out_channels": CHANNELS, "model_channels": CHANNELS, "channel_mult": (1, 64), "num_res_blocks": (0, 16),
        "attention_resolutions": (1, 128), "head_channels": CHANNELS, "transformer_depth": (1, 32), "context_dim": WIDTH,
        "max_relative_position": (0, 4096), "default_fps": (1, 1000), "image_tokens_per_frame": (0, 1 << 16),
        "causal_frames": (0, 4096),
    },
    "autoencoder": {
        "channels": CHANNELS, "channel_mult": (1, 64), "num_res_blocks": (0, 16), "z_channels": CHANNELS, "embed_dim": CHANNELS,
        "image_channels": CHANNELS, "scale_factor": (1e-4, 1e4),
    },
    "text_encoder": {
        "width": WIDTH, "heads": HEADS, "layers": (1, 128), "embed_dim": WIDTH, "vocab_size": (1, 1 << 24), "context_length": (3, 4096),
    },
    "image_encoder": {
        "width": WIDTH, "heads": HEADS, "layers": (1, 128), "embed_dim": WIDTH, "patch_size": (1, 1024), "image_size": (1, 4096),
    },
    "projector": {
        "width": WIDTH, "depth": (1, 64), "heads": HEADS, "head_channels": CHANNELS, "queries": WIDTH, "feature_dim": WIDTH,
        "context_dim": WIDTH, "ff_mult": (1, 64),
    },
    "schedule": {
        "timesteps": (2, 100_000), "linear_start": (1e-9, 0.999), "linear_end": (1e-9, 0.999), "scale_end": (1e-3, 1),
        "scale_steps": (1, 100_000),
    },
    # As far as the nodes and Sampling.check go.
    "sampling": {
        "height": (8, 4096), "width": (8, 4096), "frames": (1, 4096), "steps": (1, 1000), "eta": (0, 1), "guidance_scale": (0, 100),
        "guidance_rescale": (0, 1), "playback_fps": (1, 1000), "original_steps": (1, 1000), "distilled_guidance": (0, 100),
        "motion_guidance": (-1, 1), "motion_share": (0, 1),
    },
}  # fmt: skip


def check_limits(config: Mapping[str, Any]) -> None:
    """Check the numbers of a configuration, given as nested dictionaries.

    Raises:
        ConfigError: one is out of its range; the message names it.
    """
    for part, ranges in RANGES.items():
        values = config[part]
        for key, (least, most) in ranges.items() if values is not None else ():
            numbers = values[key] if isinstance(values[key], list) else [values[key]]
            if not 1 <= len(numbers) <= LONGEST_LIST:
                raise ConfigError(f"{part}.{key} is {str(numbers):.60}; 1 to {LONGEST_LIST} values are possible.")
            for number in filter(lambda each: each is not None, numbers):
                if isinstance(number, bool) or not isinstance(number, (int, float)):
                    raise ConfigError(f"{part}.{key} has a value of type {type(number).__name__}, which is no number.")
                if not least <= number <= most:  # also where it is not a number
                    shown = f"{number:.6g}" if isinstance(number, float) else number
                    kind = "whole numbers" if isinstance(least, int) and isinstance(number, int) else "numbers"
                    raise ConfigError(f"{part}.{key} is {shown}; {kind} from {least:g} to {most:.10g} are possible.")
    for problem in (*_together(config), *_unet_problems(config["unet"]), *_encoder_problems(config)):
        raise ConfigError(problem)


def _together(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with numbers that are possible by themselves."""
    unet, schedule, sampling, image = config["unet"], config["schedule"], config["sampling"], config["image_encoder"]
    if unet["motion_embedding"] and not unet["guidance_embedding"]:
        yield "unet.motion_embedding is true and unet.guidance_embedding is not; motion guidance is joined with guidance."
    transformers = len(unet["channel_mult"]) * (unet["num_res_blocks"] + 1) * unet["transformer_depth"]
    if transformers > MOST_TRANSFORMERS:
        yield f"unet has {transformers} transformers by its channel_mult, num_res_blocks and transformer_depth; up to {MOST_TRANSFORMERS}."
    if schedule["linear_start"] > schedule["linear_end"]:
        yield f"schedule.linear_start is {schedule['linear_start']:g}, more than linear_end, {schedule['linear_end']:g}."
    if image is not None and image["patch_size"] > image["image_size"]:
        yield f"image_encoder.patch_size is {image['patch_size']}, more than its image_size, {image['image_size']}."
    step = 2 ** (len(config["autoencoder"]["channel_mult"]) - 1)
    for side in ("height", "width"):
        if sampling[side] % step:
            yield f"sampling.{side} is {sampling[side]}; this model's must be a multiple of {step}."
    for name in ("steps", "original_steps") if sampling["spacing"] == "consistency" else ("steps",):
        if sampling[name] > schedule["timesteps"]:
            yield f"sampling.{name} is {sampling[name]}; the schedule has {schedule['timesteps']} timesteps."


def _unet_problems(unet: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the sizes of a UNet."""
    if unet["in_channels"] < unet["out_channels"]:
        yield f"unet.in_channels is {unet['in_channels']}; it must be at least out_channels, which are {unet['out_channels']}."
    if unet["temporal_conv"] and unet["spatial_temporal_conv"]:
        yield "unet.temporal_conv and unet.spatial_temporal_conv are both true; a residual block has convolutions of one kind."
    for level, multiplier in enumerate(unet["channel_mult"]):
        channels, heads = unet["model_channels"] * multiplier, unet["head_channels"]
        if channels % 32:
            yield f"unet has {channels} channels at level {level}; group norms need a multiple of 32."
        if 2**level in unet["attention_resolutions"] and channels % heads:
            yield f"unet has {channels} channels at level {level}; it must be a multiple of head_channels, {heads}."


def _encoder_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the widths of the encoders, by themselves and beside the UNet's."""
    unet, text, image, projector = (config[part] for part in ("unet", "text_encoder", "image_encoder", "projector"))
    for name, encoder in (("text_encoder", text), ("image_encoder", image)):
        if encoder is not None and encoder["width"] % encoder["heads"]:
            yield f"{name}.width is {encoder['width']}; it must be a multiple of heads, {encoder['heads']}."
    pairs = [("unet.context_dim", unet["context_dim"], "the text encoder's width", text["width"])]
    if projector is not None:
        pairs.append(("projector.context_dim", projector["context_dim"], "unet.context_dim", unet["context_dim"]))
        if image is not None:
            pairs.append(("projector.feature_dim", projector["feature_dim"], "the image encoder's width", image["width"]))
    for name, value, other, expected in pairs:
        if value != expected:
            yield f"{name} is {value}, but {other} is {expected}; they must be equal."
