"""One clip shared by the processes of a torchrun, by Gloo on the processor: the clip is that of one process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from harness.comfyui import REPOSITORY
from harness.goldens import RUN_TOLERANCE
from vc_core.errors import InputError
from vc_core.parallel.world import joined

#: Largest error of shared frames, relative to the largest magnitude.
FRAMES_TOLERANCE = 1e-5


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1800)


@pytest.mark.full
@pytest.mark.parametrize("processes", [2, 4])
def test_shared_clips(processes, tmp_path):
    """Guidance to the bit, frames within 1e-5, decoding; all processes end with the same."""
    target = tmp_path / "found.json"
    done = torchrun(processes, "-m", "tests.split_cases", str(target))
    assert done.returncode == 0, done.stderr[-3000:]
    every = json.loads(target.read_text())
    assert len(every) == processes and all(each == every[0] for each in every)
    for name, found in every[0].items():
        if name.startswith("run"):
            assert found["recorded"] <= RUN_TOLERANCE and found["video equal"] >= found["latent equal"], (name, found)
            assert found["latent equal"] if name.endswith("guidance") else 0 < found["latent"] <= FRAMES_TOLERANCE, (name, found)
            assert found["video"] <= FRAMES_TOLERANCE, (name, found)
        else:
            assert found["equal"] if name.endswith("guidance") else 0 < found["error"] <= FRAMES_TOLERANCE, (name, found)


def test_a_process_of_its_own_shares_nothing(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match="not started by torchrun"), joined():
        pass


def test_norms_made_ready_compute_as_before():
    """The norms of a network that is not shared now compute as before."""
    from tests.networks import UNETS, randomize
    from vc_core.models.conditioning import Conditioning
    from vc_core.models.unet import UNet
    from vc_core.parallel.frames import share_norms

    unet = randomize(UNet(UNETS["text"]))
    inputs = torch.randn(1, 4, 3, 4, 4), torch.tensor([5]), Conditioning(torch.randn(1, 3, 32))
    with torch.inference_mode():
        before = unet(*inputs)
        share_norms(unet)
        assert torch.equal(unet(*inputs), before)
