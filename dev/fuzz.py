"""Sends a server graphs that strangers might send, and looks at what becomes of each: `python -m dev.fuzz --graphs 5000 --seed 1`.

A run must end in a result, in a refusal of the server's before it starts, in an error of core's own, or in an error that this
pack raises on purpose. What Python, torch or a library raises inside the pack's code is a finding. After every few graphs one
whose result is known must give it again, to the bit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import save_file

from harness import goldens
from harness.client import ComfyError, Prompt
from harness.comfyui import REPOSITORY
from harness.hostile import zipped
from harness.server import TEST_NODES, Server, running

from .fuzz_graphs import MODELS, NO_MODELS, Maker

#: Errors that the pack raises on purpose.
OURS = ("ValueError", "InputError", "CheckpointError", "ConfigError")
#: How the error of a graph begins that ComfyUI doesn't run.
REFUSED = "ComfyUI refused the graph"
#: ComfyUI hands links to a node on whether or not it has such inputs; no node can answer that.
UNKNOWN_INPUT = "got an unexpected keyword argument"
#: Graphs between two looks at the known result.
BETWEEN = 50
#: What an error's own words have at least.
SHORTEST = 40


@dataclass
class Report:
    """What became of the graphs: how many ended how, and what should not have."""

    endings: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    known: int = 0
    seconds: float = 0.0
    peak_growth: int = 0  # MB that the highest the server's memory ever was rose by

    def lines(self) -> Iterator[str]:
        """For a person to read."""
        yield f"{self.endings.total()} graphs in {self.seconds:.0f} s: " + ", ".join(f"{n} {how}" for how, n in self.endings.most_common())
        yield f"the known result came back {self.known} times; the highest of the server's memory rose by {self.peak_growth} MB"
        yield f"{len(self.findings)} findings"
        yield from self.findings


def fuzz(server: Server, graphs: int, seed: int, progress: Callable[[int], None] | None = None) -> Report:
    """Sends graphs ``seed``, ``seed + 1`` and so on to a server that has the models of :func:`prepare`."""
    info, report, start = server.object_info(), Report(), time.monotonic()
    expected, before = known_result(server), memory(server, "VmHWM")
    for number in range(seed, seed + graphs):
        prompt = Maker(info, number).make()
        how, details = outcome(server, prompt)
        report.endings[how] += 1
        if how == "finding":
            report.findings.append(f"graph {number}: {details}")
        if (number - seed) % BETWEEN == BETWEEN - 1 or number == seed + graphs - 1:
            if known_result(server) != expected:
                report.findings.append(f"after graph {number} the known graph gave another result")
            report.known += 1
            if progress:
                progress(number - seed + 1)
    report.peak_growth = memory(server, "VmHWM") - before
    report.seconds = time.monotonic() - start
    return report


def outcome(server: Server, prompt: Prompt) -> tuple[str, str]:
    """How a graph ended: ``result``, ``refused``, ``error of ours``, ``core's error``, or ``finding`` with what is wrong."""
    try:
        server.run(prompt)
    except ComfyError as error:
        if str(error).startswith(REFUSED):
            own = any(map(is_ours, error.traceback.splitlines()))
            return ("finding", f"{error.node_type} failed while it was validated: {error.traceback[-300:]}") if own else ("refused", "")
        if not error.traceback:
            return "finding", f"the server failed: {error}"
        return judged(error)
    except OSError as error:  # requests' errors are of this class
        return "finding", f"the server answers no more: {error!r:.200}"
    return "result", ""


