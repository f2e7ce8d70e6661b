"""What Advanced-ControlNet's nodes do: hints for some frames only, and weights for each frame and each layer."""

import json

import torch
from comfy_api.latest import io


def weighted(control, settings: dict):
    """A copy of a ControlNet or T2I adapter of ComfyUI's that weighs what it gives."""

    def copy(self):
        return weighted(kind.copy(self), settings)

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        told = transformer_options.get("ad_params")
        frames = told["sub_idxs"] if told else list(range(len(x_noisy) // batched_number))
        given, hints = settings["frames"], self.cond_hint_original
        blank = torch.zeros_like(hints[:1])
        self.of_frames = torch.tensor([settings["weights"].get(str(frame), 1.0) if frame in given else 0.0 for frame in frames])
        self.cond_hint_original = torch.cat([hints[given.index(frame), None] if frame in given else blank for frame in frames])
        self.cond_hint = None
        try:
            return kind.get_control(self, x_noisy, t, cond, batched_number, transformer_options)
        finally:
            self.cond_hint_original, self.cond_hint = hints, None

    def control_merge(self, control, *others):
        for residuals in control.values():
            for layer, residual in enumerate(residuals):
                if residual is not None:
                    of_frames = self.of_frames.repeat(len(residual) // len(self.of_frames)).reshape(-1, 1, 1, 1)
                    residuals[layer] = residual * of_frames * settings["layers"] ** layer
        return kind.control_merge(self, control, *others)

    kind = type(control)
    found = kind.copy(control)
    found.__class__ = type("WeightedControl", (kind,), {"copy": copy, "get_control": get_control, "control_merge": control_merge})
    found.__class__.__module__ = __name__  # no longer one of ComfyUI's
    return found


class WeightedControl(io.ComfyNode):
    """A ControlNet for the frames of a JSON list, with weights by frame (JSON), each layer's being a factor of the one before."""

    @classmethod
    def define_schema(cls):
        inputs = [io.ControlNet.Input("control"), io.String.Input("frames"), io.String.Input("weights"), io.Float.Input("layers")]
        return io.Schema(node_id="TestWeightedControl", inputs=inputs, outputs=[io.ControlNet.Output()])

    @classmethod
    def execute(cls, control, frames: str, weights: str, layers: float) -> io.NodeOutput:
        settings = {"frames": json.loads(frames), "weights": json.loads(weights), "layers": layers}
        return io.NodeOutput(weighted(control, settings))
