"""Opens files in processes of their own, with limits of memory and time: `python -m harness.bounded` reads paths, one a line.

Each file is opened in a copy of one process that has imported everything, so that only what the file costs is measured.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What a file may cost: processor time, and MB of memory beyond the file's size.
SECONDS, MEGABYTES = 2.0, 200
#: The limits of the process, beyond which it is ended: seconds, and MB beyond the above.
ENDED_AFTER, SLACK = 20, 400


@dataclass(frozen=True)
class Cost:
    """What became of a file: ``opened``, or the name of the error's class and its text; and what it took."""

    outcome: str
    message: str
    seconds: float
    megabytes: float


class Bounded:
    """The process that opens files."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.bounded"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def open(self, path: Path) -> Cost:
        """The cost of opening a model's file."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        return Cost(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def status(field: str) -> int:
    """kB of this process: ``VmRSS``, ``VmData``, or ``VmHWM``, the highest resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field + ":")))


def cost_here(path: Path) -> Cost:
    """Open a file in this process, within its limits."""
    from vc_core.errors import VideoCrafterError
    from vc_core.family.model_file import ModelFile

    resource.setrlimit(resource.RLIMIT_CPU, (ENDED_AFTER, ENDED_AFTER))
    allowed = (status("VmData") << 10) + path.stat().st_size + (MEGABYTES + SLACK << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory so far is forgotten
    before, start, outcome, message = status("VmRSS"), time.process_time(), "opened", ""
    try:
        ModelFile.open(path)
    except VideoCrafterError as error:
        outcome, message = type(error).__name__, str(error)
    except BaseException as error:  # what must not be
        outcome, message = f"raw {type(error).__name__}", f"{error!r:.300}"
    return Cost(outcome, message, time.process_time() - start, (status("VmHWM") - before) / 1024)


def serve() -> None:
    """Answer each path with its cost."""
    from harness import goldens
    from vc_core.family.model_file import ModelFile

    warnings.simplefilter("ignore")  # of threads in a process that is copied
    warm = Path(os.environ.get("TMPDIR", "/tmp")) / f"warm-{os.getpid()}.safetensors"
    ModelFile.open(goldens.write_checkpoint("dynamicrafter_512_v1", warm))  # what is imported late
    warm.unlink()
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, json.dumps(asdict(cost_here(Path(line.rstrip("\n"))))).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as answered:
            answer = answered.read().decode()
        _, ended = os.waitpid(child, 0)
        print(answer or json.dumps(asdict(Cost("ended", f"by signal {os.waitstatus_to_exitcode(ended)}", 0.0, 0.0))), flush=True)


if __name__ == "__main__":
    serve()
