"""UNets whose passes torch compiles, or replays as CUDA graphs. Which is a choice, see :class:`vc_core.choices.Choices`."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import fields, replace
from functools import cache, partial
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.transformers import Pass, SpatialTransformer, TemporalTransformer
from ..models.unet import ResidualBlock, UNet

COMPILED = ("none", "blocks", "network")
#: Passes before a CUDA graph is recorded, in which libraries choose their kernels and reserve memory.
WARM_UP = 3

Module = TypeVar("Module", bound=nn.Module)


def compiled(unet: UNet, what: str, mode: str | None = None, backend: str | Callable[..., Any] = "inductor") -> UNet:
    """A UNet with the same weights of which a part is compiled for any size; the one passed stays as it is.

    Args:
        what: ``network`` compiles all between the first and the last layers as one graph. ``blocks`` compiles residual blocks and
            transformers, one graph for all of the same widths, which takes less time to compile. ``none`` changes nothing.
        mode, backend: those of ``torch.compile``.

    Raises:
        InputError: another value of ``what``.
    """
    if what not in COMPILED:
        raise InputError(f"compiled is {what!r}; it can be {', '.join(COMPILED)}.")
    if what == "none":
        return unet
    same = _twin(unet)
    if what == "network":
        same.body = _compiled_body(unet, mode, backend)  # type: ignore[method-assign, assignment]
        return same
    for name in ("input_blocks", "output_blocks"):
        blocks = getattr(unet, name)
        setattr(same, name, nn.ModuleList(_with_compiled_layers(block, mode, backend) for block in blocks))
    same.middle_block = _with_compiled_layers(unet.middle_block, mode, backend)
    return same


def _compiled_body(unet: UNet, mode: str | None, backend: Any) -> Callable[[Tensor, Pass], Tensor]:
    """The compiled :meth:`UNet.body`.

    It is compiled for ``[b, t, c, h, w]``, where the size of a batch of frames is a product. If the number of frames divided an unknown
    size instead, torch would simplify fractions of fractions for minutes.
    """

    def body(hidden: Tensor, run: Pass) -> Tensor:
        return unet.body(hidden.flatten(0, 1), replace(run, frames=hidden.shape[1]))

    of_videos = torch.compile(body, dynamic=True, mode=mode, backend=backend)
    return lambda hidden, run: of_videos(hidden.unflatten(0, (-1, run.frames)), run)


def _twin(module: Module) -> Module:
    """A module with the same weights whose submodules can be replaced without changing those of the original."""
    same = copy(module)
    same._modules = dict(module._modules)
    return same


def _with_compiled_layers(block: nn.ModuleList, mode: str | None, backend: Any) -> nn.ModuleList:
    layers = []
    for layer in block:
        if isinstance(layer, (ResidualBlock, SpatialTransformer, TemporalTransformer)):
            shapes = tuple((name, tuple(each.shape)) for name, each in layer.named_parameters())
            layer, original = _twin(layer), layer
            forward = _compiled_forward(type(layer), shapes, mode, backend)  # type: ignore[arg-type]
            layer.forward = partial(forward, original)  # type: ignore[method-assign]
        layers.append(layer)
    return nn.ModuleList(layers)


@cache
def _compiled_forward(kind: type, shapes: tuple[Any, ...], mode: str | None, backend: Any) -> Callable[..., Tensor]:
    """The compiled ``forward`` of a class for layers whose parameters have these shapes.

    Torch counts graphs by code object, and after 8 of one it computes without being compiled, silently. A UNet has more widths than
    that, so each gets a copy of the code.
    """
    forward: Any = kind.__dict__["forward"]
    own = FunctionType(forward.__code__.replace(), forward.__globals__, forward.__name__, forward.__defaults__, forward.__closure__)
    return torch.compile(own, dynamic=True, mode=mode, backend=backend)


class RecordedPasses:
    """Runs a UNet's body and head on a GPU as CUDA graphs, one for each set of shapes; for passes without hooks.

    A graph is replayed with one call, where each of its kernels would be started on its own otherwise. It keeps the memory of a pass.
    """

    def __init__(self, unet: UNet) -> None:
        self.unet = unet
        self._graphs: dict[tuple[Any, ...], tuple[Any, Tensor, Pass, Tensor]] = {}

    def __call__(self, hidden: Tensor, run: Pass) -> Tensor:
        """``[(b t), c, h, w]`` -> ``[B, out_channels, T, h, w]``, a tensor of its own."""
        key = tuple(_description(value) for value in (hidden, *_values(run)))
        if key not in self._graphs:
            self._graphs[key] = self._recorded(hidden, run)
        graph, static_hidden, static_run, out = self._graphs[key]
        static_hidden.copy_(hidden)
        for static, value in zip(_values(static_run), _values(run), strict=True):
            if isinstance(static, Tensor):
                static.copy_(value)
        graph.replay()
        return out.clone()

    def _recorded(self, hidden: Tensor, run: Pass) -> tuple[Any, Tensor, Pass, Tensor]:
        hidden = hidden.clone()
        values: dict[str, Any] = dict(zip((field.name for field in fields(Pass)), _values(run), strict=True))
        copies: dict[str, Any] = {name: value.clone() if isinstance(value, Tensor) else value for name, value in values.items()}
        run = Pass(**copies)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._run(hidden, run)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = self._run(hidden, run)
        return graph, hidden, run, out

    def _run(self, hidden: Tensor, run: Pass) -> Tensor:
        return self.unet.head(self.unet.body(hidden, run), run)


def _values(run: Pass) -> list[Any]:
    return [getattr(run, field.name) for field in fields(Pass)]


def _description(value: Any) -> Any:
    return (tuple(value.shape), value.stride(), value.dtype) if isinstance(value, Tensor) else value
