"""The loop that trains a network: passes and processes by accelerate, the learning rate, averaged weights, and states to resume from.

The learning rate warms up, is constant, and falls to zero over the last part of the updates (Hägele et al., arXiv:2405.18392), so
that the number of updates can still be changed during a run. An update has ``accumulate`` passes, which are numbered from the run's
beginning and shared out among the processes; all that is random in a pass comes from its number and the seed. So a run that is
resumed, or that has more processes, trains on the same numbers. SIGTERM and Ctrl-C end a run after the current update.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, VideoCrafterError
from .settings import TrainerSettings
from .state import StateError, make_folder, read_state, save_atomically


@dataclass(frozen=True)
class Pass:
    """One of the passes of an update: its generator, the update, and its number from the run's beginning, both from 0."""

    generator: torch.Generator
    update: int
    number: int


@dataclass(frozen=True)
class Progress:
    """What the update that was just made gave: how many are made, of how many, and its figures, averaged over its passes."""

    update: int
    updates: int
    figures: dict[str, float]
    is_main: bool = True


#: ``(network as accelerate wrapped it, pass) -> loss, figures``.
Loss = Callable[[nn.Module, Pass], tuple[Tensor, dict[str, float]]]
Watcher = Callable[[Progress], None]


class Interrupted(VideoCrafterError):
    """The run was asked to stop; its state is saved.

    Args:
        number: of the signal.
    """

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class DivergedError(VideoCrafterError, FloatingPointError):
    """A gradient is NaN or infinite; the last saved state is sound."""


def make_accelerator(settings: TrainerSettings, device: torch.device | str | None = None) -> Any:
    """An ``accelerate.Accelerator`` for a run; the processes are those of ``accelerate launch`` or ``torchrun``.

    Args:
        device: ``cpu`` keeps the run on the CPU where there is a GPU.

    Raises:
        InputError: accelerate is not installed, or set up for what isn't supported (FSDP, DeepSpeed), or the passes can't be shared out
            evenly among the processes.
    """
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise InputError("Training needs accelerate and peft: pip install 'comfyui-videocrafter[train]'.") from error
    on_cpu = device is not None and torch.device(device).type == "cpu"
    # The precision is the trainer's: accelerate's is the whole process's, and a run can have stages of different ones.
    accelerator = Accelerator(cpu=on_cpu, mixed_precision="no")
    processes = accelerator.num_processes
    if accelerator.distributed_type.value not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise InputError(f"accelerate is set up for {accelerator.distributed_type.value}; training runs on one process or several (DDP).")
    if settings.accumulate % processes:
        raise InputError(f"accumulate is {settings.accumulate}; it must be a multiple of the number of processes, which is {processes}.")
    accelerator.gradient_accumulation_steps = settings.accumulate // processes
    return accelerator


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


