"""Nothing in a step makes the host wait for the GPU, and no operation depends on the numbers in a tensor.

Without a GPU the steps run on tensors of a GPU that has no numbers, see :mod:`harness.waiting`.
"""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.parts import Clip, conditioning, guided
from harness.waiting import NoWaiting, Waits
from tests.networks import UNETS
from vc_core.choices import choose
from vc_core.config import ModelConfig, load_config
from vc_core.diffusion import samplers
from vc_core.diffusion.denoiser import GuidedDenoiser
from vc_core.diffusion.guidance import Guidance
from vc_core.diffusion.samplers import Tables, clean_and_noise, ddim
from vc_core.diffusion.schedule import Schedule
from vc_core.models.layers import LayerFactory
from vc_core.models.unet import UNet

CLIP = Clip(3, 64, 48, 2)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def configuration(kind: str, name: str = "t2v_512_v2") -> ModelConfig:
    """A published configuration with a UNet of tiny widths."""
    config = load_config(name)
    config.unet = UNETS[kind]
    return config


def a_step(config: ModelConfig, guidance: Guidance, together: bool) -> NoWaiting:
    """A step of sampling; noise and inputs are on the device before."""
    unet = UNet(config.unet, LayerFactory(device="cuda", dtype=torch.float16)).requires_grad_(False).eval()
    both = [conditioning(config, CLIP, "cuda", torch.float16) for _ in range(2)]
    denoise = GuidedDenoiser(unet, *both, guidance, torch.float16, together=together)
    schedule = Schedule.from_config(config.schedule)
    tables = Tables.make(schedule, schedule.spaced(1, "uniform"), eta=1.0)
    timesteps = tables.timesteps.to("cuda")
    x, noise = torch.randn(2, *CLIP.latent(config), device="cuda").unbind()

    def predict(x: torch.Tensor, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return clean_and_noise(x, denoise(x, timesteps[index].expand(len(x))), tables, index)

    with NoWaiting() as seen:
        out = samplers.sample(predict, x, 1, ddim(tables), iter([noise]))
    assert out.shape == x.shape and out.device == x.device
    return seen


@pytest.mark.parametrize(
    "kind, guidance, together",
    [
        ("text", Guidance(7.5, rescale=0.7), True),
        ("relative positions", Guidance(7.5), False),
        ("image", Guidance(7.5, image_scale=2.0), False),
        ("image for each frame", Guidance(7.5, temporal_scale=1.0), True),
    ],
)
def test_a_step_does_not_wait(kind, guidance, together):
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert sum(a_step(configuration(kind), guidance, together).seen.values()) > 100


def test_noise_comes_from_pinned_memory(monkeypatch):
    """It is drawn on the CPU, for the same numbers everywhere, and copied while the GPU works."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # which needs a driver
    with FakeTensorMode(), torch.no_grad(), NoWaiting() as seen:
        assert samplers._to_device(torch.empty(3), torch.empty(3, device="cuda")).is_cuda
        with pytest.raises(Waits):
            torch.empty(3).to("cuda")
    assert seen.seen["aten._to_copy.default"] == 2


def boolean_mask(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0]


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x.sum().item(), lambda x: bool((x > 0).all()), lambda x: x.cpu(), lambda x: x.nonzero(), boolean_mask,
        lambda x: x.tolist(), lambda x: torch.equal(x, x), lambda x: x + torch.arange(3).to(x.device), lambda x: int(x.max()),
    ],
)  # fmt: skip
def test_waiting_is_found(waiting):
    with FakeTensorMode(), torch.no_grad(), NoWaiting(), pytest.raises(Waits):
        waiting(torch.empty(3, device="cuda"))


def test_a_gpu_s_default_layout_is_channels_last():
    """All the way from the first layers to the last ones, except where torch's norms return another."""
    layouts = []
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        unet = UNet(UNETS["text"], LayerFactory(device="cuda")).requires_grad_(False).eval()
        for block in unet.input_blocks:
            block[0].register_forward_hook(
                lambda layer, given, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
            )
        given = conditioning(configuration("text"), CLIP, "cuda", torch.float32)
        for chosen in (None, False):
            with choose(channels_last=chosen):
                unet(torch.empty(1, 4, 3, 8, 6, device="cuda"), torch.empty(1, device="cuda"), given)
    half = len(layouts) // 2
    assert layouts == [True] * half + [False] * half


@pytest.mark.parametrize("kind, name", [("relative positions", "embeddings_table"), ("image for each frame", "alpha")])
def test_parameters_outside_of_layers_may_be_elsewhere(kind, name):
    """ComfyUI's --lowvram moves the weights of layers as they are used, and leaves others on the CPU."""
    config = configuration(kind)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        unet = UNet(config.unet, LayerFactory(device="cuda", dtype=torch.float16)).requires_grad_(False).eval()
        left = [parameter for own, parameter in unet.named_parameters() if own.endswith(name)]
        for parameter in left:
            parameter.data = torch.empty(parameter.shape, dtype=torch.float16, device="cpu")
        x = torch.empty(CLIP.latent(config), device="cuda", dtype=torch.float16)
        out = unet(x, torch.empty(1, device="cuda"), conditioning(config, CLIP, "cuda", torch.float16))
    assert left and out.device.type == "cuda"


@needs_gpu
@pytest.mark.parametrize("kind", UNETS)
def test_a_step_on_a_gpu_does_not_wait(kind):
    config = configuration(kind)
    unet = UNet(config.unet, LayerFactory(device="cuda", dtype=torch.float16)).requires_grad_(False).eval()
    denoise = guided(config, unet, CLIP, "cuda", torch.float16)
    x, timesteps = torch.randn(CLIP.latent(config), device="cuda"), torch.full((1,), 500, device="cuda")
    with torch.inference_mode():
        denoise(x, timesteps)  # the first call asks for the free memory
        torch.cuda.set_sync_debug_mode("error")
        try:
            denoise(x, timesteps)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_a_recorded_pass_is_the_same():
    config = configuration("text")
    unet = UNet(config.unet, LayerFactory(device="cuda")).requires_grad_(False).eval()
    x, timesteps = torch.randn(CLIP.latent(config), device="cuda"), torch.full((1,), 500, device="cuda")
    with torch.inference_mode():
        given = guided(config, unet, CLIP, "cuda", torch.float32)
        with choose(cuda_graph=True):
            recorded = GuidedDenoiser(unet, given.positive, given.negative, given.guidance)
        for _ in range(2):
            assert torch.allclose(recorded(x, timesteps), given(x, timesteps), atol=1e-4)
            x = torch.randn_like(x)
