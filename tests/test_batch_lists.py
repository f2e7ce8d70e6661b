"""Lists of jobs, names of files, and the suites' layouts: no clip is made."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from vc_core.__main__ import main, parser
from vc_core.batch.groups import grouped
from vc_core.batch.job_list import JobError, read_list, resolve
from vc_core.batch.making import Setup, digest_of
from vc_core.batch.names import LONGEST, check_names, name_of, problem
from vc_core.batch.suites import file_names

MODEL = "videocrafter_tiny_t2v"


def run_options(*more: str) -> argparse.Namespace:
    return parser().parse_args(["batch", MODEL, "jobs.txt", "--output", "clips", *more])


def resolved(listed: list[dict[str, object]], *more: str, folder: Path = Path("/lists")):
    options = run_options(*more)
    return resolve(listed, options, options.job_parser, folder)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.txt", "\ufeffa red circle\n\n  a blue, round square  \n"),
        ("a.csv", 'prompt,seed,loop\na red circle,3,\n"a blue, round square",4,\n'),
        ("a.jsonl", '{"prompt": "a red circle", "seed": 3, "loop": null}\n\n{"prompt": "a blue, round square", "seed": 4}\n'),
    ],
)
def test_the_forms_of_a_list_say_the_same(tmp_path, name, text):
    listed = read_list(write(tmp_path, name, text))
    assert [each["prompt"] for each in listed] == ["a red circle", "a blue, round square"]
    jobs = resolved(listed, "--seed", "3")
    assert [job.options.seed for job in jobs] == [3, 3 if name == "a.txt" else 4]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.yaml", "x", "ends in .txt, .csv, .jsonl"),
        ("a.txt", " \n\n", "has no jobs"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt"\n', "line 2 is not JSON"),
        ("a.jsonl", '["x"]\n', "line 1 is no object"),
        ("a.csv", "prompt,prompt\nx,y\n", "'prompt' is there twice"),
        ("a.csv", "prompt,seed\na red circle, moving,3\n", "line 2 has more cells than the head"),
    ],
)
def test_a_list_that_can_t_be_read(tmp_path, name, text, message):
    with pytest.raises(JobError, match=message):
        read_list(write(tmp_path, name, text))


def test_half_of_a_character_is_named_before_anything_is_made(tmp_path):
    (tmp_path / "jobs.jsonl").write_text('{"prompt": "a"}\n{"prompt": "\\ud800"}\n')
    with pytest.raises(JobError, match="line 2 has .*, which is half of a character"):
        read_list(tmp_path / "jobs.jsonl")


def test_a_list_in_another_encoding(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a cat\n\xff\xfe\n")
    with pytest.raises(JobError, match="line 2 is not UTF-8"):
        read_list(path)


def test_every_fault_of_a_list_is_named_at_once():
    listed = [
        {"prompt": "x", "stepz": 3}, {"prompt": "x", "steps": "many"}, {"prompt": 7}, {"prompt": "x", "loop": "perhaps"},
        {"prompt": "x", "steps": [1]}, {"prompt": "x", "adapter": "a.ckpt"}, {"prompt": "fine", "steps": 3},
    ]
    with pytest.raises(JobError) as error:
        resolved(listed)
    lines = error.value.lines
    assert len(lines) == 6
    parts = ("did you mean steps?", "'many' is not a whole number", "must be text", "must be true or false", "[1]", "adapter")
    for number, (line, part) in enumerate(zip(lines, parts, strict=True), 1):
        assert line.startswith(f"job {number}: ") and part in line


def test_a_job_s_own_options_are_before_the_run_s():
    first, second = resolved(
        [{"prompt": "-a cat", "steps": 7, "loop": True, "image": "cat.png"}, {"prompt": "b", "negative_prompt": "--steps=9"}],
        "--steps", "3", "--image", "dog.png",
    )
    assert (first.options.steps, first.options.loop, first.options.image) == (7, True, Path("/lists/cat.png"))
    assert (second.options.steps, second.options.loop, second.options.negative_prompt) == (3, False, "--steps=9")
    assert second.options.image == Path("dog.png").absolute() and first.options.prompt == "-a cat"


def test_neither_name_nor_seed_depends_on_the_place_in_the_list():
    listed = [{"prompt": "a red circle"}, {"prompt": "a blue circle"}, {"prompt": "a red circle"}, {"prompt": "a red circle", "seed": 5}]
    jobs = {job.name: job.options.seed for job in resolved(listed, "--seed", "10")}
    assert sorted(jobs.values()) == [5, 10, 10, 11] and len(jobs) == 4
    assert {job.name: job.options.seed for job in resolved(listed[::-1], "--seed", "10")} == jobs


def test_the_digest_follows_all_that_decides_a_clip(tmp_path):
    image = write(tmp_path, "a.png", "one")

    def digest(fields: dict[str, object], *more: str) -> str:
        setup = Setup.of(run_options(*more))
        return digest_of(setup.described(), resolved([fields], *more, folder=tmp_path)[0])

    base = digest({"prompt": "x", "image": "a.png"})
    assert digest({"image": "a.png", "prompt": "x"}) == base == digest({"prompt": "x", "image": str(image), "name": "other"})
    changed = [
        digest({"prompt": "y", "image": "a.png"}), digest({"prompt": "x", "image": "a.png", "seed": 1}),
        digest({"prompt": "x", "image": "a.png"}, "--steps", "3"), digest({"prompt": "x", "image": "a.png"}, "--dtype", "float16"),
        digest({"prompt": "x", "image": "a.png"}, "--crf", "3"),
    ]
    image.write_text("two")
    changed.append(digest({"prompt": "x", "image": "a.png"}))
    assert len({base, *changed}) == 7


@pytest.mark.parametrize(
    "name", ["", ".", "a/b", "a\\b", "a:b", "a?", "a\n", " a", "a.", "con", "LPT1.x", "x" * (LONGEST + 1), "é" * LONGEST]
)
def test_names_that_no_file_has_everywhere(name):
    assert problem(name) is not None


@pytest.mark.parametrize("prompt", ["a red circle", "", "///", "🦢" * 300, "ein schöner Schwan", "白鳥が泳ぐ" * 40, "a\tb\nc", "x" * 5000])
def test_names_of_prompts(prompt):
    name = name_of({"prompt": prompt})
    assert problem(name) is None and name == name_of({"prompt": prompt}) != name_of({"prompt": prompt + "!"})


def test_names_that_are_one_to_some_disks():
    assert check_names(["a", "b"]) == []
    assert len(check_names(["Swan", "swan", "b", "b"])) == 2


def test_groups_share_all_but_text_image_and_seed():
    listed = [
        {"prompt": "a"}, {"prompt": "b", "seed": 4}, {"prompt": "c", "steps": 9}, {"prompt": "d", "image": "x.png"}, {"prompt": "e"},
        {"prompt": "f", "image": "y.png", "end_image": "z.png"},
    ]
    jobs = resolved(listed)
    assert [[job.options.prompt for job in group] for group in grouped(jobs, 2)] == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
    assert [len(group) for group in grouped(jobs, 1)] == [1] * 6


def test_the_suites_names():
    """A row of `cases.md`, section 7: prompts as names."""
    long, odd = "a swan " * 43, 'a "swan"? on/off: fast'
    texts = ["a swan", "a swan", "A Swan", long, odd, "ends in a blank ", "a swan"]
    assert file_names(texts, "evalcrafter") == [f"{number:04}" for number in range(7)]
    names = file_names(texts, "vbench")
    assert [names[0], names[1], names[6]] == ["a swan-0", "a swan-1", "a swan-2"]
    assert check_names(names) == [] and names[2].startswith("a-swan-") and names[2] != "A Swan-0"
    assert all(len(name) < 90 for name in names)


def test_prompts_of_evalcrafter(tmp_path, capsys):
    source, target = write(tmp_path, "prompt700.txt", "a swan\na boat\n"), tmp_path / "jobs.jsonl"
    assert main(["prompts", "evalcrafter", "--file", str(source), "--output", str(target)]) == 0
    assert [json.loads(line) for line in target.read_text().splitlines()] == [
        {"name": "0000", "prompt": "a swan", "seed": 0}, {"name": "0001", "prompt": "a boat", "seed": 0},
    ]
    assert "2 jobs" in capsys.readouterr().out


def test_prompts_of_vbench(tmp_path):
    """Five clips a prompt, and 25 where flickering is measured; each has a seed of its own."""
    entries = [{"prompt_en": "a swan", "dimension": ["color"]}, {"prompt_en": "a still boat", "dimension": ["temporal_flickering"]}]
    source, target = write(tmp_path, "VBench_full_info.json", json.dumps(entries)), tmp_path / "jobs.jsonl"
    assert main(["prompts", "vbench", "--file", str(source), "--output", str(target), "--seed", "7"]) == 0
    jobs = [json.loads(line) for line in target.read_text().splitlines()]
    expected = [(f"a swan-{n}", 7 + n) for n in range(5)] + [(f"a still boat-{n}", 7 + n) for n in range(25)]
    assert [(job["name"], job["seed"]) for job in jobs] == expected


@pytest.mark.parametrize("content", ["{}", "[]", '[{"prompt_en": 5}]', "[" * 50_000])
def test_suites_files_of_another_form(tmp_path, capsys, content):
    (tmp_path / "x.json").write_text(content)
    assert main(["prompts", "vbench", "--file", str(tmp_path / "x.json"), "--output", str(tmp_path / "jobs.jsonl")]) == 1
    assert "is no list of prompts as VBench_full_info.json is" in capsys.readouterr().err
    assert not (tmp_path / "jobs.jsonl").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--clips-at-once", "0"], "--clips-at-once is 0; it must be at least 1"),
        (["--workers", "2"], "are for --engine ray"),
        (["--crf", "99"], "99"),
    ],
)
def test_options_that_can_t_be(tmp_path, capsys, arguments, message):
    jobs = write(tmp_path, "jobs.txt", "a cat\n")
    assert main(["batch", MODEL, str(jobs), "--output", str(tmp_path / "out"), *arguments]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_model_that_isn_t_there_fails_before_the_first_job(tmp_path, capsys):
    jobs = write(tmp_path, "jobs.txt", "a cat\n")
    assert main(["batch", "nothing.ckpt", str(jobs), "--output", str(tmp_path / "out")]) == 1
    assert "nothing.ckpt" in capsys.readouterr().err and not (tmp_path / "out" / "manifest.json").exists()
