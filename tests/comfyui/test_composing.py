"""Conditions alone and in pairs, in a real ComfyUI: what the UNet is given of each; structure for some frames; motion; editing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
from PIL import Image
from torch import Tensor

import vc_core
from harness import goldens
from harness.bench import DEPTH, DYNAMICRAFTER, I2V, NOTHING, SCALE, SHIP, T2V, Bench, apart, same
from harness.comfyui import REPOSITORY
from harness.graph import BYPASSED, set_input, to_prompt
from harness.graphs import assert_fails, out
from harness.works_with.length import windowed
from tests.comfyui.composed import (
    adapter,
    controlled,
    controlnet,
    image,
    image_tower,
    shown,
    style_adapter,
    styled,
    texture,
    tower,
    with_depth,
)
from tests.comfyui.recorded import NEGATIVE, POSITIVE, Pass, Residuals, passes
from vc_core.adapters.style import Style
from vc_core.adapters.table import load_adapter
from vc_core.diffusion.noise import SeededNoise
from vc_core.diffusion.samplers import noised
from vc_core.diffusion.warped_noise import WarpedNoise
from vc_core.media.depth import depth_of_frames, prepare_depth
from vc_core.media.flow import dis_flow
from vc_core.media.images import fit_image
from vc_core.models.conditioning import Conditioning
from vc_core.models.hooks import HookFactory, combine
from vc_core.pipeline import VideoModel
from vc_core.style import style_features

FRAMES, SEED, STRENGTH, DENOISE, STEPS = 4, 7, 0.6, 0.6, 2
#: By what an assertion that something changes must see it change, in standard deviations.
CHANGED = 0.01
#: Strength of a ControlNet with drawn weights, at which what else is given still shows in the UNet's output.
WEAK = 0.05
CONDITIONS = ("text", "image", "structure", "depth", "style", "motion", "clip")
#: No model takes both, see :func:`test_an_image_and_depth_are_refused`.
NEVER = ("image", "depth")
CASES = [(each,) for each in CONDITIONS] + [pair for pair in combinations(CONDITIONS, 2) if pair != NEVER]


def model_of(case: tuple[str, ...]) -> str:
    return DYNAMICRAFTER if "image" in case else DEPTH if "depth" in case else T2V


@dataclass
class Composed:
    """A graph with some of the conditions, and what the core says that its UNet is given."""

    case: tuple[str, ...]
    bench: Bench

    def run(self) -> Pass:
        """The first of the UNet's passes."""
        bench, inputs = self.bench, {}
        if "text" not in self.case:
            bench.prompt[bench.text[0]]["inputs"]["text"] = NOTHING
        if "structure" in self.case:
            controlled(bench, controlnet(bench), texture(FRAMES, seed=2), WEAK)
        if "depth" in self.case:
            with_depth(bench, texture(FRAMES, seed=6))
        if "style" in self.case:
            styled(bench)
        if "motion" in self.case:
            noise = bench.add("VideoCrafterWarpedNoise", images=image(bench, texture(FRAMES)), noise_seed=SEED, strength=STRENGTH)
            inputs["noise"] = out(noise)
        if "clip" in self.case:
            inputs["latent_image"] = out(bench.add("VAEEncode", pixels=image(bench, texture(FRAMES, seed=3)), vae=bench.vae))
            inputs["denoise"] = DENOISE
        file = "composed " + " ".join(self.case)
        model = out(bench.add("TestRecord", model=bench.model, file=file))
        bench.save("made", latent=bench.authors(model=model, seed=SEED, steps=STEPS, cfg=3.0, **inputs))
        assert bench.results()["made"].isfinite().all()
        return passes(bench.comfyui, file)[0]

    def latents(self, model: VideoModel) -> tuple[Tensor, Tensor]:
        """The noisy latents of the first pass, and those without motion and clip, ``[1, 4, T, h, w]``."""
        plain = SeededNoise((1, 4, FRAMES, 8, 8), SEED)
        start = plain.start
        if "motion" in self.case:
            start = WarpedNoise(plain, dis_flow(shown(texture(FRAMES))), STRENGTH).start
        if "clip" in self.case:
            clip = model.encode(texture(FRAMES, seed=3).movedim(0, 1)[None])
            visited = model.schedule.visited(STEPS, model.config.sampling.spacing, DENOISE)
            start = noised(clip, start, model.schedule, int(visited[-1]))
        return start, plain.start

    def conditionings(self, model: VideoModel) -> tuple[Conditioning, Conditioning]:
        """The positive and the negative one."""
        prompt = self.bench.prompts[0] if "text" in self.case else NOTHING
        if "image" in self.case:
            return model.image_conditioning(self.bench.image, None, prompt, NOTHING, (FRAMES, 64, 64))
        concat = None
        if "depth" in self.case:
            concat = prepare_depth(depth_of_frames(texture(FRAMES, seed=6).movedim(0, 1)[None]), 8, 8)
        return tuple(Conditioning(model.encode_text([each]), concat=concat) for each in (prompt, NOTHING))

    def style(self, model: VideoModel) -> HookFactory:
        """The core's style of the image."""
        adapter = load_adapter(style_adapter(self.bench), model.config)
        return Style(adapter, style_features(tower(), shown(texture(1, 40, 60, seed=5))))


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=" and ".join(case), marks=[] if len(case) == 1 else pytest.mark.full) for case in CASES]
)
def test_alone_and_in_pairs(comfyui, case):
    """Each condition reaches the UNet as the core has it, whatever else does, and nothing else is there."""
    composed = Composed(case, Bench(comfyui, model_of(case), frames=FRAMES))
    seen, model = composed.run(), vc_core.load(composed.bench.path)
    start, plain = composed.latents(model)
    conditionings = composed.conditionings(model)
    for role, expected in zip((POSITIVE, NEGATIVE), conditionings, strict=True):
        x, text = seen.of(role, "x"), seen.of(role, "context")
        same(x[:, :4], start[0].movedim(1, 0))
        same(text, expected.text.expand_as(text))
        if expected.concat is not None:  # an image or depth maps
            same(x[:, 4:], expected.concat[0].movedim(1, 0))
        if "image" in case:
            tokens = seen.of(role, "image_tokens")
            same(tokens, expected.image_tokens.expand_as(tokens))
    assert ("image_tokens" in seen.tensors) == ("image" in case)
    assert (seen.tensors["x"].shape[1] > 4) == bool(set(NEVER) & set(case))
    assert (apart(start, plain) > CHANGED) == bool({"motion", "clip"} & set(case))
    assert (apart(conditionings[0].text, conditionings[1].text) > CHANGED) == ("text" in case)
    # The ControlNet's features and the style's streams are all that is added to the core's UNet.
    assert seen.controlled == ("structure" in case)
    added = {"structure": Residuals(seen)} | ({"style": composed.style(model)(seen.inputs)} if "style" in case else {})
    same(seen.tensors["out"], seen.by_hand(model.unet, combine(list(added.values()))))
    for name in ("structure", "style"):
        without = seen.by_hand(model.unet, combine([hooks for other, hooks in added.items() if other != name]))
        assert (apart(without, seen.tensors["out"]) > CHANGED) == (name in case)
    if "style" in case:
        unstyled = seen.by_hand(model.unet, Residuals(seen))
        same(unstyled.chunk(2)[seen.conditionings.index(NEGATIVE)], seen.of(NEGATIVE))