def judged(error: ComfyError) -> tuple[str, str]:
    """Whether an error of a run is one that may be."""
    lines = error.traceback.splitlines()
    frames = [place for place, line in enumerate(lines) if line.lstrip().startswith("File ")]
    ours = [is_ours(lines[place]) for place in frames]
    message = str(error).partition(" failed: ")[2]
    kind = error.kind.rpartition(".")[2]
    if ours and ours[-1]:
        raised = [line.lstrip().startswith("raise ") for line in lines[frames[-1] + 1 :]]
        on_purpose = kind in OURS or (kind == "AttributeError" and " holds no " in message)
        if on_purpose and any(raised) and len(message) >= SHORTEST:
            return "error of ours", ""
    elif not any(ours) and ("VideoCrafter" not in error.node_type or UNKNOWN_INPUT in message):
        return "core's error", ""
    where = lines[frames[-1]].strip() if frames else "nowhere"
    return "finding", f"{error.node_type} {kind}: {message[:300]!r} at {where}"


def is_ours(line: str) -> bool:
    """Whether a line of a traceback is in the pack's own code."""
    return any(f"/{folder}/" in line for folder in ("vc_core", "nodes")) and (str(REPOSITORY) in line or "/custom_nodes/" in line) and (
        "/harness/" not in line and "/.comfyui/" not in line and "/.venv/" not in line
    )


def known_result(server: Server) -> bytes:
    """The latent of a small graph, as it lies in its file. ComfyUI has forgotten it since, but for the models."""
    maker = Maker({}, 0)
    model = maker.loaders()[MODELS[0]]
    text = [maker.add("CLIPTextEncode", clip=[model, 1], text="a blue square moving up"), 0]
    latent = [maker.add("EmptyVideoCrafterLatent", width=64, height=64, length=2, batch_size=1), 0]
    both = maker.add("VideoCrafterConditioning", positive=text, negative=text, fps=8.0, latent=latent)
    samples = maker.authors([model, 0], [both, 0], [both, 1], latent)
    maker.add("TestSave", file="known.safetensors", latent=samples)
    path = server.base / "output" / "known.safetensors"
    path.unlink(missing_ok=True)
    server.run(maker.prompt)
    return path.read_bytes()


def prepare(server: Server) -> None:
    """Puts the models, and the files that are none, into the server's folder."""
    for name in MODELS[2:]:
        path = server.checkpoints / name
        if not path.exists():
            goldens.write_checkpoint(path.stem, path)
    (server.checkpoints / "hostile.ckpt").write_bytes(zipped(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."))
    (server.checkpoints / "empty.safetensors").write_bytes(b"")
    (server.checkpoints / "web page.ckpt").write_bytes(b"<!DOCTYPE html><html>Sign in</html>")
    unet = {name: tensor for name, tensor in goldens.weights("t2v_512_v2").items() if name.startswith("model.")}
    save_file(unet, server.checkpoints / "unet only.safetensors")


def memory(server: Server, kind: str) -> int:
    """MB of the server's memory: ``VmRSS`` now, ``VmHWM`` at its highest; 0 where the system doesn't say."""
    status = Path(f"/proc/{server.process.pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith(kind)), 0)


def clean_up(server: Server) -> None:
    """Takes away again the files that are no models."""
    for name in NO_MODELS:
        (server.checkpoints / name).unlink(missing_ok=True)


@contextmanager
def fuzzing_server() -> Iterator[Server]:
    """A server for it, with the tests' nodes."""
    with tempfile.TemporaryDirectory() as base, running(Path(base), custom_nodes=TEST_NODES) as server:
        prepare(server)
        yield server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first graph's; one graph again: --graphs 1 --seed N")
    parser.add_argument("--show", action="store_true", help="print the graphs instead of sending them")
    arguments = parser.parse_args()
    with fuzzing_server() as server:
        if arguments.show:
            info = server.object_info()
            for seed in range(arguments.seed, arguments.seed + arguments.graphs):
                print(json.dumps(Maker(info, seed).make(), indent=1))
            return
        report = fuzz(server, arguments.graphs, arguments.seed, lambda done: print(f"{done} graphs", flush=True))
    print("\n".join(report.lines()))
    sys.exit(bool(report.findings))


if __name__ == "__main__":
    main()
