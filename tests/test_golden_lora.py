"""LoRA files of every layout give what the authors' code gives with them."""

from __future__ import annotations

import pytest
import torch

from harness import golden_loras, goldens
from harness.goldens import PASS_TOLERANCE
from vc_core.family.parts import part_shapes
from vc_core.lora.files import open_lora

RECORDS = golden_loras.records()
pytestmark = [pytest.mark.golden, pytest.mark.skipif(not RECORDS, reason="no LoRA files are recorded in this folder")]


@pytest.fixture(params=RECORDS, ids=lambda record: record.file)
def record(request):
    return request.param


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The model without a LoRA."""
    return golden_loras.open_model(tmp_path_factory.mktemp("base"))


def test_without_a_lora(base):
    golden = golden_loras.recorded().read("expected")
    assert goldens.error(golden_loras.output(base), golden["y"]) <= PASS_TOLERANCE


@pytest.mark.parametrize("strength", [1, 0.5])
def test_the_output(base, record, strength):
    expected = golden_loras.recorded().read("expected")[f"{record.stem}.y_{strength}"]
    assert goldens.error(golden_loras.output(golden_loras.with_lora(base, record, strength)), expected) <= PASS_TOLERANCE


def test_the_merged_weights(base, record):
    """The sum and the root of the sum of squares of each."""
    sums = golden_loras.recorded().read("expected")[f"{record.stem}.sums"]
    weights = golden_loras.with_lora(base, record).tensors("unet")
    assert len(sums) == len(record.layers)
    for layer, (total, size) in zip(record.layers, sums.tolist(), strict=True):
        merged = weights[f"{layer}.weight"].double()
        assert merged.sum().item() == pytest.approx(total, abs=1e-6 * size), layer
        assert merged.square().sum().sqrt().item() == pytest.approx(size, rel=1e-6), layer


def test_the_layers_ranks_and_scales(base, record):
    lora = open_lora(golden_loras.path(record)).match(part_shapes(base.config, "unet"))
    assert set(lora.unet) == set(record.layers) and not lora.unmatched
    assert sorted({layer.rank for layer in lora.unet.values()}) == record.ranks
    assert sorted({layer.alpha / layer.rank for layer in lora.unet.values()}) == record.scales


def test_strength_0_is_the_base_model_s_bits(base, record):
    plain, merged = base.tensors("unet"), golden_loras.with_lora(base, record, 0).tensors("unet")
    assert all(torch.equal(plain[name], merged[name]) and plain[name].dtype == merged[name].dtype for name in plain)


def test_an_alpha_of_the_rank_ignores_the_file_s(base):
    """VideoCrafter 0.9's own loader does. The file's scale is 0.5 everywhere, so that twice its strength is the same."""
    record = next(each for each in RECORDS if each.stem == "dotted_alpha")
    expected = golden_loras.recorded().read("expected")["dotted_alpha.y_1_alpha_ignored"]
    assert record.scales == [0.5]
    assert goldens.error(golden_loras.output(golden_loras.with_lora(base, record, 2.0)), expected) <= PASS_TOLERANCE
