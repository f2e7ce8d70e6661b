"""A node that changes ComfyUI's own transformer blocks, as some packs' nodes do."""

from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy_api.latest import ComfyExtension, io


class ChangeBlocks(io.ComfyNode):
    """Leaves out the cross-attention of each of core's blocks, if there is any, and has a function of its own in sampling."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="TestChangeBlocks", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        clone = model.clone()
        for name, layer in model.model.diffusion_model.named_modules():
            if isinstance(layer, BasicTransformerBlock):
                clone.add_object_patch(f"diffusion_model.{name}.attn2", lambda x, **_: 0 * x)
        clone.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
        return io.NodeOutput(clone)


class TestExtension(ComfyExtension):
    async def get_node_list(self):
        return [ChangeBlocks]


async def comfy_entrypoint():
    return TestExtension()
