"""A small part of `python -m dev.fuzz_files`: inputs of fixed seeds, and that the fuzz finds what must not be."""

from __future__ import annotations

import pytest

from dev import fuzz_files
from dev.file_mutations import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_no_findings(kind):
    report = fuzz_files.fuzz([kind], seed=0, seconds=0, count={"pickle": 200, "zip": 200}.get(kind, 30))
    assert not report.findings and report.endings[kind].total() >= 20
    assert len(report.endings[kind]) > 1 or kind in ("metadata", "pickle"), "some are read, and some refused"


def test_the_fuzz_finds_raw_errors_slow_inputs_and_odd_messages(monkeypatch):
    def broken(kind, made, path):
        raise KeyError(kind)

    monkeypatch.setattr(fuzz_files, "run", broken)
    report = fuzz_files.fuzz(["yaml"], seed=5, seconds=0, count=2)
    assert [finding.split(":")[0] for finding in report.findings] == [f"--kind yaml --seed {seed} --count 1" for seed in (5, 6)]
    monkeypatch.setattr(fuzz_files, "run", lambda *_: "read")
    monkeypatch.setattr(fuzz_files, "SECONDS", -1.0)
    assert "took" in fuzz_files.fuzz(["yaml"], seed=5, seconds=0, count=1).findings[0]


def test_the_fuzz_ends_inputs_that_do_not(monkeypatch):
    def endless(*_):
        while True:
            pass

    monkeypatch.setattr(fuzz_files, "run", endless)
    monkeypatch.setattr(fuzz_files, "ENDED_AFTER", 0.2)
    assert "TooLong" in fuzz_files.fuzz(["yaml"], seed=5, seconds=0, count=1).findings[0]