def test_an_image_and_depth_are_refused(comfyui):
    """By either model, before sampling: the model's form has room for one of them."""
    bench = Bench(comfyui, DYNAMICRAFTER, frames=FRAMES)
    with_depth(bench, texture(FRAMES, seed=6))
    bench.save("made", latent=bench.authors())
    assert_fails(comfyui, bench, "VideoCrafterSampler", "takes no depth maps", "a depth ControlNet")
    bench = Bench(comfyui, DEPTH, frames=FRAMES)
    with_depth(bench, texture(FRAMES, seed=6))
    both = bench.add(
        "VideoCrafterImageToVideo", positive=bench.positive, negative=bench.negative, clip_vision=image_tower(bench), fps=8.0, strength=1.0,
        image=image(bench, texture(1)),
    )
    bench.positive, bench.negative = out(both, 0), out(both, 1)
    bench.save("made", latent=bench.authors())
    assert_fails(comfyui, bench, "VideoCrafterSampler", "takes no image")


def test_the_workflow_with_all_of_its_conditions(comfyui, object_info):
    """``compose`` with its bypassed groups on and its depth bypassed, as its notes say, on small files with recorded and drawn weights."""
    bench, picture = Bench(comfyui, I2V), texture(1, seed=5).mul(127.5).add(127.5).round().byte()
    Image.fromarray(picture[0].permute(1, 2, 0).numpy()).save(comfyui.base / "input" / "composed.png")
    workflow = json.loads((REPOSITORY / "workflows" / "compose.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        node["mode"] = BYPASSED if node["type"] == "VideoCrafterDepthToVideo" else 0
    prompt = to_prompt(workflow, object_info)
    nodes = {node["class_type"]: name for name, node in prompt.items()}
    for title in ("Your image", "Your style image"):
        set_input(prompt, "image", "composed.png", title=title)
    set_input(prompt, "ckpt_name", bench.path.name, class_type="VideoCrafterLoader")
    set_input(prompt, "adapter_name", style_adapter(bench).name)
    set_input(prompt, "steps", 1)
    set_input(prompt, "strength", WEAK, class_type="ControlNetApplyAdvanced")
    # In place of files in the published sizes: a ControlNet with drawn weights, and DynamiCrafter's tower.
    given = {"model": [nodes["VideoCrafterLoader"], 0], "seed": 1, "changed": json.dumps({"in_channels": 4})}
    prompt[nodes["ControlNetLoader"]] = {"class_type": "TestControlNet", "inputs": given}
    bench.checkpoint(DYNAMICRAFTER, goldens.weights(DYNAMICRAFTER))
    loaded = {"ckpt_name": f"{DYNAMICRAFTER}.safetensors", "weight_dtype": "default"}
    prompt[nodes["CLIPVisionLoader"]] = {"class_type": "VideoCrafterLoader", "inputs": loaded}
    prompt[nodes["VideoCrafterStyle"]]["inputs"]["clip_vision"] = [nodes["CLIPVisionLoader"], 3]
    recorded = {"model": [nodes["VideoCrafterStyle"], 0], "file": "composed workflow"}
    prompt["record"] = {"class_type": "TestRecord", "inputs": recorded}
    prompt[nodes["VideoCrafterSampler"]]["inputs"]["model"] = ["record", 0]
    comfyui.run(prompt)

    seen, model, frame = passes(comfyui, "composed workflow", 16)[0], vc_core.load(bench.path), picture / 127.5 - 1
    for role, expected in enumerate(model.image_conditioning(frame, None, "a blue circle", NOTHING, (16, 64, 64))):
        for name, tokens in (("context", expected.text), ("image_tokens", expected.image_tokens)):
            found = seen.of(role, name)
            same(found, tokens.expand_as(found))
    style = Style(load_adapter(style_adapter(bench), model.config), style_features(tower(), frame))(seen.inputs)
    same(seen.tensors["out"], seen.by_hand(model.unet, combine([Residuals(seen), style])))
    for one in (Residuals(seen), style):  # neither is all of it
        assert apart(seen.by_hand(model.unet, one), seen.tensors["out"]) > CHANGED


class TestStructureOfSomeFrames:
    GIVEN, TOTAL = (0, 28, 56), 57

    def test_by_another_pack_s_weights_in_windows(self, comfyui):
        """A control at 3 of 57 frames, in windows of 16: each window has those that lie in it, with their weights by frame and layer."""
        bench = Bench(comfyui, T2V, frames=self.TOTAL)
        hints, weights, factor = texture(3, seed=4), {0: 1.0, 28: 0.5, 56: 0.25}, 0.5
        for kind in ("plain", "weighted"):
            control = adapter(bench)
            if kind == "weighted":
                given, by_frame = json.dumps(self.GIVEN), json.dumps(weights)
                control = bench.add("TestWeightedControl", control=out(control), frames=given, weights=by_frame, layers=factor)
            positive, negative, latent = bench.positive, bench.negative, bench.latent
            controlled(bench, control, hints)
            model = out(bench.add("TestRecord", model=bench.model if kind == "plain" else windowed(bench, 16, 4), file=f"some {kind}"))
            if kind == "plain":
                latent = out(bench.add("EmptyVideoCrafterLatent", width=64, height=64, length=3, batch_size=1))
            bench.save(kind, latent=bench.one_step(model=model, latent_image=latent))
            bench.positive, bench.negative = positive, negative
        bench.results()
        full = passes(comfyui, "some plain", 3)[0].residuals("input")
        windows = passes(comfyui, "some weighted", 16)
        starts = [0, 12, 24, 36, 41]
        assert len(windows) == len(starts)
        for window, start in zip(windows, starts, strict=True):
            for layer, (residual, whole) in enumerate(zip(window.residuals("input"), full, strict=True)):
                if whole is None:
                    assert residual is None
                    continue
                expected = torch.zeros(16, *whole.shape[1:])
                for number, frame in enumerate(self.GIVEN):
                    if start <= frame < start + 16:
                        expected[frame - start] = whole[number] * weights[frame] * factor**layer
                assert torch.allclose(residual, expected, atol=1e-5)

    def test_two_at_once_with_their_own_weights(self, comfyui):
        bench = Bench(comfyui, T2V, frames=FRAMES)
        settings = {"one": ({0: 0.2, 3: 0.9}, 1.0), "two": ({1: 0.5}, 0.5)}
        plain = bench.positive, bench.negative
        for number, (name, (weights, factor)) in enumerate(settings.items(), 1):
            bench.positive, bench.negative = plain
            control = bench.add(
                "TestWeightedControl", control=out(adapter(bench, number)), frames="[0, 1, 2, 3]", weights=json.dumps(weights),
                layers=factor,
            )
            controlled(bench, control, texture(FRAMES, seed=number))
            alone = bench.add("TestRecord", model=bench.model, file=f"at once {name}")
            bench.save(name, latent=bench.one_step(model=out(alone)))
            if name == "two":
                first = bench.add(
                    "TestWeightedControl", control=out(adapter(bench, 1)), frames="[0, 1, 2, 3]", weights=json.dumps(settings["one"][0]),
                    layers=1.0,
                )
                controlled(bench, first, texture(FRAMES, seed=1))
                bench.save("both", latent=bench.one_step(model=out(bench.add("TestRecord", model=bench.model, file="at once both"))))
        bench.results()
        one, two, both = (passes(comfyui, f"at once {name}")[0].residuals("input")[-2] for name in ("one", "two", "both"))
        assert torch.allclose(both, one + two, atol=1e-5) and (one - two).abs().max() > 0.1

    def test_by_core_s_masks(self, comfyui):
        """Without other packs: a conditioning with the control for some frames, and one without it for the others."""
        bench = Bench(comfyui, T2V, frames=FRAMES)
        given = torch.tensor([1.0, 0.0, 0.0, 1.0])
        plain = bench.positive
        controlled(bench, controlnet(bench), texture(FRAMES, seed=2))
        bench.save("with", latent=bench.one_step())
        bench.save("without", latent=bench.one_step(positive=plain))
        parts = []
        for conditioning, on in ((bench.positive, given), (plain, 1 - given)):
            frames = image(bench, (on * 2 - 1).reshape(-1, 1, 1, 1).expand(-1, 3, 64, 64))
            mask = out(bench.add("ImageToMask", image=frames, channel="red"))
            parts.append(out(bench.add(
                "ConditioningSetMask", conditioning=conditioning, mask=mask, strength=1.0, set_cond_area="default"
            )))
        both = out(bench.add("ConditioningCombine", conditioning_1=parts[0], conditioning_2=parts[1]))
        bench.save("some", latent=bench.one_step(positive=both))
        results = bench.results()
        same(results["some"][[0, 3]], results["with"][[0, 3]])
        same(results["some"][[1, 2]], results["without"][[1, 2]])
        assert apart(results["with"], results["without"]) > CHANGED

    @pytest.mark.parametrize("width, height", [(455, 256), (120, 68)])
    def test_hints_of_another_size_cover_the_video(self, comfyui, width, height):
        """Scaled to cover 512x320 and cut at the centre, also where they are smaller than the video's latent."""
        bench = Bench(comfyui, T2V, frames=1)
        bench.latent = out(bench.add("EmptyVideoCrafterLatent", width=512, height=320, length=1, batch_size=1))
        bench.positive = bench.negative = bench.with_fps(bench.text, bench.latent)
        hints = texture(1, height // 4 * 4 + 4, width // 4 * 4 + 4)[:, :, :height, :width]
        kept_width = round(height * 512 / 320)  # 410 of 455, 109 of 120
        left = round((width - kept_width) / 2)
        seen = {}
        for name, frames in (("whole", hints), ("cut", hints[..., left : left + kept_width])):
            positive = bench.positive
            controlled(bench, adapter(bench), frames)
            file = f"hint {name} {width}"
            bench.save(name, latent=bench.one_step(model=out(bench.add("TestRecord", model=bench.model, file=file))))
            bench.positive = bench.negative = positive
            seen[name] = file
        bench.results()
        whole, cut = (passes(comfyui, file, 1)[0].residuals("input")[-2] for file in seen.values())
        # Cut by hand, the same pixels are taken but for one column of rounding.
        assert torch.corrcoef(torch.stack([whole.flatten(), cut.flatten()]))[0, 1] > 0.97


class TestMotion:
    def test_a_clip_of_another_size_is_fitted(self, comfyui):
        """The noise of a batch of two, of a clip that is wider than the video."""
        bench = Bench(comfyui, T2V, frames=FRAMES, videos=2)
        clip = texture(FRAMES, 80, 200)
        noise = out(bench.add("VideoCrafterWarpedNoise", images=image(bench, clip), noise_seed=SEED, strength=1.0))
        bench.model = out(bench.add("TestRecord", model=bench.model, file="fitted motion"))
        bench.save("made", latent=bench.authors(noise=noise))
        bench.results()
        plain = SeededNoise((2, 4, FRAMES, 8, 8), SEED)
        expected = WarpedNoise(plain, dis_flow(fit_image(shown(clip), 64, 64)), 1.0).start
        same(passes(comfyui, "fitted motion")[0].tensors["x"], expected.movedim(2, 1).flatten(0, 1))
        assert apart(expected, plain.start) > CHANGED

    def test_without_strength_it_is_the_seed_s(self, comfyui):
        bench = Bench(comfyui, T2V, frames=FRAMES)
        noise = out(bench.add("VideoCrafterWarpedNoise", images=image(bench, texture(FRAMES)), noise_seed=SEED, strength=0.0))
        bench.save("given", latent=bench.authors(noise=noise, seed=SEED))
        bench.save("own", latent=bench.authors(seed=SEED))
        results = bench.results()
        same(results["given"], results["own"])

    def test_core_s_optical_flow_model(self, comfyui):
        """Core's loader with a RAFT of random weights: its flow, as torchvision gives it."""
        if "OpticalFlowLoader" not in comfyui.object_info():
            pytest.skip("this ComfyUI has no Load Optical Flow Model")
        raft = pytest.importorskip("torchvision.models.optical_flow").raft_large
        torch.manual_seed(0)
        network = raft(weights=None, progress=False).eval()
        folder = comfyui.base / "models" / "optical_flow"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), folder / "raft.pth")
        bench = Bench(comfyui, T2V, frames=2)
        clip = texture(2, 128, 128)
        model = out(bench.add("OpticalFlowLoader", model_name="raft.pth"))
        noise = out(bench.add("VideoCrafterWarpedNoise", images=image(bench, clip), noise_seed=SEED, strength=1.0, optical_flow=model))
        latent = out(bench.add("EmptyVideoCrafterLatent", width=128, height=128, length=2, batch_size=1))
        bench.model = out(bench.add("TestRecord", model=bench.model, file="raft"))
        bench.save("made", latent=bench.authors(noise=noise, latent_image=latent))
        bench.results()
        with torch.inference_mode():
            flow = network(clip[1:], clip[:1])[-1]
        expected = WarpedNoise(SeededNoise((1, 4, 2, 16, 16), SEED), flow, 1.0).start
        seen = passes(comfyui, "raft", 2)[0].tensors["x"]
        assert apart(seen, expected[0].movedim(1, 0)) < 0.1  # rounding of the flow moves some of the 32,768 fine pixels
        assert flow.abs().mean() > 0.5 and apart(expected, SeededNoise((1, 4, 2, 16, 16), SEED).start) > 0.5

    def test_another_number_of_frames_is_refused(self, comfyui):
        bench = Bench(comfyui, T2V, frames=FRAMES)
        noise = out(bench.add("VideoCrafterWarpedNoise", images=image(bench, texture(3)), noise_seed=0, strength=1.0))
        bench.save("x", latent=bench.authors(noise=noise))
        assert_fails(comfyui, bench, "VideoCrafterSampler", "clip has 3 frames, but the video has 4", "to the same number")


def test_another_prompt_alone_changes_the_clip(comfyui):
    """Below a denoise of 1 the prompt still decides."""
    bench = Bench(comfyui, T2V, frames=FRAMES)
    clip = out(bench.add("VAEEncode", pixels=image(bench, texture(FRAMES)), vae=bench.vae))
    encoded = {"latent_image": clip, "denoise": DENOISE, "cfg": 3.0}
    bench.save("one", latent=bench.authors(**encoded))
    bench.save("other", latent=bench.authors(positive=bench.with_fps(bench.encode(SHIP), bench.latent), **encoded))
    bench.save("clip", latent=clip)
    results = bench.results()
    assert SCALE * results["clip"].std() > 0 and apart(results["one"], results["other"]) > CHANGED
