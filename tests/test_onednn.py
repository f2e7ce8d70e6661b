"""Linear layers by oneDNN are torch's own but for rounding, and what it doesn't do is left to torch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from harness.goldens import error
from vc_core.kernels import onednn
from vc_core.models.layers import Layers

ROUNDING = 1e-6
INPUTS, OUTPUTS = 64, 48
#: What somebody may hand in, of which the library itself takes some wrongly, and refuses others.
GIVEN = {
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


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN.keys())
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_product_is_torch_s(given, mode):
    torch.manual_seed(0)
    with mode():
        x, weight, bias = given()
        by_torch, ours = nn.functional.linear(x, weight, bias), onednn.linear(x, weight, bias)
        assert ours.shape == by_torch.shape and ours.dtype == by_torch.dtype
        if x.dtype == torch.bfloat16:
            assert torch.equal(ours, by_torch)  # it is torch's
        elif ours.numel():
            expected = nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double()).float()
            assert error(ours.float(), expected) <= ROUNDING


def test_sizes_that_do_not_match_are_torch_s_error():
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        onednn.linear(torch.randn(5, INPUTS), torch.randn(OUTPUTS, INPUTS + 1))


def test_gradients_are_torch_s():
    layer, x = Layers().linear(INPUTS, OUTPUTS), torch.randn(5, INPUTS)
    layer(x).sum().backward()
    assert error(layer.weight.grad, x.sum(0).expand(OUTPUTS, -1)) <= ROUNDING


def test_products_of_stacks():
    torch.manual_seed(0)
    a, b = torch.randn(3, 7, 5), torch.randn(3, 11, 5)
    with torch.no_grad():
        for each in (b.transpose(1, 2), b.transpose(1, 2).contiguous()):
            assert error(onednn.products(a, each), (a.double() @ each.double()).float()) <= ROUNDING
    assert error(onednn.products(a, b.transpose(1, 2)), a @ b.transpose(1, 2)) == 0  # gradients may be wanted


class Doubled(nn.Linear):
    """Somebody else's layer: it does something to its weight first, as ComfyUI's do where a LoRA or a cast is wanted."""

    def forward(self, input):
        return torch.nn.functional.linear(input, self.weight * 2, self.bias)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="for processors with AVX2 or AVX512")
def test_a_layer_keeps_what_it_does_to_its_weight(monkeypatch):
    torch.manual_seed(0)
    layer, x = Layers(SimpleNamespace(Linear=Doubled)).linear(INPUTS, OUTPUTS), torch.randn(2, 5, INPUTS)
    assert isinstance(layer, Doubled) and type(layer).__name__ == "Doubled"
    expected = nn.functional.linear(x.double(), 2 * layer.weight.double(), layer.bias.double()).float()
    taken = []
    linear = onednn.linear
    monkeypatch.setattr(onednn, "linear", lambda *given: taken.append(given) or linear(*given))
    assert error(layer(x), expected) <= ROUNDING and not taken  # gradients are wanted
    with torch.no_grad():
        assert error(layer(x), expected) <= ROUNDING and len(taken) == 1
        nn.functional.linear(x, layer.weight)
    assert len(taken) == 1  # nobody else's
