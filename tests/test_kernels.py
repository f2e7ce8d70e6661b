"""CPU kernels equal torch's layers but for rounding; networks get them when they are loaded for a CPU, and never otherwise."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import vc_core
from harness.goldens import error
from vc_core.config import UNetConfig
from vc_core.kernels import onednn, winograd
from vc_core.kernels.operations import cpu_operations, operations_for
from vc_core.kernels.winograd import WinogradConv2d, WinogradTemporalConv
from vc_core.models.conditioning import Conditioning
from vc_core.models.layers import LayerFactory
from vc_core.models.unet import UNet

ROUNDING = 1e-6
INPUTS, OUTPUTS = 64, 48
#: Input, weight and bias in forms of which the operator itself computes some wrongly, and refuses others.
ARGUMENTS = {
    "tokens": lambda: (torch.randn(2, 5, INPUTS), torch.randn(OUTPUTS, INPUTS), torch.randn(OUTPUTS)),
    "no bias": lambda: (torch.randn(2, 5, INPUTS), torch.randn(OUTPUTS, INPUTS), None),
    "one token": lambda: (torch.randn(INPUTS), torch.randn(OUTPUTS, INPUTS), torch.randn(OUTPUTS)),
    "no token": lambda: (torch.randn(2, 0, INPUTS), torch.randn(OUTPUTS, INPUTS), torch.randn(OUTPUTS)),
    "tokens last": lambda: (torch.randn(2, INPUTS, 5).transpose(1, 2), torch.randn(OUTPUTS, INPUTS), torch.randn(OUTPUTS)),
    "every other input": lambda: (torch.randn(5, 2 * INPUTS)[:, ::2], torch.randn(OUTPUTS, INPUTS), torch.randn(OUTPUTS)),
    "the same token": lambda: (torch.randn(1, INPUTS).expand(5, -1), torch.randn(OUTPUTS, INPUTS), torch.randn(OUTPUTS)),
    "weight transposed": lambda: (torch.randn(5, INPUTS), torch.randn(INPUTS, OUTPUTS).t(), torch.randn(OUTPUTS)),
    "weight of a larger one": lambda: (torch.randn(5, INPUTS), torch.randn(OUTPUTS, 2 * INPUTS)[:, INPUTS:], torch.randn(OUTPUTS)),
    "every other bias": lambda: (torch.randn(5, INPUTS), torch.randn(OUTPUTS, INPUTS), torch.randn(2 * OUTPUTS)[::2]),
    "one bias for all": lambda: (torch.randn(5, INPUTS), torch.randn(OUTPUTS, INPUTS), torch.randn(1)),
    "the same bias": lambda: (torch.randn(5, INPUTS), torch.randn(OUTPUTS, INPUTS), torch.randn(1).expand(OUTPUTS)),
    "one output": lambda: (torch.randn(5, INPUTS), torch.randn(1, INPUTS), torch.randn(1)),
    "a parameter": lambda: (torch.randn(5, INPUTS), nn.Parameter(torch.randn(OUTPUTS, INPUTS)), nn.Parameter(torch.randn(OUTPUTS))),
    "double": lambda: (torch.randn(5, INPUTS).double(), torch.randn(OUTPUTS, INPUTS).double(), torch.randn(OUTPUTS).double()),
    "half": lambda: (torch.randn(5, INPUTS).bfloat16(), torch.randn(OUTPUTS, INPUTS).bfloat16(), torch.randn(OUTPUTS).bfloat16()),
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS.keys())
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_linear_equals_torch_s(arguments, mode):
    torch.manual_seed(0)
    with mode():
        x, weight, bias = arguments()
        by_torch, ours = nn.functional.linear(x, weight, bias), onednn.linear(x, weight, bias)
        assert ours.shape == by_torch.shape and ours.dtype == by_torch.dtype
        if x.dtype == torch.bfloat16:
            assert torch.equal(ours, by_torch)  # torch's own is called
        elif ours.numel():
            expected = nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double()).float()
            assert error(ours.float(), expected) <= ROUNDING


def test_sizes_that_do_not_match_raise_torch_s_error():
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        onednn.linear(torch.randn(5, INPUTS), torch.randn(OUTPUTS, INPUTS + 1))


def test_gradients_are_torch_s():
    layer, x = LayerFactory(cpu_operations()).linear(INPUTS, OUTPUTS), torch.randn(5, INPUTS)
    layer(x).sum().backward()
    assert error(layer.weight.grad, x.sum(0).expand(OUTPUTS, -1)) <= ROUNDING


def test_bmm_equals_torch_s():
    torch.manual_seed(0)
    a, b = torch.randn(3, 7, 5), torch.randn(3, 11, 5)
    with torch.no_grad():
        for each in (b.transpose(1, 2), b.transpose(1, 2).contiguous()):
            assert error(onednn.bmm(a, each), (a.double() @ each.double()).float()) <= ROUNDING
    assert error(onednn.bmm(a, b.transpose(1, 2)), a @ b.transpose(1, 2)) == 0  # gradients may be wanted


needs_onednn = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="oneDNN's linear layers need a CPU with AVX2 or AVX512"
)


def calls(monkeypatch, module, name):
    """A list that grows by one with each call of that function."""
    made, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments: made.append(1) or function(*arguments))
    return made


class Doubled(nn.Linear):
    """Changes its weight before it is used, as ComfyUI's layers do for a LoRA or a cast."""

    def forward(self, input):
        return torch.nn.functional.linear(input, self.weight * 2, self.bias)


