"""What loading takes, in a process of its own: ``python -m benchmarks.loading FILE DEVICE DTYPE`` prints it as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from vc_core.config import ModelConfig
from vc_core.diffusion.schedule import Schedule
from vc_core.family.parts import PARTS
from vc_core.loading import load

from .models import random_networks, weight_bytes


def write_checkpoint(config: ModelConfig, path: Path) -> None:
    """A file of a model's shapes with random weights in float16, as the published ones are laid out."""
    tensors = {"alphas_cumprod": Schedule.from_config(config.schedule).alphas_cumprod}
    if config.schedule.scale_end is not None:
        tensors["scale_arr"] = Schedule.from_config(config.schedule).scale
    parts = [part for part in PARTS if getattr(config, part) is not None]
    for part, network in random_networks(config, parts, "cpu", torch.float16).items():
        tensors |= {PARTS[part].prefix + name: tensor for name, tensor in network.state_dict().items()}
    save_file(tensors, path)


def measured_apart(path: Path, device: str, dtype: torch.dtype) -> dict[str, float]:
    """Seconds, processor seconds, bytes of the weights and peak, of loading a file in a new process."""
    command = [sys.executable, "-m", "benchmarks.loading", str(path), device, str(dtype).removeprefix("torch.")]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    path, device, dtype = Path(sys.argv[1]), sys.argv[2], getattr(torch, sys.argv[3])
    before, start, processor = _resident(), time.perf_counter(), time.process_time()
    model = load(path, device=device, dtype=dtype)
    networks = model.networks.values()
    # Pages of a mapped file come in when they are read.
    total = sum(float(each.flatten()[::1024].sum()) for network in networks for each in network.parameters())
    assert total == total
    taken = {"seconds": time.perf_counter() - start, "processor_seconds": time.process_time() - processor}
    print(json.dumps(taken | {"weights": sum(map(weight_bytes, networks)), "peak": _resident() - before}))


def _resident() -> int:
    """The most bytes of memory that this process has held, as Linux counts them.

    Not ``resource.getrusage``, whose count a new process takes over from the one that starts it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024


if __name__ == "__main__":
    main()
