"""The tiny world that the bundled models were trained on, how their networks start, and the command that trains them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import vc_core
from tiny_world import cameras
from tiny_world import world as worlds
from tiny_world.__main__ import main
from tiny_world.clip import clear_unused_tokens, plane_positions, spread_target
from tiny_world.denoiser import LatentTable, init_from, init_identity, init_position_signal, init_time_signal, keyframe_latents, phase_of
from tiny_world.settings import DEFAULT, DiffusionTraining, Phase, load_settings
from tiny_world.sight import cell_weights
from tiny_world.stages import STAGES, Run
from tiny_world.vae import anchors, normalise, random_frames
from tiny_world.world import World
from vc_core.config import load_config
from vc_core.control.cameras import camera_path
from vc_core.models.autoencoder import Autoencoder
from vc_core.models.conditioning import Conditioning
from vc_core.models.transformers import Pass
from vc_core.models.unet import UNet
from vc_core.training.settings import TrainerSettings
from vc_core.training.state import read_state


def test_phases_follow_each_other() -> None:
    settings = DiffusionTraining(TrainerSettings(updates=10), phases=[Phase(until=0.2, frames=4), Phase(until=0.5, frames=8)])
    assert [phase_of(settings, update).frames for update in range(10)] == [4, 4, 8, 8, 8, 0, 0, 0, 0, 0]
    settings.phases[1:] = [Phase(until=0.5, frames=8), Phase(frames=1), Phase(frames=2)]
    assert [phase_of(settings, update).frames for update in range(10)] == [4, 4, 8, 8, 8, 2, 1, 2, 1, 2]



def test_paths_stay_inside_and_keep_one_speed() -> None:
    world = worlds.World()
    clips = worlds.sample(world, 400, torch.Generator().manual_seed(0))
    assert int(clips.positions.min()) >= world.margin and int(clips.positions.max()) <= world.size - world.margin
    moved = (clips.positions[:, -1] - clips.positions[:, 0]).float()
    straight = (clips.said[:, 2] != worlds.UNSAID) & (clips.direction != worlds.STILL)
    expected = 15 * world.speed / clips.fps
    assert bool((moved.abs().amax(1) - expected)[straight].abs().max() <= 1.0) and bool((moved.abs().amin(1) == 0)[straight].all())
    for name, (dx, dy) in worlds.DIRECTIONS.items():
        rows = straight & (clips.direction == list(worlds.DIRECTIONS).index(name))
        axis, sign = (0, dx) if dx else (1, dy)
        assert bool((moved[rows, axis] * sign > 0).all()), name


def test_what_is_said_to_stand_still_does() -> None:
    for world in (worlds.World(), worlds.World(motions=(worlds.ONWARDS, worlds.BETWEEN, worlds.ROUND))):
        clips = worlds.sample(world, 400, torch.Generator().manual_seed(1))
        still = torch.tensor(["standing still" in prompt for prompt in clips.prompts])
        assert torch.equal(still, clips.direction == worlds.STILL) and torch.equal(still, clips.said[:, 2] == worlds.STILL)
        assert 0.03 < still.float().mean() < 0.2
        assert bool((clips.positions[still] == clips.positions[still][:, :1]).all())


def test_without_a_direction_paths_are_curves_anywhere() -> None:
    world = worlds.World(frames=9)
    clips = worlds.sample(world, 2000, torch.Generator().manual_seed(2))
    rows = clips.said[:, 2] == worlds.UNSAID
    points = clips.positions[rows].float()
    assert 0.1 < rows.float().mean() < 0.4
    assert points.amin() == world.margin and points.amax() == world.size - world.margin
    reach = 0.5 * world.speed * 8 / clips.fps[rows]
    assert bool(((points.amax(1) - points.amin(1)).amax(1) <= 2 * reach + 1).all())
    bend = points[:, 4] - (points[:, 0] + points[:, -1]) / 2
    assert float(bend.norm(dim=1).max()) > 3


def image_clips(motion: str, count: int = 300) -> tuple[worlds.World, worlds.Clips]:
    world = worlds.World(motions=(motion,))
    return world, worlds.sample(world, count, torch.Generator().manual_seed(3))


def test_onward_paths_start_anywhere_and_stop_at_the_edge() -> None:
    world, clips = image_clips(worlds.ONWARDS, 600)
    start, moved = clips.positions[:, 0], (clips.positions[:, -1] - clips.positions[:, 0]).float()
    for axis in (0, 1):
        assert int(start[:, axis].min()) == world.margin and int(start[:, axis].max()) == world.size - world.margin
    wish = worlds.steps_of(world, clips.direction, clips.fps) * 15
    at_edge = (clips.positions[:, -1] == world.margin) | (clips.positions[:, -1] == world.size - world.margin)
    assert bool((((moved - wish).abs() <= 1) | at_edge).all())
    assert bool((moved * wish >= 0).all())


def test_paths_between_two_places_are_even() -> None:
    _, clips = image_clips(worlds.BETWEEN)
    way = (clips.positions[:, -1] - clips.positions[:, 0]).float()
    line = clips.positions[:, :1] + way[:, None] * torch.linspace(0, 1, 16)[None, :, None]
    assert float((clips.positions - line).abs().max()) <= 0.5 + 1e-5
    names = [*worlds.DIRECTIONS.values(), (0, 0)]
    said = torch.tensor([names[index] for index in clips.direction.tolist()], dtype=torch.float32)
    assert bool(((said * way).sum(1) == way.abs().amax(1)).all())  # the direction of the longer side


def test_round_paths_come_back() -> None:
    _, clips = image_clips(worlds.ROUND)
    assert torch.equal(clips.positions, clips.positions.flip(1))
    assert float((clips.positions[:, 7] - clips.positions[:, 0]).abs().amax(1).float().mean()) > 3


def test_a_prompt_beside_an_image_need_not_name_what_it_shows() -> None:
    _, clips = image_clips(worlds.ONWARDS)
    assert bool((clips.said[:, 2] != worlds.UNSAID).all()) and bool((clips.said[:, 0] == worlds.UNSAID).any())
    assert set(clips.prompts) <= set(worlds.all_sentences(worlds.World(motions=(worlds.ONWARDS,))))


def test_keyframe_latents() -> None:
    latents = torch.arange(2 * 5, dtype=torch.float32).view(2, 1, 5, 1, 1)
    kept = keyframe_latents(latents, torch.tensor([worlds.MOTIONS.index(worlds.ONWARDS), worlds.MOTIONS.index(worlds.ROUND)]))
    assert kept.flatten(1).tolist() == [[0, 0, 0, 0, 0], [5, 0, 0, 0, 9]]


def test_cells_share_a_place() -> None:
    weights = cell_weights(torch.tensor([4, 8, 12, 60, 64]), 64)  # cells of 8 pixels, whose middles are at 4, 12, ..., 60
    assert weights[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0] and weights[1, :2].tolist() == [0.5, 0.5]
    assert weights[2, 1] == 1 and weights[3, 7] == 1 and weights[4, 7] == 1
    assert torch.allclose(weights.sum(1), torch.ones(5))


def test_positions_of_a_tower_tell_neighbours() -> None:
    positions = plane_positions(8, 64)
    assert positions.shape == (65, 64) and bool((positions[0] == 0).all())
    likeness = torch.nn.functional.normalize(positions[1:], dim=1) @ torch.nn.functional.normalize(positions[1:], dim=1).T
    near = [likeness[8 * 3 + 3, 8 * 3 + 3 + step] for step in (1, 8)]
    far = [likeness[8 * 3 + 3, 8 * 3 + 3 + step] for step in (4, 32)]
    assert min(near) > max(far)


def test_init_position_signal_tells_positions_whatever_is_seen() -> None:
    unet = UNet(load_config("tiny_i2v").unet).eval()
    init_position_signal(unet)
    block = unet.input_blocks[-1][0]
    x, embedding = torch.randn(3, 64, 4, 4), torch.randn(3, 256)
    # The convolutions over time start as nothing.
    slopes = (block(x, Pass(embedding, 1, torch.zeros(3, 1, 32))) - block.skip_connection(x))[:, -2:].detach()
    line = torch.tensor([-1.75, -0.5, 0.5, 1.75])
    assert torch.allclose(slopes[:, 0], line[:, None].expand(3, 4, 4), atol=0.02)
    assert torch.allclose(slopes[:, 1], line[None].expand(3, 4, 4), atol=0.02)


def test_taking_over_a_smaller_network() -> None:
    """New input channels have no effect at first; a network of other sizes is refused."""
    wide = load_config("tiny_dynamicrafter").unet
    given, wider = UNet(replace(load_config("tiny_t2v").unet, attention_resolutions=wide.attention_resolutions)).eval(), UNet(wide).eval()
    torch.nn.init.normal_(given.out[-1].weight)
    init_from(wider, given.state_dict())
    x, text, timestep = torch.randn(1, 4, 4, 8, 8), torch.randn(1, 77, 32), torch.tensor([500])
    ours = wider(x, timestep, Conditioning(text, concat=torch.randn_like(x)))
    assert torch.allclose(ours, given(x, timestep, Conditioning(text)), atol=1e-5)
    with pytest.raises(ValueError, match="time_embed.0.weight"):
        other = load_config({"unet": {"model_channels": 32, "head_channels": 32, "context_dim": 32}, "text_encoder": {"width": 32}})
        init_from(UNet(other.unet), given.state_dict())



def test_sentences_say_what_they_are_marked_to_say() -> None:
    clips = worlds.sample(worlds.World(), 300, torch.Generator().manual_seed(1))
    names = (list(worlds.COLOURS), list(worlds.SHAPES), [*worlds.DIRECTIONS, "still"])
    for prompt, said in zip(clips.prompts, clips.said.tolist(), strict=True):
        for index, choices in zip(said, names, strict=True):
            assert [name for name in choices if name in prompt] == ([] if index == worlds.UNSAID else [choices[index]])


def test_latent_table_gives_what_the_encoder_gives() -> None:
    torch.manual_seed(0)
    config = load_config("tiny_t2v").autoencoder
    autoencoder, world = Autoencoder(config).eval(), worlds.World()
    table = LatentTable(autoencoder, world, 0.5)
    colour, shape = torch.tensor([0, 5]), torch.tensor([2, 1])
    places = torch.tensor([[[11, 53], [12, 53], [11, 53]], [[30, 20], [30, 21], [30, 22]]])
    got = table(colour, shape, places)
    assert got.shape == (2, 4, 3, 8, 8) and int(table.known.sum()) == 5
    with torch.no_grad():
        image = worlds.render(world, colour[1:], shape[1:], places[1, 2:, 0], places[1, 2:, 1])
        expected = autoencoder.encode(image)[0, :4] * 0.5
    torch.testing.assert_close(got[1, :, 2], expected, rtol=2e-3, atol=2e-3)
    with torch.autocast("cpu", torch.bfloat16):  # of passes in half the precision
        assert torch.equal(LatentTable(autoencoder, world, 0.5)(colour, shape, places), got)


@pytest.mark.full
def test_normalise_changes_the_latents_and_not_the_images() -> None:
    torch.manual_seed(0)
    autoencoder, world = Autoencoder(load_config("tiny_t2v").autoencoder).eval(), worlds.World()
    images = random_frames(world, 16, torch.Generator().manual_seed(2))
    before = copy.deepcopy(autoencoder)
    normalise(autoencoder, world, 0.18215, torch.Generator().manual_seed(3))
    with torch.no_grad():
        old, new = before.encode(images), autoencoder.encode(images)
        torch.testing.assert_close(autoencoder.decode(new[:, :4]), before.decode(old[:, :4]), rtol=1e-3, atol=1e-4)
        many = autoencoder.encode(random_frames(world, 256, torch.Generator().manual_seed(4)))[:, :4] * 0.18215
    assert float(many.mean((0, 2, 3)).abs().max()) < 0.1
    assert float((many.std((0, 2, 3)) - 1).abs().max()) < 0.1


def test_anchors_are_mean_colour_and_deviation() -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[0, 0, :, :4] = 1.0
    got = anchors(image, 8).flatten()
    np.testing.assert_allclose(got.numpy(), [1.0, 0.0, 0.0, 2 * 0.5 / 3], atol=1e-6)


def test_the_noise_path_returns_the_input() -> None:
    torch.manual_seed(0)
    unet = UNet(load_config("tiny_t2v").unet)
    init_identity(unet)
    x = torch.randn(1, 4, 4, 8, 8)
    with torch.no_grad():
        got = unet(x, torch.tensor([900]), Conditioning(torch.randn(1, 77, 32), fps=torch.tensor([8.0])))
    assert float(((got - x) ** 2).mean()) < 0.02


def test_the_clock_tells_the_first_frames_from_the_last() -> None:
    torch.manual_seed(0)
    unet = UNet(load_config("tiny_t2v").unet)
    convolution = unet.middle_block[0].temopral_conv
    x = torch.randn(1, 64, 16, 4, 4)
    with torch.no_grad():
        assert torch.equal(convolution(x), x)  # closed, as it is made
        init_time_signal(unet)
        added = (convolution(x) - x).mean((0, 3, 4))  # [C, T]
    assert bool((added[:-2] == 0).all())
    plus, minus = added[-2], added[-1]
    assert bool((plus[:4] > 0.1).all()) and bool((plus[-4:] < -0.1).all()) and float(plus[4:12].abs().max()) < 1e-3
    torch.testing.assert_close(plus, -minus)


def test_where_a_camera_sees_the_shape() -> None:
    """Panning left moves the picture to the right; at half the distance the shape is twice as large, and twice as far from the middle."""
    world, start = World(), torch.tensor([[4.0, -2.0]])
    middle, radius = cameras.seen(camera_path("pan left", 16).poses[None], start, world)
    expected = 32 + 4 + cameras.FOCAL * 1.5 * torch.arange(16) / 16
    assert torch.allclose(middle[0, :, 0], expected) and (middle[0, :, 1] == 30).all() and (radius == 9).all()
    near = torch.eye(3, 4)[None, None].clone()
    near[..., 2, 3] = -cameras.DISTANCE / 2
    middle, radius = cameras.seen(near, start, world)
    assert middle.tolist() == [[[40, 28]]] and radius.tolist() == [[18]]


def test_clips_of_a_camera_stay_inside() -> None:
    world = World()
    clips = cameras.sample_cameras(world, 200, torch.Generator().manual_seed(0))
    assert ((clips.middle - clips.radius[..., None] > 0) & (clips.middle + clips.radius[..., None] < world.size)).float().mean() > 0.98
    assert cameras.render_cameras(clips, world).shape == (200, 16, 3, 64, 64)
    assert clips.prompts[0].startswith("a ") and len(clips.prompts[0].split()) == 3


def test_a_camera_module_starts_without_effect() -> None:
    """And it is trained with the layers over time, biases and norms."""
    torch.manual_seed(0)
    network = cameras.CameraDenoiser(load_config("tiny_camera")).eval()
    for parameter in network.unet.parameters():
        nn.init.normal_(parameter, std=0.1)
    given, poses = (torch.randn(1, 4, 4, 8, 8), torch.tensor([500])), camera_path("zoom in", 4).poses[None]
    text = Conditioning(torch.randn(1, 77, 32), fps=torch.tensor([8.0]))
    with torch.no_grad():
        torch.testing.assert_close(network(*given, text, poses), network.unet(*given, text))
    network.choose_trained()
    trained = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    kept = {name: each.ndim for name, each in network.unet.named_parameters() if not each.requires_grad}
    assert trained == {"unet", "adapter"} and any(".in_layers" in name for name in kept) and min(kept.values()) > 1
    assert not any("init_attn" in name or "temopral_conv" in name for name in kept)
    assert set(network.added()) == {f"model.diffusion_model.{path}.cc_projection.{kind}" for path in network.paths.values()
                                    for kind in ("weight", "bias")}


def test_rows_of_unused_tokens_are_cleared() -> None:
    clip = nn.Module()
    clip.token_embedding = nn.Embedding(6, 2)
    clear_unused_tokens(clip, torch.tensor([1, 4]))  # type: ignore[arg-type]
    assert clip.token_embedding.weight.abs().sum(1).gt(0).tolist() == [False, True, False, False, True, False]
    torch.testing.assert_close(spread_target(torch.tensor([[1.0, 1.0], [0.0, 1.0]])), torch.tensor([[0.5, 0.5], [0.0, 1.0]]))


def test_an_image_model_keeps_the_text_tower_it_starts_from(tmp_path: Path) -> None:
    settings = load_settings(DEFAULT.parent / "tiny_i2v.yaml")
    settings.clip.trainer.updates, settings.clip.images, settings.clip.trainer.batch = 1, 4, 4
    run = Run(settings, tmp_path)
    STAGES["clip"](run)
    text, started = read_state(tmp_path / "text_encoder.pt"), run.started("text_encoder")
    assert set(text) == set(started) and all(torch.equal(text[name], started[name]) for name in started)
    before = read_state(tmp_path / "image_encoder.pt")
    assert settings.embedding is not None
    settings.embedding.trainer.updates, settings.embedding.trainer.batch = 1, 4
    STAGES["embedding"](run)
    after = read_state(tmp_path / "image_encoder.pt")
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["proj"]


@pytest.mark.full
def test_the_command_makes_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All stages, with two updates each; the file loads as any other, and a second call has nothing left to do."""
    settings = OmegaConf.load(DEFAULT)
    for stage in ("clip", "autoencoder", "decoder", "diffusion"):
        settings[stage].trainer.update({"updates": 2, "batch": 2})
    OmegaConf.save(settings, tmp_path / "quick.yaml")
    monkeypatch.setattr("sys.argv", ["training", "--output", str(tmp_path / "run"), "--settings", str(tmp_path / "quick.yaml")])
    assert main() == 0
    path = tmp_path / "run" / "videocrafter_tiny_t2v.safetensors"
    assert str(path) in capsys.readouterr().out and path.stat().st_size < 16 * 2**20
    model = vc_core.load(path)
    assert model.config.name == "tiny_t2v"
    assert model.text_to_video("a red circle", steps=2, frames=3).shape == (1, 3, 3, 64, 64)
    assert main() == 0


def test_the_command_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["training", "--output", str(tmp_path), "--stage", "model"])
    assert main() == 1
    assert "unet.pt is missing" in capsys.readouterr().err


def test_settings_are_checked(tmp_path: Path) -> None:
    assert load_settings().model == "tiny_t2v"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("diffusion: {trainer: {updates: many}}")
    with pytest.raises(ValueError, match="diffusion.trainer.updates"):
        load_settings(wrong)
    with pytest.raises(ValueError, match="absent.yaml"):
        load_settings(tmp_path / "absent.yaml")