@needs_onednn
def test_a_layer_still_changes_its_weight(monkeypatch):
    torch.manual_seed(0)
    base = SimpleNamespace(**{**vars(nn), "Linear": Doubled})
    layer, x = LayerFactory(cpu_operations(base)).linear(INPUTS, OUTPUTS), torch.randn(2, 5, INPUTS)
    assert isinstance(layer, Doubled) and type(layer).__name__ == "Doubled"
    expected = nn.functional.linear(x.double(), 2 * layer.weight.double(), layer.bias.double()).float()
    made = calls(monkeypatch, onednn, "linear")
    assert error(layer(x), expected) <= ROUNDING and not made  # gradients are wanted
    with torch.no_grad():
        assert error(layer(x), expected) <= ROUNDING and len(made) == 1
        nn.functional.linear(x, layer.weight)
    assert len(made) == 1  # calls outside of a layer stay torch's


@needs_onednn
def test_a_pointwise_layer_uses_onednn(monkeypatch):
    torch.manual_seed(0)
    layer, x = LayerFactory(cpu_operations()).pointwise(INPUTS, OUTPUTS), torch.randn(2, 5, INPUTS)
    expected = layer(x)  # torch's own, with gradients
    made = calls(monkeypatch, onednn, "linear")
    with torch.no_grad():
        assert error(layer(x), expected) <= ROUNDING and len(made) == 1


def test_only_a_cpu_gets_the_kernels():
    base = SimpleNamespace(**vars(nn))
    for device in ("cuda", "cuda:1", "mps", "xpu", "meta", torch.device("cuda", 0)):
        assert operations_for(device) is nn and operations_for(device, base) is base
    for device in ("cpu", torch.device("cpu")):
        operations = operations_for(device, base)
        assert issubclass(operations.Conv2d, WinogradConv2d) and issubclass(operations.Linear, onednn.LinearByOneDNN)
        assert operations.GroupNorm is nn.GroupNorm and operations.LayerNorm is nn.LayerNorm


def kernels_in(network):
    """The classes of this package among the layers' base classes."""
    ours = (onednn.LinearByOneDNN, WinogradConv2d, WinogradTemporalConv)
    return {kernel for module in network.modules() for kernel in ours if isinstance(module, kernel)}


def test_a_model_loaded_for_a_cpu_has_the_kernels_and_none_loaded_for_another_device():
    model, elsewhere = (vc_core.load("videocrafter_tiny_i2v", device=device) for device in ("cpu", "meta"))
    assert kernels_in(model.networks["unet"]) >= {onednn.LinearByOneDNN, WinogradConv2d}
    assert kernels_in(model.networks["autoencoder"]) and kernels_in(model.networks["projector"])
    assert not any(kernels_in(network) for network in elsewhere.networks.values())


@needs_onednn
def test_a_network_with_the_kernels_equals_one_without(monkeypatch):
    """Wide enough that all of them are used."""
    torch.manual_seed(0)
    sizes = {"model_channels": 320, "channel_mult": [1], "num_res_blocks": 1, "attention_resolutions": [1], "head_channels": 64}
    config = UNetConfig(**sizes, context_dim=32)
    networks = [UNet(config, LayerFactory(operations)).requires_grad_(False) for operations in (nn, cpu_operations())]
    for parameter in networks[0].parameters():
        parameter.data = torch.randn_like(parameter) * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2)
    networks[1].load_state_dict(networks[0].state_dict())
    inputs = torch.randn(1, 4, 8, 12, 16), torch.tensor([500]), Conditioning(torch.randn(1, 7, 32))
    made = [calls(monkeypatch, *function) for function in ((winograd, "conv2d"), (winograd, "conv_over_time"), (onednn, "linear"))]
    with torch.no_grad():
        plain = networks[0](*inputs)
        assert not any(made)
        quick = networks[1](*inputs)
    assert all(made) and error(quick, plain) <= 2e-5


def test_the_networks_import_no_kernels():
    """They get them handed in. Relative imports too, wherever in a file; the loader's imports show that the scan finds them."""

    def imports_kernels(path):
        found = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, (ast.Import, ast.ImportFrom))]
        names = {name for node in found for name in (getattr(node, "module", None) or "", *(alias.name for alias in node.names))}
        return any("kernels" in name.split(".") for name in names)

    core = Path(vc_core.__file__).parent
    assert not any(imports_kernels(path) for path in (core / "models").rglob("*.py"))
    assert imports_kernels(core / "family" / "model_file.py")
