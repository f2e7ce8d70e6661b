"""Nodes for tests of what is attached to a UNet: ControlNets with random weights, a twin among core's own models, a recorder."""

import json
import os
from pathlib import Path

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ldm.modules.attention
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import comfy.t2i_adapter.adapter
import folder_paths
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import ComfyExtension, io
from comfy_api.torch_helpers import set_torch_compile_wrapper
from safetensors.torch import load_file, save_file

#: Stable Diffusion 2.1's UNet, as ComfyUI detects it.
SD21 = {
    "image_size": 32, "use_spatial_transformer": True, "legacy": False, "adm_in_channels": None, "in_channels": 4, "out_channels": 4,
    "model_channels": 320, "num_res_blocks": [2, 2, 2, 2], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "channel_mult": [1, 2, 4, 4],
    "transformer_depth_middle": 1, "use_linear_in_transformer": True, "context_dim": 1024, "num_heads": -1, "num_head_channels": 64,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
}


def terms(model) -> dict:
    """What a loaded model says of its UNet, without the type of its weights."""
    return {name: value for name, value in model.model.model_config.unet_config.items() if name != "dtype"}


def random_weights(network: torch.nn.Module, seed: int, deviation: float) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
    return network.requires_grad_(False).eval()


class RandomControlNet(io.ComfyNode):
    """A ControlNet of the structure that Stable Diffusion 2.1's have, in the sizes of a model unless others are given."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.Int.Input("seed"), io.String.Input("changed", default="{}")]
        return io.Schema(node_id="TestControlNet", inputs=inputs, outputs=[io.ControlNet.Output()])

    @classmethod
    def execute(cls, model, seed: int, changed: str = "{}") -> io.NodeOutput:
        sizes = {**terms(model), **json.loads(changed)}
        sizes.pop("out_channels")
        network = comfy.cldm.cldm.ControlNet(**sizes, hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
        return io.NodeOutput(comfy.controlnet.ControlNet(random_weights(network, seed, 0.2), load_device=model.load_device))


class TinyAdapter(torch.nn.Module):
    """What a T2I adapter gives, for a UNet of two levels with a block each: features of a hint at its input blocks 1 and 3."""

    unshuffle_amount, input_channels = 8, 3

    def __init__(self, width: int) -> None:
        super().__init__()
        self.at_1, self.at_3 = torch.nn.Conv2d(192, width, 1), torch.nn.Conv2d(192, 2 * width, 1)

    def forward(self, hint):
        x = torch.nn.functional.pixel_unshuffle(hint, 8)
        return {"input": [self.at_3(torch.nn.functional.avg_pool2d(x, 2)), None, self.at_1(x), None]}


class RandomAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        inputs = [io.Int.Input("seed"), io.Int.Input("width")]
        return io.Schema(node_id="TestAdapter", inputs=inputs, outputs=[io.ControlNet.Output()])

    @classmethod
    def execute(cls, seed: int, width: int) -> io.NodeOutput:
        return io.NodeOutput(comfy.controlnet.T2IAdapter(random_weights(TinyAdapter(width), seed, 0.2), 3, 8, "nearest-exact"))


class ControlLora(io.ComfyNode):
    """The shell of a Control-LoRA."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestControlLora", inputs=[], outputs=[io.ControlNet.Output()])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(comfy.controlnet.ControlLora({"lora_controlnet": torch.zeros(0)}))


class Twins(io.ComfyNode):
    """A model without its temporal layers, and core's image model with the same weights."""

    @classmethod
    def define_schema(cls):
        outputs = [io.Model.Output("still"), io.Model.Output("core")]
        return io.Schema(node_id="TestTwins", inputs=[io.Model.Input("model")], outputs=outputs)

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        still = model.clone()
        weights = model.model.diffusion_model.state_dict()
        temporal = [name for name, layer in model.model.diffusion_model.named_modules() if type(layer).__name__ == "TemporalTransformer"]
        for name in temporal:
            closing = {f"{name}.proj_out.{each}": weights[f"{name}.proj_out.{each}"] for each in ("weight", "bias")}
            still.add_patches({f"diffusion_model.{key}": ("set", (torch.zeros_like(value),)) for key, value in closing.items()})

        config = comfy.supported_models.SD20(terms(model))
        config.unet_config |= terms(model)  # it sets its own width of heads
        config.set_inference_dtype(torch.float32, None)
        core = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, device="cpu")
        spatial = {name: value for name, value in weights.items() if not any(name.startswith(f"{each}.") for each in temporal)}
        core.diffusion_model.load_state_dict({cls.core_name(name): value for name, value in spatial.items()})
        patcher = comfy.model_patcher.ModelPatcher(core, load_device=model.load_device, offload_device=model.offload_device)
        return io.NodeOutput(still, patcher)

    @staticmethod
    def core_name(name: str) -> str:
        """Where what follows a temporal transformer in a block stands in core's."""
        part, *rest = name.split(".")
        if part == "middle_block" and rest[0] == "3":
            rest[0] = "2"
        if part == "output_blocks" and rest[1] == "3":
            rest[1] = "2"
        return ".".join([part, *rest])


