"""``vc-core evaluate``, ``compare`` and ``total``, as their user calls them, with the page in a real browser."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from tests.evaluation_clips import DAMAGES, damaged, drawn
from vc_core.__main__ import main
from vc_core.errors import InputError
from vc_core.evaluation import command, comparing
from vc_core.evaluation.evaluator import evaluate
from vc_core.evaluation.measures import chosen
from vc_core.evaluation.prompts import Video, find_videos, read_prompts
from vc_core.evaluation.results import Row, read_rows
from vc_core.evaluation.statistics import paired_difference, rank_correlation
from vc_core.evaluation.tools import make_tools
from vc_core.evaluation.totals import EVALCRAFTER, VBENCH_QUALITY, VBENCH_SEMANTIC, evalcrafter_total, vbench_total
from vc_core.media.video import save_video

#: Milliseconds, for a busy machine.
PATIENCE = 180_000
CHEAP = "temporal_flickering,sharpness,flow_score,warping_error,motion_smoothness,color"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six drawn clips and a list of their prompts, and the same clips with noise beside them."""
    folder = tmp_path_factory.mktemp("videos")
    rows = []
    for number, clip in enumerate(drawn(6)):
        for name, each in (("good", clip), ("noisy", damaged(clip, "noise", 0.5))):
            (folder / name).mkdir(exist_ok=True)
            save_video(each.images().transpose(0, 1), folder / name / f"{number:04}.mp4", 8.0)
        rows.append({"video": f"{number:04}.mp4", "prompt": clip.prompt})
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def evaluated(videos: Path, name: str, output: Path, *more: str) -> list[Row]:
    prompts = ["--prompts", str(videos / "prompts.jsonl")]
    assert main(["evaluate", str(videos / name), *prompts, "--metrics", CHEAP, "--output", str(output), *more]) == 0
    return read_rows(output)


