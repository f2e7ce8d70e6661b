"""A node for tests of the core's hooks on a MODEL."""

import json
from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, io


class Shift:
    """The core's hooks of one pass, by their methods' names: adds a number between the attentions over time, in positive rows."""

    def __init__(self, amount: float, roles: tuple[str, ...]) -> None:
        self.amount, self.roles = amount, roles

    def spatial(self, site):
        return None

    def temporal(self, site):
        return self

    def over_time(self, part, block, frames, added):
        return added

    def after_input_block(self, number, hidden, skip):
        return hidden, skip

    def after_middle_block(self, hidden):
        return hidden

    def before_output_block(self, number, hidden, skip):
        return hidden, skip

    def block_input(self, x):
        return x

    def block(self, run, x):
        return run(x)

    def attention(self, layer, x, name, attention):
        return layer(x, attention)

    def between(self, x):
        factors = [self.amount * (role == "positive") for role in self.roles]
        return x + x.new_tensor(factors)[:, None, None, None]


class TemporalHooks(io.ComfyNode):
    """Adds hooks to a model, and writes down what they are made from."""

    @classmethod
    def define_schema(cls):
        inputs = [io.Model.Input("model"), io.Float.Input("amount"), io.String.Input("file")]
        return io.Schema(node_id="TestTemporalHooks", inputs=inputs, outputs=[io.Model.Output()])

    @classmethod
    def execute(cls, model, amount: float, file: str) -> io.NodeOutput:
        target = Path(folder_paths.get_output_directory()) / file
        target.write_text("")

        def factory(inputs):
            seen = {"roles": inputs.roles, "shape": list(inputs.x.shape), "step": inputs.step, "steps": inputs.steps}
            with target.open("a") as lines:
                lines.write(json.dumps(seen) + "\n")
            return Shift(amount, inputs.roles)

        clone = model.clone()
        options = clone.model_options["transformer_options"]
        options["videocrafter_hooks"] = (*options.get("videocrafter_hooks", ()), factory)
        return io.NodeOutput(clone)


class HooksExtension(ComfyExtension):
    async def get_node_list(self):
        return [TemporalHooks]


async def comfy_entrypoint():
    return HooksExtension()
