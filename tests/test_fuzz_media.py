"""A part of `python -m dev.fuzz_media`, in this process."""

from __future__ import annotations

from collections import Counter

import pytest

from dev.fuzz_media import fuzz
from dev.fuzz_media_inputs import KINDS, images, videos

INPUTS = 250


@pytest.mark.parametrize("kind", ["image", "video", "measure", "saving"])
def test_every_input_ends_in_a_result_or_an_error_of_ours(kind, tmp_path):
    endings = Counter(KINDS[kind](number, tmp_path) for number in range(INPUTS))
    assert endings["said"] > 50 and endings.total() - endings["said"] > 10


def test_the_inputs_are_of_all_formats():
    starts = {content[:3] for content in images()}
    assert {b"\x89PN", b"\xff\xd8\xff", b"RIF", b"GIF", b"II*", b"MM\0"} < starts and b"BM" in {start[:2] for start in starts}
    assert len(images()) >= 45 and len(videos()) >= 15


def test_a_fault_would_be_found(monkeypatch):
    """Here an ending of the process."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert "image 0: the process ended" in fuzz(["image"], 0, 10, 1).faults[0]