@pytest.fixture(scope="module")
def good(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation of the good clips."""
    folder = tmp_path_factory.mktemp("good")
    evaluated(videos, "good", folder)
    return folder


@pytest.fixture(scope="module")
def noisy(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noisy")
    evaluated(videos, "noisy", folder)
    return folder


def test_evaluate_writes_lines_a_table_and_a_page(videos, good, tmp_path, capsys):
    shutil.copytree(good, tmp_path / "out")
    rows = evaluated(videos, "good", tmp_path / "out")
    assert [row.video for row in rows] == [f"{number:04}.mp4" for number in range(6)]
    assert all(row.prompt == clip.prompt and row.frames == 16 for row, clip in zip(rows, drawn(6), strict=True))
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for row, line in zip(rows, table, strict=True):
        assert {name: float(line[name]) for name in row.values} == row.values
        assert set(row.values) == {
            "color", "temporal_flickering", "warping_error (DIS)", "motion_smoothness (DIS)", "flow_score (DIS)", "sharpness",
        }
    out = capsys.readouterr().out
    mean = np.mean([row.values["sharpness"] for row in rows])
    assert f"Sharpness: {mean:.4g}\n" in out and "total" not in out.lower()


def test_a_stopped_evaluation_goes_on_where_it_was(videos, tmp_path, good, monkeypatch, capsys):
    whole = read_rows(good)
    own, seen = command.measured, []

    def stopping(job, *rest):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(job.video.name)
        return own(job, *rest)

    monkeypatch.setattr(command, "measured", stopping)
    arguments = ["evaluate", str(videos / "good"), "--prompts", str(videos / "prompts.jsonl"), "--metrics", CHEAP]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 130
    with (tmp_path / "out" / "results.jsonl").open("a") as file:
        file.write('{"video": "0003.mp4", "val')  # killed while it wrote
    capsys.readouterr()
    again = []
    monkeypatch.setattr(command, "measured", lambda job, *rest: again.append(job.video.name) or own(job, *rest))
    assert evaluated(videos, "good", tmp_path / "out") == whole
    assert "3 of 6 videos are measured already." in capsys.readouterr().out and again == ["0003.mp4", "0004.mp4", "0005.mp4"]
    # Another prompt, other measures or another file are measured anew.
    assert main([*arguments[:2], "--metrics", "sharpness", "--output", str(tmp_path / "out")]) == 0
    assert len(again) == 9


def test_videos_without_prompts(videos, tmp_path, capsys):
    """Measures that need no text are made; the others say what they need (VBench 7)."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, number in (("Iron_Man.mp4", 0), ("birthday.mp4", 1)):
        shutil.copy(videos / "good" / f"{number:04}.mp4", folder / name)
    assert main(["evaluate", str(folder), "--metrics", CHEAP, "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "Color of plain shapes: not measured; needs a prompt" in out and "Sharpness: " in out
    assert [row.video for row in read_rows(tmp_path / "out")] == ["Iron_Man.mp4", "birthday.mp4"]


def test_the_page_says_which_measures_read_the_prompt(videos, good, tmp_path):
    """Two runs, with right and with wrong prompts: only the marked measures differ (VBench 158)."""
    right = read_rows(good)
    wrong = videos / "wrong.txt"
    wrong.write_text("\n".join(["a white square"] * 3 + ["a white circle"] * 3))
    assert main(["evaluate", str(videos / "good"), "--prompts", str(wrong), "--metrics", CHEAP, "--output", str(tmp_path / "wrong")]) == 0
    pairs = zip(right, read_rows(tmp_path / "wrong"), strict=True)
    assert {name for one, other in pairs for name in one.values if one.values[name] != other.values[name]} == {"color"}
    page = (good / "report.html").read_text()
    lines = [line for line in page.splitlines() if "<td>yes</td>" in line or "<td>no</td>" in line]
    marks = {line.split("</td>")[0].split("<td>")[1]: "<td>yes</td>" in line for line in lines}
    assert marks.pop("Color of plain shapes") and len(marks) == 5 and not any(marks.values())


def test_a_damaged_file_stops_nothing(videos, tmp_path, capsys):
    folder = tmp_path / "some"
    shutil.copytree(videos / "good", folder)
    (folder / "0002.mp4").write_bytes((folder / "0002.mp4").read_bytes()[:200])
    assert main(["evaluate", str(folder), "--metrics", "sharpness", "--output", str(tmp_path / "out")]) == 1
    assert "1 of 6 videos could not be measured" in capsys.readouterr().err
    rows = read_rows(tmp_path / "out")
    assert [row.video for row in rows if row.error] == ["0002.mp4"] and len([row for row in rows if row.values]) == 5
    shutil.copy(videos / "good" / "0002.mp4", folder / "0002.mp4")
    assert main(["evaluate", str(folder), "--metrics", "sharpness", "--output", str(tmp_path / "out")]) == 0


PROMPTS = ["a" * 300, 'say "hi" / what? a:b ', "A Cat", "a cat", "a cat"]


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".txt", ".list"])
def test_prompts_of_all_kinds(tmp_path, suffix):
    """Long ones, with all signs, that differ in case only, and the same twice, stay as they are (VBench 79)."""
    videos = [Video(tmp_path / f"{number:04}.mp4", f"{number:04}.mp4") for number in range(len(PROMPTS))]
    path = tmp_path / f"prompts{suffix}"
    names = [video.name if index % 2 else video.path.stem for index, video in enumerate(videos)]
    if suffix == ".json":
        path.write_text(json.dumps(dict(zip(names, PROMPTS, strict=True))))
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"output": name, "prompt": prompt}) for name, prompt in zip(names, PROMPTS, strict=True)))
    elif suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("video", "prompt"), *zip(names, PROMPTS, strict=True)])
    else:
        path.write_text("\n".join(PROMPTS) + "\n")
    if suffix == ".list":
        with pytest.raises(InputError, match=r"\.txt, \.json, \.jsonl and \.csv are read"):
            read_prompts(path, videos)
        return
    assert list(read_prompts(path, videos).values()) == PROMPTS
    if suffix == ".txt":
        with pytest.raises(InputError, match="5 lines for 4 videos"):
            read_prompts(path, videos[:4])
    else:
        with pytest.raises(InputError, match="names none of the videos"):
            read_prompts(path, [Video(tmp_path / "other.mp4", "other.mp4")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["a"]', "can't be read as prompts"), ('[{"video": "a.mp4"}]', "row 1 lacks prompt"), ('{"a.mp4": 5}', "5 is no text"),
        ("{", "can't be read as prompts"), ("5", "rows with a video and a prompt"), ("[" * 50_000, "can't be read as prompts"),
        ("{}", "has no prompts"),
    ],
)
def test_prompt_files_of_another_form(tmp_path, content, message):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read_prompts(tmp_path / "p.json", [Video(tmp_path / "a.mp4", "a.mp4")])


