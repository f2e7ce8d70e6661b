"""``vc-core batch``: what is made, what is made again, and that the engines make the same files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import vc_core
from harness.comfyui import REPOSITORY
from vc_core.__main__ import main
from vc_core.batch.groups import make_together
from vc_core.batch.records import sha256_of
from vc_core.generating import Inputs, Plan, make
from vc_core.sampling import Sampling

MODEL = "videocrafter_tiny_t2v"
SMALL = ["--steps", "1", "--frames", "1", "--height", "16", "--width", "16"]
COLOURS, SHAPES = ("red", "blue", "green", "yellow"), ("circle", "square", "triangle", "star", "cross")
WAYS = ("left", "right", "up", "down")
FAILING = {"name": "failing", "prompt": "a red circle", "image": "not_there.png"}


def write_jobs(path: Path, count: int, *more: dict[str, object]) -> Path:
    rows = [
        {"name": f"{n:03}", "prompt": f"a {COLOURS[n % 4]} {SHAPES[n % 5]} moves {WAYS[n // 4 % 4]}", "seed": n} for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *more]))
    return path


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.glob("*.mp4")}


def batch(jobs: Path, output: Path, *more: str) -> int:
    return main(["batch", MODEL, str(jobs), "--output", str(output), *SMALL, *more])


def process(jobs: Path, output: Path, *more: str, ranks: int = 0) -> subprocess.Popen[str]:
    """The command as its user starts it, with one thread, under torchrun if there are ranks."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks else []
    command = [sys.executable, *launcher, "-m", "vc_core", "batch", MODEL, str(jobs), "--output", str(output), "--threads", "1"]
    command += [*SMALL, *more]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_what_failed_is_named_and_only_what_is_missing_is_made(tmp_path, capsys):
    jobs, output = write_jobs(tmp_path / "jobs.jsonl", 2, FAILING), tmp_path / "out"
    assert batch(jobs, output) == 1
    said = capsys.readouterr()
    assert "2 of 3 clips are there" in said.out
    assert all(part in said.err for part in ("1 of 3 jobs failed", "failing: ", "not_there.png"))
    first, times = hashes(output), {path: path.stat().st_mtime_ns for path in output.glob("*.mp4")}
    assert sorted(first) == ["000.mp4", "001.mp4"]
    manifest = json.loads((output / "manifest.json").read_text())
    assert [(job["name"], job["status"]) for job in manifest["jobs"]] == [("000", "done"), ("001", "done"), ("failing", "failed")]
    assert [job["settings"]["seed"] for job in manifest["jobs"][:2]] == [0, 1]
    assert all(job["sha256"] == first[job["file"]] and job["seconds"] > 0 for job in manifest["jobs"][:2])
    assert manifest["run"]["model"].startswith(MODEL) and not list(output.glob("records/*.part"))

    (output / "001.mp4").write_bytes(b"cut off")  # such as by a full disk
    Image.new("RGB", (8, 8)).save(tmp_path / "not_there.png")
    assert batch(jobs, output) == 1  # the model takes no image
    assert "takes no image" in capsys.readouterr().err
    assert hashes(output) == first and (output / "000.mp4").stat().st_mtime_ns == times[output / "000.mp4"]

    write_jobs(jobs, 2)
    assert batch(jobs, output) == 0
    assert {path: path.stat().st_mtime_ns for path in output.glob("000.mp4")} == {output / "000.mp4": times[output / "000.mp4"]}
    assert batch(jobs, output, "--seed", "7", "--crf", "30") == 0  # other files: all are made again
    assert not set(hashes(output).values()) & set(first.values())


def test_the_clip_of_a_job_is_that_of_generate(tmp_path):
    jobs, output = write_jobs(tmp_path / "jobs.jsonl", 1), tmp_path / "out"
    assert batch(jobs, output) == 0
    assert main(["generate", MODEL, "a red circle moves left", "--seed", "0", "--output", str(tmp_path / "alone.mp4"), *SMALL]) == 0
    assert sha256_of(tmp_path / "alone.mp4") == hashes(output)["000.mp4"]


