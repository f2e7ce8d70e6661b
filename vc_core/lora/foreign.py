"""Tells LoRA files of other models by their names, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

#: Names in LoRA files of other models, and whose they are.
_OTHERS = tuple(
    (re.compile(pattern), what)
    for pattern, what in (
        (
            r"motion_modules[._]|temporal_transformer[._]transformer_blocks",
            "an AnimateDiff motion LoRA. It belongs to AnimateDiff's motion modules, which this family doesn't have: load it with "
            "AnimateDiff-Evolved, on an image model",
        ),
        (r"temp_attentions[._]|temp_convs[._]|(^|[._])transformer_in[._]", "a LoRA of ModelScope's text-to-video model (ZeroScope)"),
        (
            r"^lora_te2_|(^|\.)text_encoder_2\.|(input|output|down|up|middle|mid)_block(s[._]\d+)?[._].*transformer_blocks[._][1-9]",
            "a LoRA of Stable Diffusion XL",
        ),
        (r"(^|[._])joint_blocks[._]", "a LoRA of Stable Diffusion 3"),
        (r"(^|[._])(double_blocks|single_blocks|single_transformer_blocks)[._]", "a LoRA of FLUX or HunyuanVideo"),
        (r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn|ffn)[._]", "a LoRA of Wan"),
        (
            r"^((lora_unet|lora_transformer|lycoris)_|((base_model\.model|diffusion_model|transformer)\.)*)transformer_blocks[._]\d",
            "a LoRA of a diffusion transformer (FLUX, LTX-Video, CogVideoX)",
        ),
    )
)
#: What metadata says of the model that a LoRA was trained on, by the start of the text.
_BASES = {
    "sd_v1": "Stable Diffusion 1", "sdxl": "Stable Diffusion XL", "sd3": "Stable Diffusion 3", "flux": "FLUX",
    "stable-diffusion-v1": "Stable Diffusion 1", "stable-diffusion-xl": "Stable Diffusion XL", "stable-diffusion-3": "Stable Diffusion 3",
}
_BASE_KEYS = ("ss_base_model_version", "modelspec.architecture")
#: The widths of text that models other than this family's read in cross-attention.
_TEXT_WIDTHS = {768: "Stable Diffusion 1", 2048: "Stable Diffusion XL"}


def foreign_lora(paths: Iterable[str], metadata: Mapping[str, str]) -> str | None:
    """What a LoRA of another model is; None if neither the paths of its layers nor its metadata say so."""
    for path in paths:
        for pattern, what in _OTHERS:
            if pattern.search(path):
                return what
    told = [metadata.get(key, "").lower() for key in _BASE_KEYS]
    base = next((base for text in told for start, base in _BASES.items() if text.startswith(start)), None)
    return base and f"a LoRA of {base}, as its metadata says"


def base_of_width(width: int) -> str | None:
    """The base model whose cross-attention reads text of a width, if it is another than this family's."""
    return _TEXT_WIDTHS.get(width)