@pytest.mark.parametrize("line", ["{}", "[]", "null", "[" * 50_000])
def test_lines_that_are_no_results(tmp_path, capsys, line):
    (tmp_path / "results.jsonl").write_text(line)
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 1
    assert "line 1, is no row of results as vc-core evaluate writes them" in capsys.readouterr().err


def test_a_comparison_s_page_is_checked_first(videos, tmp_path, capsys):
    assert main(["compare", "none", "none", "--output", str(tmp_path / "no" / "c.html")]) == 1
    assert "none" not in capsys.readouterr().err.replace(str(tmp_path), "")


def test_videos_of_one_name(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.mp4").write_bytes(b"")
    names = [video.name for video in find_videos([tmp_path / "a", tmp_path / "b", tmp_path / "a" / "x.mp4"])]
    assert names == [str(tmp_path / "a" / "x.mp4"), str(tmp_path / "b" / "x.mp4")]
    with pytest.raises(InputError, match="There are no videos"):
        find_videos([(tmp_path / "c").mkdir() or tmp_path / "c"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{videos}/none"], "There is no video or folder"), (["{videos}", "--metrics", "sharp"], "did you mean sharpness"),
        (["{videos}", "--weights", "dino"], "must be NAME=FILE"), (["{videos}", "--weights", "dino=none"], "There is no file none"),
        (["{videos}", "--prompts", "none.txt"], "There is no file of prompts"), (["{videos}", "--most-frames", "0"], "at least 1"),
        (["{videos}", "--images", "none"], "give a folder"), (["{videos}", "--device", "gpu7"], "gpu7"),
    ],
)
def test_what_can_not_be_evaluated(videos, tmp_path, capsys, arguments, message):
    given = [each.format(videos=videos) for each in arguments]
    assert main(["evaluate", *given, "--output", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


# Comparing


def test_compare_pairs_by_prompt(good, noisy, tmp_path, capsys):
    arguments = ["compare", str(good), str(noisy), "--output", str(tmp_path / "comparison.html")]
    assert main(arguments) == 0
    lines = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")}
    for name in ("Temporal flickering", "Warping error (DIS)", "Motion smoothness (DIS)"):
        assert lines[name][1] == "6" and lines[name][-1].strip(" |") == "A", name
    assert lines["Flow score (DIS)"][-1].strip(" |") == ""  # neither more nor less motion is better
    page = (tmp_path / "comparison.html").read_text()
    assert page.count("data:video/mp4;base64,") == 12


def test_pairs_of_repeated_prompts():
    first = [Row("a", prompt="x"), Row("b", prompt="x"), Row("c", prompt="y"), Row("d"), Row("e", prompt="z", error="damaged")]
    second = [Row("f", prompt="y"), Row("g", prompt="x"), Row("h", prompt="x"), Row("d"), Row("i", prompt="z")]
    assert [(one.video, other.video) for one, other in comparing.paired(first, second)] == [("a", "g"), ("b", "h"), ("c", "f"), ("d", "d")]
    with pytest.raises(InputError, match="no prompt in common"):
        comparing.paired(first[:1], second[:1])


def test_the_bootstrap_is_scipy_s():
    generator = np.random.default_rng(1)
    first = generator.normal(0, 1, 40)
    second = first + generator.normal(0.3, 0.5, 40)
    found = paired_difference(first, second)
    wanted = scipy.stats.bootstrap(
        (second - first,), np.mean, confidence_level=0.95, n_resamples=10_000, method="percentile", random_state=3
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=0.02)
    assert found.mean == pytest.approx((second - first).mean()) and found.clear
    assert paired_difference([1.0], [2.0]).low is None and not paired_difference([1.0], [2.0]).clear


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """Of 200 samples of 60 from a known distribution, about 190; 180 to 198 with all but one chance in a thousand."""
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        found = paired_difference(np.zeros(60), generator.normal(1, 2, 60), seed)
        covered += found.low <= 1 <= found.high
    assert 180 <= covered <= 198


def test_rank_correlation_is_scipy_s():
    generator = np.random.default_rng(0)
    one, other = generator.integers(0, 5, 50), generator.integers(0, 5, 50)
    assert rank_correlation(one, other) == pytest.approx(scipy.stats.spearmanr(one, other).statistic)
    assert np.isnan(rank_correlation([1, 1], [1, 2]))


# Totals


def test_vbench_s_total_by_hand():
    """All dimensions at the top of their range give 1; at the bottom 0; dynamic degree counts half of another."""
    top = {name: high for name, (_, high, _) in {**VBENCH_QUALITY, **VBENCH_SEMANTIC}.items()}
    assert vbench_total(top) == pytest.approx({"quality": 1, "semantic": 1, "total": 1})
    without = vbench_total({**top, "dynamic degree": 0.0})
    assert without == pytest.approx({"quality": 6 / 6.5, "semantic": 1, "total": (4 * 6 / 6.5 + 1) / 5})
    assert vbench_total({name.replace(" ", "_"): value for name, value in top.items()})["total"] == pytest.approx(1)
    for changes, message in (({"scene": 80.0}, "scene is 80"), ({"color": 1.2}, "color is 1.2")):
        with pytest.raises(InputError, match=message):
            vbench_total({**top, **changes})


def test_evalcrafter_s_total_by_hand():
    """With all measures at 0, only biases and what 1 minus the measure leaves count."""
    zero = {name: 0.0 for _, _, table in EVALCRAFTER.values() for name in table}
    found = evalcrafter_total(zero)
    assert found["quality"] == pytest.approx(500 * 0.08707462696457707)
    assert found["temporal"] == pytest.approx(500 * (0.45475678 - 3.42274050899774))
    assert found["motion"] == pytest.approx(500 * 0.1297562020899355)
    assert found["alignment"] == pytest.approx(500 * (0.00372351 + 0.22686202) - 100 * 0.30683181901390977)
    assert evalcrafter_total({**zero, "flow_score": 100.0})["motion"] == pytest.approx(500 * (0.1297562020899355 - 0.10517075))


def test_no_total_of_some_values(tmp_path, capsys):
    (tmp_path / "some.json").write_text(json.dumps({"scene": 0.5, "color": 0.8, "temporal_flickering": 0.9}))
    assert main(["total", "vbench", str(tmp_path / "some.json")]) == 1
    assert "missing are subject consistency" in capsys.readouterr().err
    top = {name: high for name, (_, high, _) in {**VBENCH_QUALITY, **VBENCH_SEMANTIC}.items()}
    (tmp_path / "all.json").write_text(json.dumps(top))
    assert main(["total", "vbench", str(tmp_path / "all.json")]) == 0
    assert "total: 1.0000\nBy the formula of VBench" in capsys.readouterr().out


# The page


def test_the_page_in_a_browser_without_network(videos, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium")
    lines = (videos / "prompts.jsonl").read_text().replace("a ", '<img src=x onerror=\\"document.title=1\\">a ', 1)
    (videos / "hostile.jsonl").write_text(lines)
    arguments = ["evaluate", str(videos / "noisy"), "--prompts", str(videos / "hostile.jsonl"), "--metrics", CHEAP]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    rows = read_rows(tmp_path / "out")
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=PATIENCE)
        context = browser.new_context(viewport={"width": 1280, "height": 2600}, offline=True)  # videos play where they are seen
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url) if not request.url.startswith("data:") else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto((tmp_path / "out" / "report.html").as_uri())
        page.wait_for_function("[...document.querySelectorAll('video')].length == 6")
        page.wait_for_function("[...document.querySelectorAll('video')].every(each => each.currentTime > 0 && each.videoWidth == 64)")
        assert page.title() == "6 videos"
        page.screenshot(path=folder / "report.png", full_page=True)
        column = page.evaluate("[...document.querySelectorAll('#table thead th')].map(each => each.textContent)").index("Sharpness")
        for order in (sorted, lambda values: sorted(values, reverse=True)):
            page.click(f"#table thead th:nth-child({column + 1}) button")
            shown = page.evaluate(f"[...document.querySelectorAll('#table tbody tr')].map(each => +each.cells[{column}].dataset.sort)")
            assert shown == order([row.values["sharpness"] for row in rows])
        page.select_option("#measure", label="Warping error (DIS)")
        names = page.evaluate("[...document.querySelectorAll('.clip .note')].map(each => each.textContent)")
        ranked = [row.video for row in sorted(rows, key=lambda row: row.values["warping_error (DIS)"])]
        assert names == [*ranked[:3], *ranked[:-4:-1]]
        assert requests == [(tmp_path / "out" / "report.html").as_uri()] and errors == []
        browser.close()


# The bundled world

LEVELS = (0.0, 1 / 3, 2 / 3, 1.0)
#: What each damage must do to which measure: raise it (1) or lower it (-1).
TOLD = {
    "shuffle": ("warping_error (DIS)", 1), "noise": ("temporal_flickering", -1), "blur": ("sharpness", -1),
    "hue": ("text_alignment (tiny_i2v)", -1), "freeze": ("flow_score (DIS)", -1), "stutter": ("motion_smoothness (DIS)", -1),
}


@pytest.mark.full
def test_measures_tell_good_clips_from_damaged_ones():
    """Each of six damages moves its measure in its direction for all of 12 clips.

    CORRELATIONS names a file for all measures' rank correlations with the strength, over all clips, and the parts of the clips that a
    damage raises less those that it lowers.
    """
    measures = chosen([
        "text_alignment,color,temporal_consistency,background_consistency,temporal_flickering,warping_error,motion_smoothness,flow_score,"
        "sharpness"
    ])
    tools = make_tools(measures, "videocrafter_tiny_i2v")
    clips = drawn(12)
    good = [evaluate(clip, measures, tools).values for clip in clips]
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for name in DAMAGES:
        values = [good, *([evaluate(damaged(clip, name, level), measures, tools).values for clip in clips] for level in LEVELS[1:])]
        table[name] = {}
        for key in good[0]:
            levels, flat = zip(*[(level, each[key]) for level, row in zip(LEVELS, values, strict=True) for each in row], strict=True)
            signs = [np.sign(after[key] - before[key]) for before, after in zip(good, values[-1], strict=True)]
            table[name][key] = rank_correlation(levels, flat), float(np.mean(signs))
    if target := os.environ.get("CORRELATIONS"):
        Path(target).write_text(json.dumps(table, indent=1))
    assert {name: table[name][key][1] for name, (key, _) in TOLD.items()} == {name: way for name, (_, way) in TOLD.items()}
