"""What the tensors of a file are: used by a network, of a kind that no network needs, or unknown.

Unknown tensors of a UNet are never left out in silence: a model that lacks a part of what it was trained with makes other videos.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..checkpoint.errors import CheckpointError
from ..checkpoint.reading import Checkpoint
from ..errors import printable

#: Tensors that nothing needs, by the start of their names in a file, and what they are.
UNUSED = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (
            r"(betas|alphas_cumprod(_prev|_next)?|(sqrt|log)_\w*alphas_cumprod|posterior_\w+|scale_arr|lvlb_weights|logvar|ddim_\w+)$",
            "tables of the noise schedule, which the configuration tells",
        ),
        (r"(model_ema|ema|ema_model|model\.diffusion_model_ema)\.", "averaged weights of the training (EMA)"),
        (r"first_stage_model\.(loss|model_ema|discriminator|lpips)\.", "the autoencoder's training loss or averages"),
        (
            r"cond_stage_model\.model\.(visual\.|attn_mask$|logit_bias$)|cond_stage_model\.(?!model\.)",
            "parts of CLIP beside its text tower",
        ),
        (r"embedder\.(?!model\.visual\.)", "parts of CLIP beside its image tower"),
        (r"depth_stage_model\.", "MiDaS, which estimates depth"),
        (r"(optimizer|optimizer_states|lr_scheduler|loss|perceptual_loss|discriminator)\b", "what a trainer keeps"),
        (r"(epoch|global_step|step|iteration|num_updates|decay)$", "what a trainer keeps"),
    )
)
#: Tensors that models built on this family add, and what they are for.
ADDED = tuple(
    (re.compile(r"(^|\.)(" + pattern + ")"), what)
    for pattern, what in (
        (r"time_cond_proj\.", "the scale of guidance that T2V-Turbo reads"),
        (r"(motion_cond_proj|combine_proj)\.", "the motion guidance of T2V-Turbo v2"),
        (r"(omcm|cc_projection)\b", "MotionCtrl's control of camera and objects"),
        (r"(pluker_projection|epipolar\w*|pose_encoder)\b", "camera control (CamI2V, CameraCtrl)"),
        (r"(attn_refinement|time_stack|time_mix_conv|mix_factor)\b", "ToonCrafter's decoder"),
        (r"(kv_attn_layers|image_context_model|scale_predictor|to_[kv]_style|norm_style)\b", "StyleCrafter's style of a picture"),
        (r"(lora_\w+|\w+_lora)\b", "a LoRA that is not merged into the weights"),
        (r"label_emb\b", "an embedding of classes"),
    )
)
#: The first parts of the names of a UNet's tensors.
_UNET_PART = re.compile(
    r"(input_blocks?|middle_blocks?|output_blocks?|down_blocks?|mid_block|up_blocks?|out|init_attn|time|fps|framestride|motion|combine"
    r"|label|conv_in|conv_out|\w*embed\w*|\w*_emb|\w*(cond|context|cc)_?proj\w*|\w*_proj|transformer\w*|attn\w*)\b"
    r"|(time|fps|motion|frame)_"
)
#: Most names that a message lists of a kind, and the longest that are looked at: real ones have up to a hundred characters.
MAX_NAMED, LONGEST_NAME = 20, 300


@dataclass(frozen=True)
class Contents:
    """The tensors of a file.

    Attributes:
        used: those that its networks have.
        unused: those that nothing needs, by what they are.
        unknown: the others.
    """

    used: tuple[str, ...]
    unused: dict[str, tuple[str, ...]]
    unknown: tuple[str, ...]

    def left_out(self) -> list[str]:
        """What is not used, in lines for a person: unknown tensors by their names, the others by their number."""
        lines = [f"{len(names)} not needed: {what} ({printable(names[0], 80)} ...)" for what, names in self.unused.items()]
        lines += [f"unknown: {printable(name, 160)}{_meaning(name)}" for name in self.unknown[:MAX_NAMED]]
        if len(self.unknown) > MAX_NAMED:
            lines.append(f"unknown: {len(self.unknown) - MAX_NAMED} more")
        return lines


def classify(names: Iterable[str], used: Iterable[str]) -> Contents:
    """Sort the names of a file's tensors.

    Args:
        used: those that its networks have.
    """
    known, unused, unknown = set(used), dict[str, list[str]](), list[str]()
    kept = []
    for name in names:
        if name in known:
            kept.append(name)
        elif (what := unused_kind(name)) is not None:
            unused.setdefault(what, []).append(name)
        else:
            unknown.append(name)
    return Contents(tuple(kept), {what: tuple(each) for what, each in unused.items()}, tuple(unknown))


def unused_kind(name: str) -> str | None:
    """What a tensor is that no network needs; None for any other."""
    return next((what for pattern, what in UNUSED if pattern.match(name)), None) if len(name) <= LONGEST_NAME else None


def _meaning(name: str) -> str:
    what = next((what for pattern, what in ADDED if pattern.search(name)), None) if len(name) <= LONGEST_NAME else None
    return f": {what}" if what else ""


def check_unknown(checkpoint: Checkpoint, contents: Contents, prefixes: Mapping[str, str]) -> None:
    """Refuse a file with unknown tensors that look like a part of a network.

    Args:
        prefixes: those of the file's parts; a UNet's can be empty.

    Raises:
        CheckpointError: there are such; the message names them and says what they are, if that is known.
    """
    bare = prefixes.get("unet") == ""
    doubtful = [name for name in contents.unknown if _meaning(name) or bare and _UNET_PART.match(name[:LONGEST_NAME])]
    if doubtful:
        lines = [f"{printable(name, 160)} {_shape(checkpoint, name)}{_meaning(name)}" for name in doubtful[:MAX_NAMED]]
        if len(doubtful) > MAX_NAMED:
            lines.append(f"... and {len(doubtful) - MAX_NAMED} more")
        raise CheckpointError(
            f"{checkpoint.path} has tensors that look like a part of its model, but that no model known here has ({len(doubtful)}). "
            "Without them it would be another model, so it is not loaded. Get the model that it was made from, or a newer version of this "
            "pack:",
            lines,
        )


def _shape(checkpoint: Checkpoint, name: str) -> str:
    return str(list(checkpoint.shape(name))) if name in checkpoint else checkpoint.unreadable.get(name, "")[:160]


def explained(name: str) -> str:
    """A tensor's name for a list, with what the tensor is for, if that is known."""
    return printable(name, 160) + _meaning(name)