def test_clips_of_one_batch_are_those_made_alone():
    """Up to rounding; each has the noise of its own seed."""
    model = vc_core.load(MODEL)
    nothing, small = Inputs(None, None, None), Sampling.of(model.config, frames=2, height=16, width=16, steps=2)
    plans = [
        Plan(nothing, small.changed(seed=seed), (prompt, ""), loop=False, drops_last=False)
        for seed, prompt in ((5, "a red circle"), (90, "a blue square"), (5, "a red circle"))
    ]
    together, alone = make_together(model, plans), [make(model, plan) for plan in plans]
    for one, other in zip(together, alone, strict=True):
        assert (one - other).abs().max() <= 1e-4
    assert torch.equal(together[0], together[2]) and (together[0] - together[1]).abs().max() > 0.05


def test_layouts(tmp_path):
    jobs = tmp_path / "jobs.txt"
    jobs.write_text("a red circle\na red circle\nwhat/is this?\n")
    assert batch(jobs, tmp_path / "vbench", "--layout", "vbench") == 0
    names = sorted(hashes(tmp_path / "vbench"))
    assert names[:2] == ["a red circle-0.mp4", "a red circle-1.mp4"] and names[2].startswith("what-is-this-") and len(names) == 3
    listed = json.loads((tmp_path / "vbench" / "prompts.json").read_text())
    assert {Path(file).name: prompt for file, prompt in listed.items()}[names[2]] == "what/is this?"
    assert batch(jobs, tmp_path / "evalcrafter", "--layout", "evalcrafter") == 0
    assert sorted(hashes(tmp_path / "evalcrafter")) == ["0000.mp4", "0001.mp4", "0002.mp4"]


@pytest.mark.full
def test_200_jobs_are_the_same_in_one_process_on_ray_and_under_torchrun(tmp_path):
    jobs, expected = write_jobs(tmp_path / "jobs.jsonl", 200), {f"{n:03}.mp4" for n in range(200)}
    ways = {"one": {}, "torchrun": {"ranks": 2}}
    found = {}
    for name, how in ways.items():
        done = process(jobs, tmp_path / name, **how)
        assert done.wait() == 0, done.communicate()[0][-3000:]
        found[name] = hashes(tmp_path / name)
    pytest.importorskip("ray")
    done = process(jobs, tmp_path / "ray", "--engine", "ray", "--workers", "2")
    assert done.wait() == 0, done.communicate()[0][-3000:]
    found["ray"] = hashes(tmp_path / "ray")
    assert set(found["one"]) == expected and found["torchrun"] == found["one"] == found["ray"]
    workers = [{job["worker"]["pid"] for job in json.loads((tmp_path / name / "manifest.json").read_text())["jobs"]} for name in found]
    assert [len(each) for each in workers] == [1, 2, 2]


@pytest.mark.full
def test_a_killed_actor_and_a_failing_job(tmp_path):
    """All other files are there, the failed job is named, and the second run makes only what is missing."""
    pytest.importorskip("ray")
    jobs, output = write_jobs(tmp_path / "jobs.jsonl", 30, FAILING), tmp_path / "out"
    running = process(jobs, output, "--engine", "ray", "--workers", "2")
    killed = 0
    while running.poll() is None and not killed:
        time.sleep(0.05)
        for record in output.glob("records/*.json"):
            killed = json.loads(record.read_text())["worker"]["pid"]
            os.kill(killed, signal.SIGKILL)
            break
    said = running.communicate()[0]
    assert killed and running.returncode == 1, said[-3000:]
    assert "1 of 31 jobs failed" in said and "failing: " in said
    assert len(hashes(output)) == 30
    made = json.loads((output / "manifest.json").read_text())["jobs"]
    workers = {job["worker"]["pid"] for job in made}
    assert killed in workers and len(workers) >= 2, "what the lost actor had made is kept; others made the rest"
    times = {path: path.stat().st_mtime_ns for path in output.glob("*.mp4")}
    (output / "007.mp4").unlink()
    again = process(jobs, output, "--engine", "ray", "--workers", "2")
    assert again.wait() == 1
    assert {path for path in output.glob("*.mp4") if path.stat().st_mtime_ns != times[path]} == {output / "007.mp4"}
