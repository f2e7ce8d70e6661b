"""Opens a LoRA file and matches it with a model. Nothing of a file is used unless all of it that the model has room for fits."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint.errors import CheckpointError, error_prefix
from ..checkpoint.reading import Checkpoint, open_checkpoint, open_tensor_list
from ..checkpoint.records import StoredTensor
from ..errors import InputError, printable
from ..family.two_files import GUIDANCE_LAYER
from ..models.time_embedding import SCALE_WIDTH
from .alpha import Alpha, Settings, by_layout, read_alpha, stated
from .foreign import base_of_width, foreign_lora
from .keys import Keys, Parts, sort_keys
from .layer import Layer, misfit, scale_misfit
from .lora import Lora
from .places import Shapes, is_text, text_place, unet_layers, unet_place
from .turbo_list import pairs_by_layer

#: Most problems that a message lists.
MAX_LISTED = 10


@dataclass(frozen=True)
class LoraFile:
    """An open LoRA file: its tensors are sorted by layers, but not read yet.

    Attributes:
        matrices: those of a list without names, T2V-Turbo's, which gives no other tensors.
        without_alpha: why alpha is the rank where nothing tells one.
    """

    checkpoint: Checkpoint
    keys: Keys
    matrices: tuple[StoredTensor, ...] = ()
    without_alpha: str = "neither the file nor its layout tells one"

    def match(self, unet: Shapes, text: Shapes | None = None, alpha: float | None = None) -> Lora:
        """Find the layers of a model that the file changes, and read what it adds to them.

        Args:
            unet: the shapes of the UNet's tensors by their names in it, see :func:`vc_core.family.parts.part_shapes`.
            text: those of the text tower's layers, see :func:`.places.text_layers`; None if there is no text encoder.
            alpha: in place of the file's.

        Raises:
            CheckpointError: the file is for another model: no layer matches, or some match in name but not in shape, or its names or
                metadata say so; or a tensor is damaged, NaN or infinite.
            InputError: an alpha that is not a finite number.
        """
        if alpha is not None and not math.isfinite(alpha):
            raise InputError(f"alpha is {alpha}; it must be a finite number, or none for the file's.")
        if self.matrices:
            return self._named(unet).match(unet, text, alpha)
        layers, keys = unet_layers(unet), self.keys
        with error_prefix(self.checkpoint.path):
            places = _Places(keys, layers, text)
            self._check(keys, places)
        unet_parts, text_parts = places.of("unet"), places.of("text")
        chosen = self._alphas(keys, layers, {**unet_parts, **text_parts}, tuple(unet_parts), alpha)
        read = {place: self._layer(keys.layers[path], chosen[place]) for place, path in {**unet_parts, **text_parts}.items()}
        return Lora(
            self.checkpoint.path,
            {place: read[place] for place in unet_parts},
            {place: read[place] for place in text_parts},
            tuple(places.unmatched),
            tuple(places.unused_text),
            len(keys.others),
            tuple(dict.fromkeys(chosen.values())),
            self.checkpoint.metadata,
        )

    def _named(self, unet: Shapes) -> LoraFile:
        """A list without names, with the names of the layers that it has matrices for."""
        shapes = dict(unet)
        if "time_embed.0.weight" in unet:  # without it, the list is refused below
            shapes.setdefault(f"{GUIDANCE_LAYER}.weight", (unet["time_embed.0.weight"][1], SCALE_WIDTH))
        path = self.checkpoint.path
        tensors: dict[str, StoredTensor] = {}
        for layer, (down, up) in pairs_by_layer(self.matrices, shapes, str(path)).items():
            tensors |= {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
        return LoraFile(Checkpoint(path, tensors), sort_keys(tensors), without_alpha="the scale of T2V-Turbo's lists is 1")

    def _check(self, keys: Keys, places: _Places) -> None:
        """
        Raises:
            CheckpointError: the file is for another model.
        """
        what = foreign_lora(keys.layers, self.checkpoint.metadata)
        if what is not None:
            raise CheckpointError(f"is {what}. Nothing of it was applied")
        problems = list(self._misfits(keys, places))
        if problems:
            more = [f"... and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
            raise CheckpointError(
                f"is a LoRA of {_base(self.checkpoint, keys, places) or 'another model'}: {len(problems)} of its {len(keys.layers)} layers "
                "don't have this model's widths. Nothing of it was applied. Take a LoRA for this model:",
                problems[:MAX_LISTED] + more,
            )
        if not places.found:
            only_text = "; it has layers of a text encoder only, and there is none here to apply them to" if places.unused_text else ""
            shown = ", ".join(repr(printable(path, 120)) for path in list(keys.layers)[:3])
            raise CheckpointError(
                f"none of its {len(keys.layers)} layers is one of this model's{only_text or ': it is a LoRA of another model'}. Its first "
                f"layers are {shown}; this model's are called 'input_blocks.1.1.transformer_blocks.0.attn1.to_q' and the like"
            )

    def _misfits(self, keys: Keys, places: _Places) -> Iterator[str]:
        for path, (_, place, shape) in places.found.items():
            parts = keys.layers[path]
            problem = misfit(self._down_shape(parts), self.checkpoint.shape(parts.up), shape)
            if problem is None and parts.dora_scale is not None:
                problem = scale_misfit(self.checkpoint.shape(parts.dora_scale), shape)
            if problem is not None:
                yield f"{printable(place, 120)}: {problem}"

    def _down_shape(self, parts: Parts) -> tuple[int, ...]:
        """The shape of a layer's down matrix, the middle of a decomposed convolution included."""
        down = self.checkpoint.shape(parts.down)
        if parts.mid is None:
            return down
        mid = self.checkpoint.shape(parts.mid)
        if len(mid) < 3 or mid[:2] != (down[0], down[0]) or math.prod(down[2:]) != 1:
            raise CheckpointError(f"{parts.mid!r:.200} is {list(mid)}, which doesn't belong to a down matrix of {list(down)}")
        return down[0], down[1], *mid[2:]

    def _alphas(
        self, keys: Keys, layers: Shapes, matched: dict[str, str], unet: tuple[str, ...], given: float | None
    ) -> dict[str, Alpha]:
        """The alpha of each matched layer by its place, from the first source that has one, see :mod:`.alpha`."""
        ranks = {place: self.checkpoint.shape(keys.layers[path].down)[0] for place, path in matched.items()}
        settings = stated(self.checkpoint, set(ranks.values()))
        names = [keys.layers[path].down for path in matched.values()]
        usual = by_layout(self.checkpoint, names, unet, tuple(layers))
        chosen = {}
        for place, path in matched.items():
            own = self._alpha(keys.layers[path], place, ranks[place], given, settings)
            chosen[place] = own or usual or Alpha(float(ranks[place]), "= rank", self.without_alpha)
        return chosen

    def _alpha(self, parts: Parts, place: str, rank: int, given: float | None, settings: Settings | None) -> Alpha | None:
        if given is not None:
            return Alpha.plain(given, "as you chose")
        if parts.alpha is not None:
            return Alpha.plain(read_alpha(self.checkpoint, parts.alpha), "from the file")
        return None if settings is None else settings.of_layer(place, rank)

    def _layer(self, parts: Parts, alpha: Alpha) -> Layer:
        down, up = (self.checkpoint.sound_tensor(name) for name in (parts.down, parts.up))
        if parts.mid is not None:
            down = _joined(down, self.checkpoint.sound_tensor(parts.mid))
        return Layer(down, up, alpha.value, None if parts.dora_scale is None else self.checkpoint.sound_tensor(parts.dora_scale))


