"""Memory that saving takes beyond the frames: `python -m dev.save_memory [FORMAT ...] [--frames 1000] [--size 512x320]`.

Each format is written in a process of its own: the frames are made, the highest memory so far is forgotten, and what saving adds is
printed. The frames are noise over a gradient, the worst for encoders that hold compressed frames.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from harness.bounded import status
from vc_core.media.clip import Clip
from vc_core.media.fitting import Wanted, fit_file
from vc_core.media.formats import FORMATS
from vc_core.media.sound import Sound
from vc_core.media.video import write_clip


def measured(name: str, frames: int, width: int, height: int) -> str:
    """Save frames in this process; a row of the table."""
    images = torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(0)).mul_(0.05)
    images += torch.linspace(0, 0.9, width)[None, None, :, None]
    sound = Sound(torch.rand(2, 44100 * frames // 8) - 0.5, 44100) if FORMATS[name].sound else None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"clip{FORMATS[name].suffix}"
        if not FORMATS[name].suffix:
            target.mkdir()
        first = target if FORMATS[name].suffix else Path(tempfile.mkdtemp(dir=folder))
        write_clip(Clip(images[:2], 8), first, name)  # what is imported late
        Path("/proc/self/clear_refs").write_text("5")
        before, start = status("VmRSS"), time.perf_counter()
        write_clip(Clip(images, 8, sound=sound), target, name)
        added, seconds = status("VmHWM") - before, time.perf_counter() - start
        size = sum(path.stat().st_size for path in ([target] if target.is_file() else target.iterdir()))
    return f"| {FORMATS[name].title} | {added / 1024:.0f} MB | {size / 1e6:.1f} MB | {seconds:.0f} s |"


def loaded(width: int, height: int) -> str:
    """Take 16 frames of a clip of 3 minutes."""
    with tempfile.TemporaryDirectory() as folder:
        frames = torch.zeros(1, height, width, 3).expand(180 * 25, -1, -1, -1)
        write_clip(Clip(frames, 25), Path(folder) / "clip.mp4", "h264", 51)
        Path("/proc/self/clear_refs").write_text("5")
        before, start = status("VmRSS"), time.perf_counter()
        fit_file(Path(folder) / "clip.mp4", Wanted(width, height, 16, 8))
        return f"16 frames of a clip of 3 minutes: {(status('VmHWM') - before) / 1024:.0f} MB, {time.perf_counter() - start:.2f} s"


def main() -> None:
    """Print a row for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", default=list(FORMATS))
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--size", default="512x320")
    parser.add_argument("--here", action="store_true", help="in this process")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    if arguments.here:
        print(loaded(width, height) if arguments.formats == ["load"] else measured(arguments.formats[0], arguments.frames, width, height))
        return
    print("| format | memory beyond the frames | file | time |\n|---|---|---|---|", flush=True)
    for name in [*arguments.formats, "load"]:
        command = [sys.executable, "-m", "dev.save_memory", name, "--here", "--frames", str(arguments.frames), "--size", arguments.size]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
