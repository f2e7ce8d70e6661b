"""The training module: targets and weights against hand-made numbers, the averaged weights, and taking a run up again."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vc_core.config import ScheduleConfig, load_config
from vc_core.diffusion.schedule import Schedule
from vc_core.models.conditioning import Conditioning
from vc_core.models.unet import UNet
from vc_core.training.layers import training_layers
from vc_core.training.loss import Batch, DiffusionLoss
from vc_core.training.settings import LossSettings, TrainerSettings
from vc_core.training.state import read_state
from vc_core.training.trainer import Average, Interrupted, Pass, Trainer, learning_rate


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


def dropping(**settings: float) -> Conditioning:
    """What is left of rows with u = 0.0, 0.1, ... 0.9."""
    loss = DiffusionLoss(Schedule.from_config(ScheduleConfig()), LossSettings(**settings))  # type: ignore[arg-type]
    batch = Batch(
        torch.zeros(10, 4, 1, 1, 1), Conditioning(torch.ones(10, 2, 3), torch.ones(10, 2, 3)),
        Conditioning(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)),
    )
    return loss.dropped(batch, torch.arange(10) / 10 + 0.05)


def test_one_number_decides_whether_text_both_or_image_are_dropped() -> None:
    left = dropping(text_dropout=0.2, prompt_dropout=0.3, image_dropout=0.1)
    assert left.image_tokens is not None
    assert left.text.mean((1, 2)).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert left.image_tokens.mean((1, 2)).tolist() == [1, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    assert dropping(prompt_dropout=0.0).text.all() and not dropping(prompt_dropout=1.0).text.any()


def test_timesteps_are_spread() -> None:
    loss = DiffusionLoss(Schedule.from_config(ScheduleConfig()), LossSettings(spread_timesteps=True))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        drawn = loss.draw_timesteps(10, generator).sort().values
        assert int(drawn[0]) >= 0 and int(drawn[-1]) < 1000
        assert int(drawn.diff().min()) >= 99 and int(drawn.diff().max()) <= 101
    many = loss.draw_timesteps(10000, generator, power=2.0).float()
    assert float((many < 500).float().mean()) == pytest.approx(0.25, abs=0.01)


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

    def loss(network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        if run.update == stop_at:
            made[0]._on_signal(15, None)
        x = torch.randn(4, 3, generator=run.generator)
        return ((network(x) - x.sum(1, keepdim=True)) ** 2).mean(), {}

    values = {"updates": 20, "warmup": 3, "ema": 0.9, "save_every": 7, "learning_rate": 0.01, **settings}
    made.append(Trainer(module, loss, TrainerSettings(**values), path, "test"))  # type: ignore[arg-type]
    return made[0]


@pytest.mark.parametrize("passes", [1, 2])
def test_a_run_taken_up_again_is_the_run_that_never_stopped(tmp_path: Path, passes: int) -> None:
    whole = trainer(tmp_path / "whole.pt", accumulate=passes)
    whole.run()
    first = trainer(tmp_path / "parts.pt", stop_at=9, accumulate=passes)
    with pytest.raises(Interrupted, match="update 10"):
        first.run()
    second = trainer(tmp_path / "parts.pt", accumulate=passes)
    assert second.resume() and second.update == 10
    second.run()
    for got, expected in ((second.module, whole.module), (second.result, whole.result)):
        for name, value in expected.state_dict().items():
            assert torch.equal(got.state_dict()[name], value), name
    assert not trainer(tmp_path / "other.pt").resume()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.pt", "whole.pt"]  # nothing half written is left


def test_passes_are_averaged(tmp_path: Path) -> None:
    """The gradient of an update is the mean of its passes', whose numbers go on from update to update."""
    torch.manual_seed(1)
    module, seen = nn.Linear(1, 1, bias=False), []

    def loss(network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        seen.append((run.update, run.number))
        return (network(torch.full((1, 1), float(run.number))) ** 2).mean(), {}

    settings = TrainerSettings(updates=2, accumulate=2, clip_norm=1e6)
    run = Trainer(module, loss, settings, tmp_path / "s.pt")
    weight = float(module.weight)
    figures = run.step()
    assert figures["loss"] == pytest.approx(weight**2 / 2) and figures["norm"] == pytest.approx(abs(weight))  # means of 0, w^2 and of 0, 2w
    run.step()
    assert seen == [(0, 0), (0, 1), (1, 2), (1, 3)]


def test_what_is_frozen_is_neither_trained_nor_saved(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    module[0].requires_grad_(False)
    before = copy.deepcopy(module[0].state_dict())

    def loss(network: nn.Module, run: Pass) -> tuple[Tensor, dict[str, float]]:
        return network(torch.ones(1, 1)).mean(), {}

    run = Trainer(module, loss, TrainerSettings(updates=2), tmp_path / "s.pt")
    run.run()
    assert all(torch.equal(value, before[name]) for name, value in module[0].state_dict().items())
    assert set(read_state(tmp_path / "s.pt")["module"]) == {"1.weight", "1.bias"}


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

    def loss(network, run):
        return network(torch.full((1, 1), float("nan"))).mean(), {}

    run = Trainer(module, loss, TrainerSettings(), tmp_path / "s.pt", "unet")
    with pytest.raises(FloatingPointError, match="unet.*update 0"):
        run.run()


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