class Record(io.ComfyNode):
    """Writes what the UNet is given and what it gives: a file for each pass, in the output folder."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.String.Input("file")]
        return io.Schema(node_id="TestRecord", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, file: str) -> io.NodeOutput:
        folder = Path(folder_paths.get_output_directory()) / file
        folder.mkdir()

        def recorded(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
            conditionings = torch.tensor(transformer_options["cond_or_uncond"])
            tensors = {"x": x, "timesteps": timesteps, "context": context, "conditionings": conditionings}
            tensors |= {name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor)}
            for name, residuals in (control or {}).items():
                tensors |= {f"{name}.{index}": value for index, value in enumerate(residuals) if value is not None}
                tensors[f"{name}.count"] = torch.tensor(len(residuals))
            tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
            out = executor(x, timesteps, context, y, control, transformer_options, **kwargs)
            save_file(tensors | {"out": out.contiguous()}, folder / f"{len(os.listdir(folder)):03}.safetensors")
            return out

        clone = model.clone()
        clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_record", recorded)
        return io.NodeOutput(clone)


class Patches(io.ComfyNode):
    """Patches of all kinds at once, each of which depends on what it is told of its place."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.String.Input("kinds")]
        return io.Schema(node_id="TestPatches", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, kinds: str) -> io.NodeOutput:
        def place(options) -> float:
            part, number = options["block"]
            told = [{"input": 1, "middle": 2, "output": 3}[part], number, len(options["cond_or_uncond"]), *options["original_shape"]]
            if "n_heads" in options:
                told += [options["n_heads"], options["dim_head"], options["transformer_index"], options["block_index"]]
                told += options["activations_shape"]
            return float(torch.tensor([*told, options["sigmas"][0].item()]).double().mul(0.01).sin().mean())

        def changed(x, options):
            rows = torch.arange(len(x), device=x.device).reshape(-1, *[1] * (x.ndim - 1))
            return x * (1 + 0.3 * place(options) + 0.05 * rows.sin())

        def changed_inputs(q, k, v, options):
            assert len(q) == len(k) == len(v)
            return changed(q, options), changed(k, options), changed(v.flip(1), options)

        def replaced(q, k, v, options):
            out = comfy.ldm.modules.attention.optimized_attention(q, changed(k, options), v, options["n_heads"])
            return changed(out, options)

        clone = model.clone()
        for kind in kinds.split():
            if kind.startswith("replace_"):
                name, at = kind.removeprefix("replace_").split("@")
                part, number, *depth = at.split(",")
                clone.set_model_patch_replace(replaced, name, part, int(number), *map(int, depth))
            elif kind == "output_block_patch":
                clone.set_model_patch(lambda hidden, skip, options: (changed(hidden, options), changed(skip.flip(-1), options)), kind)
            elif kind in ("attn1_patch", "attn2_patch"):
                clone.set_model_patch(changed_inputs, kind)
            else:
                clone.set_model_patch(changed, kind)
        return io.NodeOutput(clone)


class OverrideAttention(io.ComfyNode):
    """What all attention gives, times a factor."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.Float.Input("factor")]
        return io.Schema(node_id="TestOverrideAttention", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, factor: float) -> io.NodeOutput:
        clone = model.clone()
        options = clone.model_options["transformer_options"]
        options["optimized_attention_override"] = lambda usual, *given, **named: usual(*given, **named) * factor
        return io.NodeOutput(clone)


class RefusingAttention(io.ComfyNode):
    """An attention with a kernel's limits: 64, 96 or 128 wide, as many keys as queries. Writes down the calls it computes."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.String.Input("file")]
        return io.Schema(node_id="TestRefusingAttention", inputs=inputs, outputs=[io.Model.Output()], not_idempotent=True)

    @classmethod
    def execute(cls, model, file: str) -> io.NodeOutput:
        path = Path(folder_paths.get_output_directory(), file)
        path.write_text("")

        def attend(usual, q, k, v, heads, *given, **named):
            width = q.shape[-1] // heads
            if width not in (64, 96, 128):
                raise ValueError(f"Unsupported head_dim: {width}")
            assert q.shape[1] == k.shape[1], "lengths of queries and keys differ"
            with path.open("a") as written:
                written.write(json.dumps([*q.shape[:2], heads, width]) + "\n")
            return usual(q, k, v, heads, *given, **named)

        clone = model.clone()
        clone.model_options["transformer_options"]["optimized_attention_override"] = attend
        return io.NodeOutput(clone)


