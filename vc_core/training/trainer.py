"""The loop that trains a network: learning rate, averaged weights, and a saved state to resume from.

The learning rate warms up, is constant, and falls to zero over the last part of the updates (Hägele et al., arXiv:2405.18392), so
that the number of updates can still be changed during a run. All randomness comes from the generators that are passed to the loss,
and their states are saved, so a resumed run gives the same weights as one that was never stopped. States are written to a
temporary file and then moved into place; SIGTERM and Ctrl-C end a run after the current update.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import VideoCrafterError
from .settings import TrainerSettings
from .state import StateError, make_folder, read_state, save_atomically

Loss = Callable[[torch.Generator, int], tuple[Tensor, dict[str, float]]]  # (generator, update) -> loss, figures


class Interrupted(VideoCrafterError):
    """The run was asked to stop; its state is saved."""


class DivergedError(VideoCrafterError, FloatingPointError):
    """A gradient is NaN or infinite; the last saved state is sound."""


class Average:
    """An exponential moving average of a network's weights. The decay after n updates is (1+n)/(10+n), at most `decay`."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, module: nn.Module, count: int) -> None:
        """Add the weights after update number `count` (from 0) to the average."""
        decay = min(self.decay, (1 + count) / (10 + count))
        averaged: list[Tensor] = list(self.module.parameters())
        current: list[Tensor] = list(module.parameters())
        torch._foreach_lerp_(averaged, current, 1 - decay)
        for buffer, new in zip(self.module.buffers(), module.buffers(), strict=True):
            buffer.copy_(new)


def learning_rate(settings: TrainerSettings, update: int) -> float:
    """The learning rate of update number `update` (from 0)."""
    warm = min(1.0, (update + 1) / max(1, settings.warmup))
    left = (settings.updates - update) / max(1.0, settings.cooldown * settings.updates)
    return settings.learning_rate * warm * min(1.0, left)


class Trainer:
    """Trains `module` on `loss`; `path` holds the state.

    Raises:
        InputError: a setting that can't be.
        FileWriteError: the state can't be written to `path`.
    """

    def __init__(self, module: nn.Module, loss: Loss, settings: TrainerSettings, path: Path, name: str = "") -> None:
        settings.check()
        make_folder(path.parent)
        self.module, self.loss, self.settings, self.path, self.name = module, loss, settings, path, name
        matrices = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.betas[0], settings.betas[1]), fused=True)
        self.average = Average(module, settings.ema) if settings.ema else None
        self.generators = [torch.Generator().manual_seed(settings.seed * 1009 + index) for index in range(settings.pieces)]
        self.parameters = matrices + vectors
        self.workers = ThreadPoolExecutor(settings.pieces)
        self.update = 0
        self._stop = False

    @property
    def result(self) -> nn.Module:
        """The averaged network where there is one, else the network."""
        return self.average.module if self.average else self.module

    def state(self) -> dict[str, object]:
        """The state to resume from."""
        return {
            "update": self.update, "module": self.module.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average.module.state_dict() if self.average else None,
            "generators": [generator.get_state() for generator in self.generators],
        }

    def resume(self) -> bool:
        """Load the saved state. Returns False if there is none.

        Raises:
            StateError: it can't be read, has NaN, or is of another run; the file is left as it is.
        """
        if not self.path.exists():
            return False
        state = read_state(self.path)
        try:
            self._take(state)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(
                f"{self.path}: is not of a run with these settings and this network ({str(error).splitlines()[0]:.160}). Move it away to "
                "start anew, or give the run another folder."
            ) from error
        return True

    def _take(self, state: dict[str, Any]) -> None:
        update = state["update"]
        if type(update) is not int or update < 0:
            raise TypeError(f"its number of updates is {update!r:.40}")
        if len(state["generators"]) != len(self.generators):
            raise TypeError(f"it has {len(state['generators'])} pieces, not {len(self.generators)}")
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.module.load_state_dict(state["average"] or state["module"])
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved)
        self.update = update

    def save(self) -> None:
        """Write the state.

        Raises:
            DivergedError: a weight is NaN or infinite; the state before stays.
            FileWriteError: it can't be written; the state before stays.
        """
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters):
            found = f"{self.name}: weights are NaN or infinite after update {self.update}"
            raise DivergedError(f"{found}; {self.path} was not written. Lower the learning rate.")
        save_atomically(self.state(), self.path)

    def step(self) -> dict[str, float]:
        """One update."""
        rate = learning_rate(self.settings, self.update)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        pieces = list(self.workers.map(self._piece, self.generators))
        for parameter, *gradients in zip(self.parameters, *(gradients for gradients, _ in pieces), strict=True):
            parameter.grad = sum(gradients[1:], gradients[0]) / len(pieces)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        if not math.isfinite(float(norm)):
            raise DivergedError(f"{self.name}: the gradient of update {self.update} is {float(norm)}; lower the learning rate.")
        self.optimizer.step()
        if self.average:
            self.average.update(self.module, self.update)
        self.update += 1
        figures = [figures for _, figures in pieces]
        return {key: sum(each[key] for each in figures) / len(figures) for key in figures[0]} | {"norm": float(norm)}

    def _piece(self, generator: torch.Generator) -> tuple[tuple[Tensor, ...], dict[str, float]]:
        """The gradients and figures of one piece of an update's batch.

        Pieces run in threads that synchronize once per update; the threads of one operation would synchronize after each operation.
        """
        loss, figures = self.loss(generator, self.update)
        return torch.autograd.grad(loss, self.parameters, materialize_grads=True), {"loss": float(loss.detach()), **figures}

    def run(self, until: int | None = None) -> nn.Module:
        """Train to the last update (or to `until`) and return the result.

        Raises:
            Interrupted: a signal asked for an end; the state is saved.
        """
        until, settings = self.settings.updates if until is None else until, self.settings
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        sums: dict[str, float] = {}
        began, first, count = time.monotonic(), self.update, 0
        self.module.train()
        try:
            while self.update < until and not self._stop:
                for key, value in self.step().items():
                    sums[key] = sums.get(key, 0.0) + value
                count += 1
                if self.update % settings.log_every == 0 or self.update == until:
                    pace = (time.monotonic() - began) / (self.update - first)
                    means = "  ".join(f"{key} {value / count:.4f}" for key, value in sums.items())
                    left = pace * (until - self.update) / 60
                    print(f"{self.name} {self.update}/{until}  {means}  {pace:.2f} s/update  {left:.1f} min left", flush=True)
                    sums, count = {}, 0
                if self.update % settings.save_every == 0:
                    self.save()
            if self.update > first:
                self.save()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._stop:
            raise Interrupted(f"{self.name}: stopped after update {self.update}; the state is in {self.path}.")
        return self.result

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop = True
