"""Graphs that strangers might send: sensible ones, changed in a few places at random.

Each begins as a graph that works (text to video, image to video, interpolation, keyframes, core's samplers) on models that are
tiny. Then values are put to their bounds and beyond, replaced by others' types, strange text or nothing; links are led to
other nodes, to other models, or to the tests' nodes that hand over NaN, other families' latents and the like; nodes change class.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from harness.graph import ObjectInfo, Prompt, input_specs, is_widget, options_of

#: What the models are called that a graph may load, and files that are none.
MODELS = (
    "videocrafter_tiny_t2v (bundled)", "videocrafter_tiny_i2v (bundled)", "t2v_512_v1.safetensors", "dynamicrafter_512_v1.safetensors",
)
NO_MODELS = ("hostile.ckpt", "empty.safetensors", "web page.ckpt", "unet only.safetensors")
SIZE, FRAMES = 32, 2
#: What a value may be replaced by, whatever its type.
STRANGE_VALUES: tuple[Any, ...] = (
    None, True, "", " ", "nan", "inf", "-1", "0", -1, 0, 1, 2, 3, 1e308, -0.0, 0.5, 2**31, 2**63, 2**64, -(2**70), [], {}, [[]], {"a": 1},
    ["1"], ["1", 99], ["999", 0], ["1", -1], [1, 0], "../../nowhere/evil", "/nowhere/evil", "C:\\evil", "a\0b", "\u202egnp.exe",
    "\U0001f988" * 50, "x" * 2000, "%date:yyyy%", "<script>alert(1)</script>", "${HOME}", "{}", "é\u0301", "\ud83d", "\x1b[2J",
)
#: Inputs whose largest values only take long, and what they are at most.
SLOW = {"steps": 3, "batch_size": 4, "length": 24, "width": 128, "height": 128}
#: What no machine's memory holds.
ENDLESS = {"width": 4096, "height": 4096, "length": 4096, "batch_size": 64}
STRANGE_NODES = {"LATENT": "TestStrangeLatent", "IMAGE": "TestStrangeImage", "CONDITIONING": "TestStrangeConditioning"}

Link = list[Any]


class Maker:
    """Makes one graph.

    Args:
        info: the server's node classes.
        seed: decides everything.
    """

    def __init__(self, info: ObjectInfo, seed: int) -> None:
        self.info, self.draw = info, random.Random(seed)
        self.prompt: Prompt = {}

    def make(self) -> Prompt:
        """The graph: a sensible one with one to four changes."""
        self.sensible()
        changes = [self.change_value] * 8 + [self.lead_elsewhere] * 6 + [self.take_strange] * 8
        changes += [self.leave_out] * 2 + [self.change_class] * 2 + [self.make_endless]
        for _ in range(self.draw.choice([1, 1, 2, 2, 3, 4])):
            self.draw.choice(changes)()
        return self.prompt

    def add(self, class_type: str, **inputs: Any) -> str:
        number = str(len(self.prompt) + 1)
        self.prompt[number] = {"class_type": class_type, "inputs": inputs}
        return number

    # What works

    def sensible(self) -> None:
        """A graph that runs."""
        model = self.draw.choice(MODELS)
        loaders = self.loaders()
        parts = {name: [loaders[model], slot] for slot, name in enumerate(("model", "clip", "vae", "clip_vision"))}
        texts = [[self.add("CLIPTextEncode", clip=parts["clip"], text=text), 0] for text in ("a red circle moving right", "")]
        latent = [self.add("EmptyVideoCrafterLatent", width=SIZE, height=SIZE, length=FRAMES, batch_size=1), 0]
        image = [self.add("EmptyImage", width=SIZE, height=SIZE, batch_size=1, color=0xFF0000), 0]
        ways: dict[str, Callable[..., Link]] = {"authors": self.authors, "ksampler": self.ksampler, "custom": self.custom}
        texts_in = {"positive": texts[0], "negative": texts[1]}
        if "t2v" in model:
            number = self.add("VideoCrafterConditioning", **texts_in, fps=8.0, latent=latent)
        else:
            image_inputs = {"clip_vision": parts["clip_vision"], "vae": parts["vae"], "strength": 1.0, "fps": 8.0}
            which = self.draw.choice(["VideoCrafterImageToVideo", "VideoCrafterInterpolation", "VideoCrafterKeyframes"])
            if which == "VideoCrafterImageToVideo":
                number = self.add(which, **texts_in, **image_inputs, image=image, latent=latent)
            elif which == "VideoCrafterInterpolation":
                number = self.add(which, **texts_in, **image_inputs, image=image, end_image=image, latent=latent)
            else:
                images = [self.add("ImageBatch", image1=image, image2=image), 0]
                number = self.add(which, **texts_in, **image_inputs, keyframes=images, width=SIZE, height=SIZE, length=FRAMES, loop=False)
                latent = [number, 2]
        if self.draw.random() < 0.3:
            self._save_conditionings([number, 0], [number, 1])
            return
        samples = self.draw.choice(list(ways.values()))(parts["model"], [number, 0], [number, 1], latent)
        self._finish(parts, samples, image)

    def _save_conditionings(self, positive: Link, negative: Link) -> None:
        """An ending without sampling, which takes most of the time."""
        for index, conditioning in enumerate((positive, negative)):
            self.add("TestSave", file=f"fuzz{index}.safetensors", conditioning=conditioning)

    def loaders(self) -> dict[str, str]:
        """A loader of every model, and a node that has ComfyUI remember them."""
        loaders = {name: self.add("VideoCrafterLoader", ckpt_name=name, weight_dtype="default", model="auto") for name in MODELS}
        self.add("TestKeep", **{f"model{place}": [number, 0] for place, number in enumerate(loaders.values())})
        return loaders

    def authors(self, model: Link, positive: Link, negative: Link, latent: Link) -> Link:
        return [self.add(
            "VideoCrafterSampler", model=model, positive=positive, negative=negative, latent_image=latent, seed=0, steps=1, cfg=1.0,
            eta=1.0, guidance_rescale=0.0, denoise=1.0, spacing="auto",
        ), 0]

    def ksampler(self, model: Link, positive: Link, negative: Link, latent: Link) -> Link:
        return [self.add(
            "KSampler", model=model, positive=positive, negative=negative, latent_image=latent, seed=0, steps=1, cfg=1.0,
            sampler_name="euler", scheduler="normal", denoise=1.0,
        ), 0]

    def custom(self, model: Link, positive: Link, negative: Link, latent: Link) -> Link:
        kind = self.draw.choice(["VideoCrafterGuider", "CFGGuider"])
        apart = {"image_cfg": 2.0, "guidance_rescale": 0.0} if kind == "VideoCrafterGuider" else {}
        guider = self.add(kind, model=model, positive=positive, negative=negative, cfg=1.0, **apart)
        sampler = self.add("VideoCrafterDDIM", eta=1.0)
        sigmas = self.add("VideoCrafterScheduler", model=model, steps=1, denoise=1.0, spacing="auto")
        noise = self.add("RandomNoise", noise_seed=0)
        return [self.add(
            "SamplerCustomAdvanced", noise=[noise, 0], guider=[guider, 0], sampler=[sampler, 0], sigmas=[sigmas, 0], latent_image=latent
        ), 0]

    def _finish(self, parts: dict[str, Link], samples: Link, image: Link) -> None:
        """One of several endings, so that what fails at an end is not always the sampler's."""
        ending = self.draw.choice(["save", "decode", "join", "measure", "size", "video"])
        if ending == "save":
            self.add("TestSave", file="fuzz.safetensors", latent=samples)
            return
        if ending == "size":
            size = self.add("VideoCrafterImageSize", model=parts["model"], image=image)
            samples = [self.add("EmptyVideoCrafterLatent", width=[size, 0], height=[size, 1], length=1, batch_size=1), 0]
            self.add("TestSave", file="fuzz.safetensors", latent=samples)
            return
        frames = [self.add("VideoCrafterDecode", samples=samples, vae=parts["vae"], frames_at_once=4), 0]
        if ending == "join":
            frames = [self.add("VideoCrafterJoinClips", images=frames, length=FRAMES, match=True), 0]
        elif ending == "measure":
            frames = [self.add("VideoCrafterPictureKept", images=frames, image=image, clip_vision=parts["clip_vision"]), 0]
        elif ending == "video":
            self.add("VideoCrafterSaveVideo", images=frames, filename_prefix="fuzz/clip", fps=8.0, crf=30.0)
            return
        self.add("TestSave", file="fuzz.safetensors", image=frames)

    # What doesn't

    def _input(self, widget: bool) -> tuple[dict[str, Any], str, list[Any]]:
        """An input of a node, our own rather than core's: the node's inputs, its name and what the server says of it."""
        while True:
            # The tests' own nodes are not to be trusted with strange values: they write files.
            node = self.draw.choice([each for each in self.prompt.values() if not each["class_type"].startswith("Test")])
            if "VideoCrafter" not in node["class_type"] and self.draw.random() < 0.7:
                continue
            found = [(name, spec) for name, spec in input_specs(self.info[node["class_type"]]) if is_widget(spec) is widget]
            if found:
                name, spec = self.draw.choice(found)
                return node["inputs"], name, spec

    def change_value(self) -> None:
        """Another value for a widget: a bound, beyond it, another choice, or anything at all."""
        inputs, name, spec = self._input(widget=True)
        kind, options = spec[0], options_of(spec)
        if name == "ckpt_name" and self.draw.random() < 0.7:
            inputs[name] = self.draw.choice([*MODELS, *NO_MODELS])
        elif self.draw.random() < 0.3:
            inputs[name] = deepcopy(self.draw.choice(STRANGE_VALUES))
        elif kind in ("INT", "FLOAT"):
            low, high = options.get("min", 0), options.get("max", 100)
            inside = [value for value in (low, high, (low + high) / 2) if value <= SLOW.get(name, value)]
            values = [*inside, low - 1, high + 1, self.draw.uniform(low, min(high, 64)), options.get("step", 1) * 3 + low]
            value = self.draw.choice(values)
            inputs[name] = int(value) if kind == "INT" else value
        elif kind == "BOOLEAN":
            inputs[name] = self.draw.choice([True, False, 2, "yes"])
        else:
            choices = kind if isinstance(kind, list) else options.get("options") or list(STRANGE_VALUES)
            inputs[name] = deepcopy(self.draw.choice([*choices, *STRANGE_VALUES[:3]]))

    def lead_elsewhere(self) -> None:
        """A link from another node: mostly one that gives the same type (another model's), else any."""
        inputs, name, spec = self._input(widget=False)
        outputs = [
            ([number, slot], kind)
            for number, node in self.prompt.items()
            for slot, kind in enumerate(self.info[node["class_type"]]["output"])
        ]
        same = [link for link, kind in outputs if kind == spec[0]]
        inputs[name] = list(self.draw.choice(same if same and self.draw.random() < 0.8 else [link for link, _ in outputs]))

    def take_strange(self) -> None:
        """A link from a node that hands over what no sensible one would."""
        for _ in range(20):
            inputs, name, spec = self._input(widget=False)
            if spec[0] in STRANGE_NODES:
                kind = STRANGE_NODES[spec[0]]
                choice = dict(input_specs(self.info[kind]))["what"]
                listed = choice[0] if isinstance(choice[0], list) else options_of(choice)["options"]
                inputs[name] = [self.add(kind, what=self.draw.choice(listed)), 0]
                return

    def leave_out(self) -> None:
        """An input less."""
        inputs, name, _ = self._input(widget=self.draw.random() < 0.5)
        inputs.pop(name, None)

    def make_endless(self) -> None:
        """A video larger than any memory."""
        sized = [node["inputs"] for node in self.prompt.values() if "length" in node["inputs"] and "width" in node["inputs"]]
        for inputs in sized:
            inputs.update({name: value for name, value in ENDLESS.items() if name in inputs})

    def change_class(self) -> None:
        """Another class for a node, which then has inputs that it doesn't know, and lacks some."""
        ours = [name for name in self.info if "VideoCrafter" in name]
        self.draw.choice(list(self.prompt.values()))["class_type"] = self.draw.choice([*ours, "KSampler", "VAEDecode"])
