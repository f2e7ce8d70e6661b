"""Nodes that make a run end, or a device run out of memory, at a place that a test chooses."""

from __future__ import annotations

import copy
import os
import signal
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import torch
from comfy_api.latest import ComfyExtension, io


def interrupt() -> None:
    comfy.model_management.interrupt_current_processing()
    comfy.model_management.throw_exception_if_processing_interrupted()


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("Allocation failed: a test said so.")


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


WAYS = {"interrupt": interrupt, "out of memory": out_of_memory, "kill": kill}


class FailAt(io.ComfyNode):
    """A model whose sampling ends at a step, counted from 0."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.Int.Input("step"), io.Combo.Input("way", options=list(WAYS))]
        return io.Schema(node_id="TestFailAt", inputs=inputs, outputs=[io.Model.Output()], not_idempotent=True)

    @classmethod
    def execute(cls, model: Any, step: int, way: str) -> io.NodeOutput:
        steps = iter(range(1 << 30))

        def predict(executor: Any, *args: Any, **kwargs: Any) -> Any:
            if next(steps) == step:
                WAYS[way]()
            return executor(*args, **kwargs)

        clone = model.clone()
        clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, "test failing", predict)
        return io.NodeOutput(clone)


class Starved:
    """An autoencoder that runs out of memory the first few times it decodes, and for more positions of a latent than it can hold."""

    def __init__(self, autoencoder: Any, times: int, positions: int) -> None:
        self._autoencoder, self._left, self._positions = autoencoder, times, positions

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_autoencoder"], name)

    def decode(self, z: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        if self._left >= 0 or z[:, 0].numel() > self._positions:
            out_of_memory()
        return self._autoencoder.decode(z, *args, **kwargs)


class StarvedVAE(io.ComfyNode):
    """A VAE that runs out of memory so many times."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Vae.Input("vae"), io.Int.Input("times"), io.Int.Input("positions", default=1 << 30, optional=True)]
        return io.Schema(node_id="TestStarvedVAE", inputs=inputs, outputs=[io.Vae.Output()], not_idempotent=True)

    @classmethod
    def execute(cls, vae: Any, times: int, positions: int = 1 << 30) -> io.NodeOutput:
        starved = copy.copy(vae)
        starved.first_stage_model = Starved(vae.first_stage_model, times, positions)
        return io.NodeOutput(starved)


class FailingExtension(ComfyExtension):
    async def get_node_list(self):
        return [FailAt, StarvedVAE]


async def comfy_entrypoint():
    return FailingExtension()
