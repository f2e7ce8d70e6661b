"""The training module: targets and weights against hand-made numbers, the averaged weights, and taking a run up again."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import vc_core
from examples.tiny_world import world as worlds
from examples.tiny_world.__main__ import main
from examples.tiny_world.clip import clear_unused_tokens, plane_positions, spread_target
from examples.tiny_world.denoiser import (
    LatentTable,
    init_from,
    init_identity,
    init_position_signal,
    init_time_signal,
    keyframe_latents,
    phase_of,
)
from examples.tiny_world.settings import DEFAULT, DiffusionTraining, Phase, load_settings
from examples.tiny_world.sight import cell_weights
from examples.tiny_world.vae import anchors, normalise, random_frames
from vc_core.config import ScheduleConfig, load_config
from vc_core.diffusion.schedule import Schedule
from vc_core.models.autoencoder import Autoencoder
from vc_core.models.conditioning import Conditioning
from vc_core.models.transformers import Pass
from vc_core.models.unet import UNet
from vc_core.training.layers import training_layers
from vc_core.training.loss import Batch, DiffusionLoss
from vc_core.training.settings import LossSettings, TrainerSettings
from vc_core.training.trainer import Average, Interrupted, Trainer, learning_rate


def schedule(alphas: list[float], scale: list[float]) -> Schedule:
    return Schedule(torch.tensor(alphas), torch.tensor(scale))


def constant(value: float) -> Tensor:
    return torch.full((1, 4, 2, 1, 1), value)


# --- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "scale", "noised", "target"),
    [  # a = 0.36, x_0 = 2, eps = 0.5: sqrt(a) = 0.6, sqrt(1 - a) = 0.8
        ("eps", 1.0, 0.6 * 2 + 0.8 * 0.5, 0.5),
        ("eps", 0.7, 0.6 * 1.4 + 0.8 * 0.5, 0.5),
        ("v", 1.0, 0.6 * 2 + 0.8 * 0.5, 0.6 * 0.5 - 0.8 * 2),
        ("v", 0.7, 0.6 * 1.4 + 0.8 * 0.5, 0.6 * 0.5 - 0.8 * 1.4),
    ],
)
def test_targets(prediction: str, scale: float, noised: float, target: float) -> None:
    loss = DiffusionLoss(schedule([0.36], [scale]), LossSettings(prediction=prediction))
    zero = torch.zeros(1, dtype=torch.long)
    torch.testing.assert_close(loss.noised(constant(2.0), zero, constant(0.5)), constant(noised))
    torch.testing.assert_close(loss.target(constant(2.0), zero, constant(0.5)), constant(target))


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_perfect_network_has_no_loss(prediction: str) -> None:
    """What the sampler would make of the target is x_0 again, so the target is the one the sampler means."""
    table = Schedule.from_config(ScheduleConfig(scale_end=0.7))
    loss = DiffusionLoss(table, LossSettings(prediction=prediction, prompt_dropout=0.0))
    clean = torch.randn(3, 4, 2, 2, 2)

    def network(x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        alpha, scale = table.alphas_cumprod[t].view(-1, 1, 1, 1, 1), table.scale[t].view(-1, 1, 1, 1, 1)
        noise = (x - alpha.sqrt() * scale * clean) / (1 - alpha).sqrt()
        return noise if prediction == "eps" else (alpha.sqrt() * x - scale * clean) / (1 - alpha).sqrt()

    batch = Batch(clean, Conditioning(torch.zeros(3, 1, 1)), Conditioning(torch.zeros(1, 1, 1)))
    value = loss(network, batch, torch.Generator().manual_seed(0))
    assert float(value) < 1e-6


def test_weights() -> None:
    zero = torch.zeros(1, dtype=torch.long)

    def weight(alpha: float, scale: float = 1.0, **settings: object) -> float:
        return float(DiffusionLoss(schedule([alpha], [scale]), LossSettings(**settings)).weight(zero))  # type: ignore[arg-type]

    assert weight(0.9) == 1.0
    # 0.9 / 0.1 = 9 of signal to noise; 0.5 / 0.5 = 1, which a scale of 0.5 makes 0.25.
    assert weight(0.9, weighting="min_snr", weight_limit=5.0) == pytest.approx(5 / 9)
    assert weight(0.9, weighting="min_snr", weight_limit=5.0, prediction="v") == pytest.approx(5 / 10)
    assert weight(0.5, weighting="min_snr", weight_limit=5.0) == pytest.approx(1.0)
    assert weight(0.5, scale=0.5, weighting="v", weight_limit=20.0) == pytest.approx(1.25 / 0.25)
    assert weight(0.5, scale=0.5, weighting="v", weight_limit=2.0) == pytest.approx(2.0)
    assert weight(0.5, scale=0.5, weighting="v", prediction="v") == 1.0


def test_fps_image_tokens_and_channels_reach_the_network() -> None:
    seen: list[Conditioning] = []

    def network(x: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        seen.append(conditioning)
        return x

    loss = DiffusionLoss(Schedule.from_config(ScheduleConfig()), LossSettings(prompt_dropout=1.0))
    fps, concat = torch.tensor([8.0, 24.0]), torch.full((2, 4, 3, 2, 2), 9.0)
    conditioning = Conditioning(torch.ones(2, 5, 6), torch.ones(2, 7, 6), fps=fps, concat=concat)
    batch = Batch(torch.zeros(2, 4, 3, 2, 2), conditioning, Conditioning(torch.zeros(1, 5, 6), torch.full((1, 7, 6), 3.0)))
    loss(network, batch, torch.Generator().manual_seed(0))
    assert seen[0].concat is concat and seen[0].fps is fps
    assert not seen[0].text.any() and bool((seen[0].image_tokens == 3).all())  # type: ignore[union-attr]


def test_prompt_dropout_drops_whole_prompts_at_its_rate() -> None:
    loss = DiffusionLoss(Schedule.from_config(ScheduleConfig()), LossSettings(prompt_dropout=0.25))
    batch = Batch(torch.zeros(4000, 4, 1, 1, 1), Conditioning(torch.ones(4000, 2, 3)), Conditioning(torch.zeros(1, 2, 3)))
    dropped = loss.dropped(batch, torch.Generator().manual_seed(0))
    rows = dropped.text.mean((1, 2))
    assert dropped.image_tokens is None and set(rows.tolist()) == {0.0, 1.0}
    assert 0.22 < float((rows == 0).float().mean()) < 0.28


def test_timesteps_are_spread() -> None:
    loss = DiffusionLoss(Schedule.from_config(ScheduleConfig()), LossSettings())
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        drawn = loss.draw_timesteps(10, generator).sort().values
        assert int(drawn[0]) >= 0 and int(drawn[-1]) < 1000
        assert int(drawn.diff().min()) >= 99 and int(drawn.diff().max()) <= 101
    many = loss.draw_timesteps(10000, generator, power=2.0).float()
    assert float((many < 500).float().mean()) == pytest.approx(0.25, abs=0.01)


def test_phases_follow_each_other() -> None:
    settings = DiffusionTraining(TrainerSettings(updates=10), phases=[Phase(until=0.2, frames=4), Phase(until=0.5, frames=8)])
    assert [phase_of(settings, update).frames for update in range(10)] == [4, 4, 8, 8, 8, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("settings", [{"prediction": "x0"}, {"weighting": "p2"}])
def test_unknown_settings_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings.values()))):
        DiffusionLoss(Schedule.from_config(ScheduleConfig()), LossSettings(**settings))  # type: ignore[arg-type]


def test_eps_needs_signal_at_the_end() -> None:
    with pytest.raises(ValueError, match="zero terminal SNR"):
        DiffusionLoss(schedule([0.9, 0.0], [1.0, 1.0]), LossSettings())
    DiffusionLoss(schedule([0.9, 0.0], [1.0, 1.0]), LossSettings(prediction="v"))


# --- the trainer ----------------------------------------------------------------------------------------------------


def trainer(path: Path, stop_at: int | None = None, **settings: object) -> Trainer:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))
    made: list[Trainer] = []

    def loss(generator: torch.Generator, update: int) -> tuple[Tensor, dict[str, float]]:
        if update == stop_at:
            made[0]._on_signal(15, None)
        x = torch.randn(4, 3, generator=generator)
        return ((module(x) - x.sum(1, keepdim=True)) ** 2).mean(), {}

    values = {"updates": 20, "warmup": 3, "ema": 0.9, "save_every": 7, "learning_rate": 0.01, **settings}
    made.append(Trainer(module, loss, TrainerSettings(**values), path, "test"))  # type: ignore[arg-type]
    return made[0]


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_run_taken_up_again_is_the_run_that_never_stopped(tmp_path: Path, pieces: int) -> None:
    whole = trainer(tmp_path / "whole.pt", pieces=pieces)
    whole.run()
    first = trainer(tmp_path / "parts.pt", stop_at=9, pieces=pieces)
    with pytest.raises(Interrupted, match="update 10"):
        first.run()
    second = trainer(tmp_path / "parts.pt", pieces=pieces)
    assert second.resume() and second.update == 10
    second.run()
    for got, expected in ((second.module, whole.module), (second.result, whole.result)):
        for name, value in expected.state_dict().items():
            assert torch.equal(got.state_dict()[name], value), name
    assert not trainer(tmp_path / "other.pt").resume()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.pt", "whole.pt"]  # nothing half written is left


def test_pieces_are_averaged(tmp_path: Path) -> None:
    """Two pieces of the same data are one of them."""
    one, two = trainer(tmp_path / "1.pt", clip_norm=100.0), trainer(tmp_path / "2.pt", pieces=2, clip_norm=100.0)
    two.generators[0].manual_seed(7), two.generators[1].manual_seed(7), one.generators[0].manual_seed(7)
    one.step(), two.step()
    for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_average_by_hand() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    average = Average(module, 0.5)
    for count, (value, expected) in enumerate([(1.0, 0.9), (3.0, 0.9 * 2 / 11 + 3 * 9 / 11)]):  # decays 1/10, 2/11
        nn.init.constant_(module.weight, value)
        average.update(module, count)
        assert float(average.module.weight) == pytest.approx(expected)
    nn.init.constant_(module.weight, 1.0)
    before = float(average.module.weight)
    average.update(module, 1000)
    assert float(average.module.weight) == pytest.approx((before + 1.0) / 2)


def test_learning_rate_warms_up_stays_and_falls() -> None:
    settings = TrainerSettings(updates=100, learning_rate=1.0, warmup=10, cooldown=0.2)
    assert learning_rate(settings, 0) == pytest.approx(0.1)
    assert learning_rate(settings, 9) == learning_rate(settings, 79) == 1.0
    assert learning_rate(settings, 90) == pytest.approx(0.5)
    assert learning_rate(settings, 99) == pytest.approx(0.05)


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    module = nn.Linear(1, 1)

    def loss(generator, update):
        return module(torch.full((1, 1), float("nan"))).mean(), {}

    run = Trainer(module, loss, TrainerSettings(), tmp_path / "s.pt", "unet")
    with pytest.raises(FloatingPointError, match="unet.*update 0"):
        run.run()


# --- the world, the latents, the start -------------------------------------------------------------------------------


def test_paths_stay_inside_and_keep_one_speed() -> None:
    world = worlds.World()
    clips = worlds.sample(world, 400, torch.Generator().manual_seed(0))
    assert int(clips.places.min()) >= world.margin and int(clips.places.max()) <= world.size - world.margin
    moved = (clips.places[:, -1] - clips.places[:, 0]).float()
    expected = 15 * world.speed / clips.fps
    assert bool((moved.abs().amax(1) - expected).abs().max() <= 1.0) and bool((moved.abs().amin(1) == 0).all())
    for name, (dx, dy) in worlds.DIRECTIONS.items():
        rows = clips.direction == list(worlds.DIRECTIONS).index(name)
        axis, sign = (0, dx) if dx else (1, dy)
        assert bool((moved[rows, axis] * sign > 0).all()), name


def pictured(motion: str, count: int = 300) -> tuple[worlds.World, worlds.Clips]:
    world = worlds.World(motions=(motion,))
    return world, worlds.sample(world, count, torch.Generator().manual_seed(3))


def test_onward_paths_start_anywhere_and_stop_at_the_edge() -> None:
    world, clips = pictured(worlds.ONWARDS, 600)
    start, moved = clips.places[:, 0], (clips.places[:, -1] - clips.places[:, 0]).float()
    for axis in (0, 1):
        assert int(start[:, axis].min()) == world.margin and int(start[:, axis].max()) == world.size - world.margin
    wish = worlds.steps_of(world, clips.direction, clips.fps) * 15
    at_edge = (clips.places[:, -1] == world.margin) | (clips.places[:, -1] == world.size - world.margin)
    assert bool((((moved - wish).abs() <= 1) | at_edge).all())
    assert bool((moved * wish >= 0).all())


def test_paths_between_two_places_are_even() -> None:
    _, clips = pictured(worlds.BETWEEN)
    way = (clips.places[:, -1] - clips.places[:, 0]).float()
    line = clips.places[:, :1] + way[:, None] * torch.linspace(0, 1, 16)[None, :, None]
    assert float((clips.places - line).abs().max()) <= 0.5 + 1e-5
    names = list(worlds.DIRECTIONS.values())
    said = torch.tensor([names[index] for index in clips.direction.tolist()], dtype=torch.float32)
    assert bool(((said * way).sum(1) == way.abs().amax(1)).all())  # the direction of the longer side


def test_round_paths_come_back() -> None:
    _, clips = pictured(worlds.ROUND)
    assert torch.equal(clips.places, clips.places.flip(1))
    assert float((clips.places[:, 7] - clips.places[:, 0]).abs().amax(1).float().mean()) > 3


def test_a_world_of_pictures_need_not_say_what_they_show() -> None:
    _, clips = pictured(worlds.ONWARDS)
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
    given, wider = UNet(load_config("tiny_t2v").unet).eval(), UNet(load_config("tiny_dynamicrafter").unet).eval()
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
    names = (list(worlds.COLOURS), list(worlds.SHAPES), list(worlds.DIRECTIONS))
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
        picture = worlds.render(world, colour[1:], shape[1:], places[1, 2:, 0], places[1, 2:, 1])
        expected = autoencoder.encode(picture)[0, :4] * 0.5
    torch.testing.assert_close(got[1, :, 2], expected, rtol=2e-3, atol=2e-3)


def test_normalise_changes_the_latents_and_not_the_pictures() -> None:
    torch.manual_seed(0)
    autoencoder, world = Autoencoder(load_config("tiny_t2v").autoencoder).eval(), worlds.World()
    pictures = random_frames(world, 16, torch.Generator().manual_seed(2))
    before = copy.deepcopy(autoencoder)
    normalise(autoencoder, world, 0.18215, torch.Generator().manual_seed(3))
    with torch.no_grad():
        old, new = before.encode(pictures), autoencoder.encode(pictures)
        torch.testing.assert_close(autoencoder.decode(new[:, :4]), before.decode(old[:, :4]), rtol=1e-3, atol=1e-4)
        many = autoencoder.encode(random_frames(world, 256, torch.Generator().manual_seed(4)))[:, :4] * 0.18215
    assert float(many.mean((0, 2, 3)).abs().max()) < 0.1
    assert float((many.std((0, 2, 3)) - 1).abs().max()) < 0.1


def test_anchors_are_mean_colour_and_deviation() -> None:
    picture = torch.zeros(1, 3, 8, 8)
    picture[0, 0, :, :4] = 1.0
    got = anchors(picture, 8).flatten()
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
    x = torch.randn(1, 64, 16, 4 * 4)
    with torch.no_grad():
        assert torch.equal(convolution(x), x)  # closed, as it is made
        init_time_signal(unet)
        added = (convolution(x) - x).mean((0, 3))  # [C, T]
    assert bool((added[:-2] == 0).all())
    plus, minus = added[-2], added[-1]
    assert bool((plus[:4] > 0.1).all()) and bool((plus[-4:] < -0.1).all()) and float(plus[4:12].abs().max()) < 1e-3
    torch.testing.assert_close(plus, -minus)


def test_rows_of_unused_tokens_are_cleared() -> None:
    clip = nn.Module()
    clip.token_embedding = nn.Embedding(6, 2)
    clear_unused_tokens(clip, torch.tensor([1, 4]))  # type: ignore[arg-type]
    assert clip.token_embedding.weight.abs().sum(1).gt(0).tolist() == [False, True, False, False, True, False]
    torch.testing.assert_close(spread_target(torch.tensor([[1.0, 1.0], [0.0, 1.0]])), torch.tensor([[0.5, 0.5], [0.0, 1.0]]))


def test_training_layers_compute_the_same() -> None:
    torch.manual_seed(0)
    config = load_config("tiny_t2v").unet
    usual, quick = UNet(config), UNet(config, training_layers())
    for parameter in usual.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    quick.load_state_dict(usual.state_dict())
    x, text = torch.randn(2, 4, 5, 8, 6), torch.randn(2, 77, config.context_dim)
    with torch.no_grad():
        a, b = (unet(x, torch.tensor([3, 900]), Conditioning(text, fps=torch.tensor([8.0, 24.0]))) for unet in (usual, quick))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


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
