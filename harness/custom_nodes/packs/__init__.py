"""Nodes that do what other packs' nodes do: cut latents, give a text per frame, run windows and tiles of their own."""

import json
import os

import comfy.patcher_extension
import comfy.samplers
import folder_paths
import torch
from comfy_api.latest import ComfyExtension, io

from .weighted import WeightedControl

OUTER_SAMPLE = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE


class CutLatent(io.ComfyNode):
    """Chosen frames of a LATENT, with everything else in it left as it was."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Latent.Input("samples"), io.String.Input("frames")]
        return io.Schema(node_id="TestCutLatent", inputs=inputs, outputs=[io.Latent.Output()])

    @classmethod
    def execute(cls, samples, frames: str) -> io.NodeOutput:
        return io.NodeOutput({**samples, "samples": samples["samples"][json.loads(frames)]})


class Texts(io.ComfyNode):
    """A conditioning with the texts of two, one row for each digit of ``rows``."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Conditioning.Input("first"), io.Conditioning.Input("second"), io.String.Input("rows")]
        return io.Schema(node_id="TestTexts", inputs=inputs, outputs=[io.Conditioning.Output()])

    @classmethod
    def execute(cls, first, second, rows: str) -> io.NodeOutput:
        [(one, values)], [(other, _)] = first, second
        return io.NodeOutput([[torch.cat([(one, other)[int(row)] for row in rows]), values]])


class Windows(io.ComfyNode):
    """Overlapping windows of frames, which cut the conditions themselves and tell of it by ``ad_params``; predictions are averaged."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.Int.Input("length"), io.Int.Input("step")]
        return io.Schema(node_id="TestWindows", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, length: int, step: int) -> io.NodeOutput:
        def windowed(args):
            x, conds, options = args["input"], args["conds"], args["model_options"]
            total = len(x)
            sums, weights = [torch.zeros_like(x) for _ in conds], torch.zeros(total, 1, 1, 1)
            for start in range(0, total - length + 1, step):
                frames = list(range(start, start + length))
                told = {"sub_idxs": frames, "full_length": total, "context_length": length}
                inside = {**options, "transformer_options": {**options["transformer_options"], "ad_params": told}}
                parts = [None if group is None else [cut(each, frames, total) for each in group] for group in conds]
                found = comfy.samplers.calc_cond_batch(args["model"], parts, x[frames], args["sigma"][frames], inside)
                for whole, part in zip(sums, found, strict=True):
                    whole[frames] += part
                weights[frames] += 1
            return [each / weights for each in sums]

        clone = model.clone()
        clone.model_options["sampler_calc_cond_batch_function"] = windowed
        return io.NodeOutput(clone)


def cut(cond, frames: list[int], total: int):
    """A conditioning's rows of these frames."""

    def rows(value):
        return value[frames] if isinstance(value, torch.Tensor) and value.ndim and len(value) == total else value

    values = {key: value._copy_with(rows(value.cond)) for key, value in cond["model_conds"].items()}
    return {key: rows(value) for key, value in cond.items()} | {"model_conds": values}


class Tiles(io.ComfyNode):
    """The left and the right half of the picture, evaluated one after the other."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestTiles", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        def tiled(apply, args):
            halves = args["input"].chunk(2, dim=-1)
            return torch.cat([apply(half, args["timestep"], **args["c"]) for half in halves], dim=-1)

        clone = model.clone()
        clone.set_model_unet_function_wrapper(tiled)
        return io.NodeOutput(clone)


class Told(io.ComfyNode):
    """Writes what an attention patch is told of windows into a file of the output folder, a line of JSON for each window."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.String.Input("file")]
        return io.Schema(node_id="TestTold", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, file: str) -> io.NodeOutput:
        def told(q, k, v, options):
            if options["block"] == ("middle", 0):
                with open(os.path.join(folder_paths.get_output_directory(), file), "a") as lines:
                    lines.write(json.dumps(options.get("ad_params")) + "\n")
            return q, k, v

        clone = model.clone()
        clone.set_model_attn1_patch(told)
        return io.NodeOutput(clone)


class CfgPerFrame(io.ComfyNode):
    """A cfg for each frame, as a tensor, for the function of guidance that a sampler node sets."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.String.Input("scales")]
        return io.Schema(node_id="TestCfgPerFrame", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, scales: str) -> io.NodeOutput:
        values = torch.tensor(json.loads(scales)).reshape(-1, 1, 1, 1)

        def sampled(executor, *args, **kwargs):
            options = executor.class_obj.model_options
            guided = options["sampler_cfg_function"]
            options["sampler_cfg_function"] = lambda args: guided({**args, "cond_scale": values})
            return executor(*args, **kwargs)

        clone = model.clone()
        clone.add_wrapper_with_key(OUTER_SAMPLE, "test cfg", sampled)
        return io.NodeOutput(clone)


class TestExtension(ComfyExtension):
    async def get_node_list(self):
        return [CutLatent, Texts, Windows, Tiles, Told, CfgPerFrame, WeightedControl]


async def comfy_entrypoint():
    return TestExtension()