class Again(io.ComfyNode):
    """A second model from what ComfyUI is told of how to get one."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestAgain", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        load, given = model.cached_patcher_init
        again = load(*given, disable_dynamic=True)
        assert again.model is not model.model and type(again) is comfy.model_patcher.ModelPatcher
        return io.NodeOutput(again)


class Compile(io.ComfyNode):
    """A model through core's compiler, which reads its code and runs what it has read without making it faster."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.String.Input("file", default="", optional=True)]
        return io.Schema(node_id="TestCompile", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, file: str = "") -> io.NodeOutput:
        clone = model.clone()

        def counted(graph, inputs):
            with Path(folder_paths.get_output_directory(), file).open("a") as written:
                written.write("a graph\n")
            return graph.forward

        # Torch's attention is what a GPU has; the CPU's asks for free memory all the time, and each question ends a piece of code.
        torch_s = comfy.ldm.modules.attention.attention_pytorch
        clone.model_options["transformer_options"]["optimized_attention_override"] = lambda usual, *given, **named: torch_s(*given, **named)
        set_torch_compile_wrapper(model=clone, backend=counted if file else "eager")
        return io.NodeOutput(clone)


class Evaluate(io.ComfyNode):
    """The UNet on the tensors of a file in the input folder, of videos ``[n, c, t, h, w]``; saved in the output folder."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.String.Input("inputs"), io.String.Input("file")]
        return io.Schema(node_id="TestEvaluate", is_output_node=True, inputs=inputs, not_idempotent=True)

    @classmethod
    def execute(cls, model, inputs: str, file: str) -> io.NodeOutput:
        given = load_file(os.path.join(folder_paths.get_input_directory(), inputs))
        videos, _, frames = given["x"].shape[:3]
        rows = {name: given[name].repeat_interleave(frames, dim=0) for name in ("timesteps", "context", "fps")}
        comfy.model_management.load_models_gpu([model])
        with torch.inference_mode():
            made = model.model.diffusion_model(given["x"].movedim(2, 1).flatten(0, 1), num_video_frames=frames, **rows)
        made = made.unflatten(0, (videos, frames)).movedim(1, 2).contiguous()
        save_file({"y": made}, os.path.join(folder_paths.get_output_directory(), file))
        return io.NodeOutput()


class TrueSize(io.ComfyNode):
    """The shapes that Stable Diffusion 2.1's ControlNet and T2I adapter give for frames of 320x512, as JSON, without their weights."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestTrueSize", is_output_node=True, inputs=[io.String.Input("file")], not_idempotent=True)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        sizes = {name: value for name, value in SD21.items() if name != "out_channels"}
        network = comfy.cldm.cldm.ControlNet(**sizes, hint_channels=3, device="meta", operations=comfy.ops.disable_weight_init)
        adapter = comfy.t2i_adapter.adapter.Adapter(
            cin=192, channels=[320, 640, 1280, 1280], nums_rb=2, ksize=1, sk=True, use_conv=False, xl=False
        )
        blank = {"device": "meta"}
        attention = comfy.ldm.modules.attention.optimized_attention
        comfy.ldm.modules.attention.optimized_attention = lambda q, *args, **kwargs: q  # its shape is all that counts here
        try:
            given = network(
                torch.empty(2, 4, 40, 64, **blank), torch.empty(2, 3, 320, 512, **blank), torch.empty(2, **blank),
                torch.empty(2, 77, 1024, **blank),
            )
        finally:
            comfy.ldm.modules.attention.optimized_attention = attention
        features = adapter.to("meta")(torch.empty(2, 3, 320, 512, **blank))
        shapes = {
            kind: {name: [None if each is None else list(each.shape) for each in residuals] for name, residuals in found.items()}
            for kind, found in (("controlnet", given), ("adapter", features))
        }
        Path(folder_paths.get_output_directory(), file).write_text(json.dumps(shapes))
        return io.NodeOutput()


class UNetExtension(ComfyExtension):
    async def get_node_list(self):
        return [
            RandomControlNet, RandomAdapter, ControlLora, Twins, Record, Patches, OverrideAttention, RefusingAttention, Again, Compile,
            Evaluate, TrueSize,
        ]  # fmt: skip


async def comfy_entrypoint():
    return UNetExtension()