def generator_of(seed: int, *numbers: int) -> torch.Generator:
    """A generator on the CPU for a seed and further numbers, independent of those of other numbers."""
    state = int(np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state)


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that are trained and all buffers, by name."""
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    buffers = {name for name, _ in module.named_buffers()}
    return {name: value for name, value in module.state_dict().items() if name in trained | buffers}


class Trainer:
    """Trains the parameters of `module` that require gradients on `loss`; `path` holds the state.

    Args:
        watchers: called after each update, in every process.

    Raises:
        InputError: a setting that can't be, or accelerate is not installed.
        FileWriteError: the state can't be written to `path`.
    """

    def __init__(
        self, module: nn.Module, loss: Loss, settings: TrainerSettings, path: Path, name: str = "",
        watchers: Sequence[Watcher] = (), device: torch.device | str | None = "cpu",
    ) -> None:
        settings.check()
        make_folder(path.parent)
        self.module, self.loss, self.settings, self.path, self.name = module, loss, settings, path, name
        self.watchers = list(watchers)
        self.accelerator = make_accelerator(settings, device)
        self.average = Average(module, settings.ema) if settings.ema else None
        trained = [p for p in module.parameters() if p.requires_grad]
        matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        betas = (settings.betas[0], settings.betas[1])
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=settings.learning_rate, betas=betas, fused=True)
        self.network, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.update = 0
        self._stop, self._signal = False, int(signal.SIGTERM)

    @property
    def result(self) -> nn.Module:
        """The averaged network where there is one, else the network."""
        return self.average.module if self.average else self.module

    def state(self) -> dict[str, object]:
        """The state to resume from: the weights that are trained, and the optimizer's numbers."""
        return {
            "update": self.update, "accumulate": self.settings.accumulate, "module": trained_weights(self.module),
            "optimizer": self.optimizer.state_dict(), "average": trained_weights_like(self.module, self.average),
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
        if state["accumulate"] != self.settings.accumulate:
            raise TypeError(f"its updates have {state['accumulate']} passes, not {self.settings.accumulate}")
        _load_trained(self.module, state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            _load_trained(self.average.module, state["average"] or state["module"], like=self.module)
        self.update = update

    def save(self) -> None:
        """Write the state.

        Raises:
            DivergedError: a weight is NaN or infinite; the state before stays.
            FileWriteError: it can't be written; the state before stays.
        """
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.module.parameters() if parameter.requires_grad):
            found = f"{self.name}: weights are NaN or infinite after update {self.update}"
            raise DivergedError(f"{found}; {self.path} was not written. Lower the learning rate.")
        if self.accelerator.is_main_process:
            save_atomically(self.state(), self.path)

    def step(self) -> dict[str, float]:
        """One update."""
        rate = learning_rate(self.settings, self.update)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        sums: dict[str, float] = {}
        for index in range(self.settings.accumulate // processes):
            for key, value in self._pass(index * processes + rank, rate).items():
                sums[key] = sums.get(key, 0.0) + value
        if self.average:
            self.average.update(self.module, self.update)
        self.update += 1
        norm = sums.pop("norm")
        return {**self._mean(sums), "norm": norm, "rate": rate}

    def _pass(self, index: int, rate: float) -> dict[str, float]:
        """A pass of this process, and the step of the optimizer after the last one."""
        number = self.update * self.settings.accumulate + index
        # What draws from torch's own generators (dropout of activations) is of the pass alone, too.
        torch.manual_seed(generator_of(self.settings.seed, number, 1).initial_seed() % 2**63)
        with self.accelerator.accumulate(self.network):
            one = Pass(generator_of(self.settings.seed, number), self.update, number)
            with torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
                loss, figures = self.loss(self.network, one)
            self.accelerator.backward(loss)
            figures = {"loss": float(loss.detach()), **figures}
            if self.accelerator.sync_gradients:
                norm = float(self.accelerator.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm))
                if not math.isfinite(norm):
                    raise DivergedError(f"{self.name}: the gradient of update {self.update} is {norm}; lower the learning rate.")
                figures["norm"] = norm
            self.optimizer.step()
            self.optimizer.zero_grad()
        return figures

    def _mean(self, sums: dict[str, float]) -> dict[str, float]:
        """The figures' mean over all passes of all processes."""
        values = torch.tensor(list(sums.values()), dtype=torch.float32, device=self.accelerator.device)
        values = self.accelerator.reduce(values, "sum") / self.settings.accumulate
        return dict(zip(sums, values.tolist(), strict=True))

    def _stopped(self) -> bool:
        """Whether any process was asked to stop."""
        if self.accelerator.num_processes == 1:
            return self._stop
        return bool(self.accelerator.reduce(torch.tensor(float(self._stop), device=self.accelerator.device), "sum"))

    def run(self, until: int | None = None) -> nn.Module:
        """Train to the last update (or to `until`) and return the result.

        Raises:
            Interrupted: a signal asked for an end; the state is saved.
        """
        until = self.settings.updates if until is None else until
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        first, began, lines = self.update, time.monotonic(), Lines(self.name, self.settings.log_every)
        self.network.train()
        stopped = self._stopped()
        try:
            while self.update < until and not stopped:
                figures = self.step()
                progress = Progress(self.update, until, figures, self.accelerator.is_main_process)
                lines(progress, (time.monotonic() - began) / (self.update - first))
                for watcher in self.watchers:
                    watcher(progress)
                stopped = self._stopped()
                if self.update % self.settings.save_every == 0 and self.update < until and not stopped:
                    self.save()
            if self.update > first:
                self.save()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if stopped:
            raise Interrupted(f"{self.name}: stopped after update {self.update}; the state is in {self.path}.", self._signal)
        return self.result

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop, self._signal = True, number


def trained_weights_like(module: nn.Module, average: Average | None) -> dict[str, Tensor] | None:
    """Of an average, the weights that are trained in the network; None without one."""
    if average is None:
        return None
    weights = average.module.state_dict()
    return {name: weights[name] for name in trained_weights(module)}


def _load_trained(module: nn.Module, weights: dict[str, Tensor], like: nn.Module | None = None) -> None:
    expected = trained_weights(like or module)
    if set(weights) != set(expected):
        raise StateError(f"it has {len(weights)} trained tensors where the network has {len(expected)}, or of other names")
    module.load_state_dict(weights, strict=False)


class Lines:
    """Prints a line of figures, averaged, every so many updates."""

    def __init__(self, name: str, every: int) -> None:
        self.name, self.every = name, every
        self.sums: dict[str, float] = {}
        self.count = 0

    def __call__(self, progress: Progress, pace: float) -> None:
        """Args: pace: seconds of an update."""
        for key, value in progress.figures.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if progress.update % self.every and progress.update != progress.updates:
            return
        if progress.is_main:
            means = "  ".join(f"{key} {value / self.count:.4g}" for key, value in self.sums.items())
            left = pace * (progress.updates - progress.update) / 60
            print(f"{self.name} {progress.update}/{progress.updates}  {means}  {pace:.2f} s/update  {left:.1f} min left", flush=True)
        self.sums, self.count = {}, 0
