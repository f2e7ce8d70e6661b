"""The command that measures a GPU keeps what it has, goes on after errors, and compares runs."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import fast, right, switches, why
from benchmarks.gpu.compare import comparison
from benchmarks.gpu.results import Results, keys, read
from harness import goldens
from vc_core.choices import Choices, current


def test_results_are_in_the_file_at_once(tmp_path):
    results = Results(tmp_path / "results.jsonl")

    def out_of_memory():
        assert len(read(tmp_path)) == 1, "the first result is there while the second case runs"
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def wrong():
        raise ValueError("a wrong number")

    assert results.run(keys("fast", "step", "model"), lambda: {"seconds": 2.0}) == {"seconds": 2.0}
    assert results.run(keys("fast", "decode", "model"), out_of_memory) is None
    assert results.run(keys("fast", "text", "model"), wrong) is None
    results.deadline = time.monotonic() - 1
    assert results.run(keys("fast", "image", "model"), lambda: {"seconds": 1.0}) is None
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["case"] for row in rows] == ["step", "decode", "text", "image"]
    assert rows[0]["seconds"] == 2.0 and rows[1]["error"] == "out of memory"
    assert rows[2]["error"] == "ValueError: a wrong number" and rows[3]["skipped"] == "no time left"


def test_two_runs_are_compared():
    first = [
        {**keys("fast", "step", "m", "8x8x4", "float16", "ours"), "seconds": 4.0, "weights GiB": 2.0},
        {**keys("fast", "decode"), "seconds": 1.0}, {**keys("fast", "text"), "seconds": 1.0},
    ]  # fmt: skip
    second = [
        {**keys("fast", "step", "m", "8x8x4", "float16", "ours"), "seconds": 9.0}, # an earlier run of the same case
        {**keys("fast", "step", "m", "8x8x4", "float16", "ours"), "seconds": 3.0, "weights GiB": 2.0},
        {**keys("fast", "decode"), "error": "out of memory"}, {**keys("fast", "image"), "seconds": 1.0},
    ]  # fmt: skip
    assert comparison(first, second).splitlines()[2:] == [
        "| fast step m 8x8x4 float16 ours | seconds | 4 | 3 | 0.750 |",
        "| fast step m 8x8x4 float16 ours | weights GiB | 2 | 2 | 1.000 |",
        "| fast decode | error in the second: out of memory | | | |",
        "", "Only in the first: fast text.",
        "", "Only in the second: fast image.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "operator, kind",
    [
        ("aten::_scaled_dot_product_flash_attention", "attention"), ("aten::cudnn_convolution", "convolutions"),
        ("aten::native_group_norm", "norms"), ("aten::native_layer_norm", "norms"), ("aten::addmm", "matrix products"),
        ("aten::copy_", "copies"), ("aten::cat", "copies"), ("aten::gelu", "other elementwise"), ("aten::silu_", "other elementwise"),
    ],
)  # fmt: skip
def test_operators_are_told_apart(operator, kind):
    assert why.kind_of(operator) == kind


def test_shares_are_of_the_time_on_the_device():
    def event(key: str, device: DeviceType, microseconds: float) -> SimpleNamespace:
        return SimpleNamespace(key=key, device_type=device, self_device_time_total=microseconds, self_cpu_time_total=1000.0, count=2)

    events = [
        event("aten::addmm", DeviceType.CPU, 60.0), event("aten::copy_", DeviceType.CPU, 40.0),
        event("cudaLaunchKernel", DeviceType.CPU, 0.0),
        event("sm90_gemm", DeviceType.CUDA, 60.0), event("nchwToNhwcKernel", DeviceType.CUDA, 40.0),
    ]  # fmt: skip
    assert why.shares(events, "cuda") == {"matrix products": 0.6, "copies": 0.4, "other elementwise": 0.0}
    largest = why.largest_kernels(events, "cuda", count=1)
    assert largest == [{"kernel": "sm90_gemm", "calls": 2, "share": 0.6}]
    assert why.is_layout_kernel("nchwToNhwcKernel") and not why.is_layout_kernel("sm90_gemm")


def test_a_clip_is_estimated_from_its_parts():
    def part(seconds: float, weights: float, peak: float) -> dict[str, float]:
        return {"seconds": seconds, "weights GiB": weights, "peak above them GiB": peak}

    parts = {"step": part(0.1, 2.6, 0.6), "decode": part(0.5, 0.2, 1.0), "text": part(0.02, 0.7, 0.1), "encode": part(0.3, 0.2, 0.5)}
    found = fast.estimate(parts)
    assert found["seconds"] == pytest.approx(50 * 0.1 + 0.5 + 0.02 + 0.3)
    assert found["weights GiB"] == pytest.approx(2.6 + 0.2 + 0.7), "the autoencoder's weights count once"
    assert found["GiB in all"] == pytest.approx(3.5 + 1.0)


def test_recorded_numbers_are_measured():
    """In bfloat16 as well, on any device; by one model here."""
    recorded = goldens.recording("t2v_512_v2")
    exact = right.measure_errors(recorded, "cpu", torch.float32)
    assert exact["right"] and {"UNet", "text", "VAE", "latent", "pixels"} <= set(exact)


def test_a_run_of_a_section(tmp_path, capsys):
    output = ["--output", str(tmp_path), "--device", "cpu", "--tiny", "--rounds", "1"]
    assert command.main(["--sections", "why", *output]) == 0
    rows = read(tmp_path)
    assert [row["section"] for row in rows] == ["machine", "why", "why"] and not any("error" in row for row in rows)
    assert all((tmp_path / row["table"]).stat().st_size for row in rows[1:])
    assert command.main(["compare", str(tmp_path), str(tmp_path)]) == 0
    assert "| 1.000 |" in capsys.readouterr().out
    assert command.main(["compare", str(tmp_path)]) == 2


def test_switches_are_turned_back(tmp_path):
    results = Results(tmp_path / "results.jsonl")
    subject = fast.TINY_SUBJECTS[0]
    chosen = switches.Chosen("cpu", 1)
    model = switches.random_model(subject.config, ["autoencoder"], "cpu", torch.float32)
    for case in ("default", "2 at once"):
        changes = switches.DECODE[case]
        results.run(keys("choices", "decode", way=case), lambda c=changes: switches.decode_figures(chosen, model, subject.clip, c))
    assert current() == Choices()
    assert [row.get("deviation", 1.0) < 1e-5 for row in results.rows] == [True, True]