class _Places:
    """Where a file's layers are in a model.

    Attributes:
        found: by the paths in the file: "unet" or "text", the path in the model, and the shape of its weight.
        unmatched, unused_text: see :class:`.lora.Lora`.
    """

    def __init__(self, keys: Keys, unet: Shapes, text: Shapes | None) -> None:
        self.found: dict[str, tuple[str, str, tuple[int, ...]]] = {}
        self.unmatched, self.unused_text = list[str](), list[str]()
        for path in keys.layers:
            if is_text(path):
                place = text_place(path)
                if text is not None and place in text:
                    self._add(path, "text", place, text[place])
                else:
                    self.unused_text.append(path)
            elif (layer := unet_place(path, unet)) is not None:
                self._add(path, "unet", layer, unet[layer])
            else:
                self.unmatched.append(path)

    def of(self, part: str) -> dict[str, str]:
        """The paths in the file by those in a part of the model."""
        return {place: path for path, (found, place, _) in self.found.items() if found == part}

    def _add(self, path: str, part: str, place: str, shape: tuple[int, ...]) -> None:
        twice = next((other for other, (found, known, _) in self.found.items() if (found, known) == (part, place)), None)
        if twice is not None:
            raise CheckpointError(f"has two LoRAs for the layer {place}: {twice!r:.160} and {path!r:.160}. Save each as a file of its own")
        self.found[path] = part, place, shape


def open_lora(path: str | os.PathLike[str]) -> LoraFile:
    """Open a LoRA file of any layout, see :mod:`.keys`. Its tensors are read later, by :meth:`LoraFile.match`.

    Raises:
        CheckpointError: the file can't be read, holds no LoRA, or changes weights in another way than a LoRA.
    """
    matrices = open_tensor_list(Path(path))
    if matrices is not None:
        return LoraFile(Checkpoint(Path(path), {}), Keys({}, ()), tuple(matrices))
    checkpoint = open_checkpoint(Path(path))
    with error_prefix(checkpoint.path):
        keys = sort_keys([*checkpoint.names(), *checkpoint.unreadable])
        if not keys.layers:
            shown = ", ".join(printable(name, 80) for name in checkpoint.names()[:3])
            raise CheckpointError(
                f"holds no LoRA: none of its {len(checkpoint)} tensors is a matrix of one (lora_A, lora_down, ...). They start with "
                f"{shown}. If it is a model, load it as one"
            )
    for parts in keys.layers.values():
        for name in filter(None, astuple(parts)):
            checkpoint.stored(name)  # which refuses one that can't be read
    return LoraFile(checkpoint, keys)


def _base(checkpoint: Checkpoint, keys: Keys, places: _Places) -> str | None:
    """The base model that has the text of the width that a file's layers read, if that is known."""
    for path, (part, place, _) in places.found.items():
        if place.endswith((".attn2.to_k", ".attn2.to_v") if part == "unet" else (".q_proj", ".k_proj", ".v_proj")):
            shape = checkpoint.shape(keys.layers[path].down)
            return base_of_width(shape[1]) if len(shape) > 1 else None
    return None


def _joined(down: Tensor, mid: Tensor) -> Tensor:
    """A decomposed convolution's down matrix ``[rank, in, 1, ...]`` and its middle ``[rank, rank, ...]`` as one ``[rank, in, ...]``."""
    return torch.einsum("ab...,bc->ac...", mid.float(), down.float().flatten(1))
