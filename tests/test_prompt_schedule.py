"""Prompts over time: what is read, which frame has which text, how texts are mixed, and videos of it."""

from __future__ import annotations

import pytest
import torch

import vc_core
from vc_core.__main__ import main
from vc_core.errors import InputError
from vc_core.models.conditioning import Conditioning
from vc_core.prompt_schedule import Mix, encode_prompt, read_schedule

LONG = " ".join(["dark cold road with dead trees"] * 15)


def shown(text: str, frames: int = 16, **options: str) -> str:
    """A letter for each frame: the last of the text's first word, or a dot where two are mixed."""
    schedule = read_schedule(text, **options)
    return "".join("." if mix.share else schedule.texts[mix.first].split()[0][-1] for mix in schedule.mixes(frames))


@pytest.mark.parametrize(
    "text, expected",
    [
        ('"0": "a", "16": "b"', "a..............."),  # a goal beyond the end
        ('"0": "a", "15": "b"', "a..............b"),
        ('"0": "a", "-1": "b"', "a..............b"),
        ('"0": "a", "1.0": "b"', "a..............b"),
        ('"0": "a", "1": "b"', "abbbbbbbbbbbbbbb"),
        ('"0": "a", "0.5": "b"', "a.......bbbbbbbb"),
        ('"0:4": "a", "8": "b"', "aaaa....bbbbbbbb"),
        ('"0:-5": "a", "14": "b"', "aaaaaaaaaaa...bb"),
        ('"2:0.5": "a", "12": "b"', "aaaaaaaa....bbbb"),
        ('"0:12": "a", "4": "b", "6": "c"', "aaaab.cccccccccc"),  # a range ends where the next text starts
        ('"0:": "a", "8:": "b"', "aaaaaaaabbbbbbbb"),
        ('"0:": "a", "40:": "b", "80:": "c"', "a" * 16),
        ('"5": "a"', "a" * 16),
        ('"8": "b", "0": "a"', "a.......bbbbbbbb"),
        ('"0": "c", "0": "a", "8": "b"', "a.......bbbbbbbb"),
        ('"max_f-8": "b", "0": "a", "max_f/4:": "c"', "a...ccccbbbbbbbb"),
    ],
)
def test_which_frame_has_which_text(text, expected):
    assert shown(text) == expected


def test_a_single_frame():
    assert shown('"0:": "a", "40:": "b"', 1) == "a" and shown('"0": "a", "1.0": "b"', 1) == "b"


@pytest.mark.parametrize(
    "text",
    [
        '"0": "a cat", "16": "a dog"', '{"0": "a cat", "16": "a dog"}', '{"0": "a cat", "16": "a dog",}', '0: "a cat", 16: "a dog"',
        "“0”: “a cat”, “16”: “a dog”", '0 = "a cat"\n16 = "a dog"', '"0" :"a cat",\n\n"16" :"a dog"',
        '\\"0\\": \\"a cat\\", \\"16\\": \\"a dog\\"',
    ],
)  # fmt: skip
def test_ways_of_writing(text):
    schedule = read_schedule(text)
    assert schedule.texts == ("a cat", "a dog")
    assert schedule.mixes(17)[8] == Mix(0, 1, 0.5) and schedule.mixes(17)[16].first == 1


def test_control_characters_and_escapes():
    texts = read_schedule('"0": "a cat,\nsitting", "8": "a\tdog", "9": "a \\"big\\" \\\\ dog", "10": "emoji 🐈 猫"').texts
    assert texts == ("a cat, sitting", "a dog", 'a "big" \\ dog', "emoji 🐈 猫")


def test_a_text_before_and_after_all():
    schedule = read_schedule('"0": "a cat, ", "8": ""', before="photo, ", after=" 4k")
    assert schedule.texts == ("photo, a cat, 4k", "photo, 4k")


@pytest.mark.parametrize(
    "text, parts",
    [
        ('"0": "a cat",\n"8" "a dog"', ("line 2, column 5", "colon is missing", '"8" "a dog"')),
        ('"0": "a cat', ("line 1, column 6", "no end")),
        ('"0": a cat', ("text in quotes is missing",)),
        ('"x": "a"', ("'x' is no key", "0:12", "max_f")),
        ('"0:x": "a"', ("'0:x' is no key",)),
        ('":4": "a"', ("is no key",)),
        ("", ("there is no key",)),
        ('{"0": "a"} and', ("after the closing brace",)),
        ('"0": "(smiling:`0.5+0.5*sin(t/12)`)"', ("backticks are not evaluated",)),
        ('"0": "a",' * 3000, ("more than 2000 keys",)),
        ("x" * 300_000, ("300000 characters",)),
    ],
)
def test_what_can_t_be_read(text, parts):
    with pytest.raises(InputError) as error:
        read_schedule(text)
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ('"-20": "a"', "before the first of 16"), ('"2.5": "a"', "0.0 to 1.0"), ('"8:4": "a"', "is empty"),
        ('"max_f/0": "a"', "before the first"),
    ],
)
def test_keys_that_no_video_has(text, message):
    with pytest.raises(InputError, match=message):
        read_schedule(text).mixes(16)


def test_an_unknown_interpolation():
    with pytest.raises(InputError, match="linear, slerp, ease, none"):
        read_schedule('"0": "a"', interpolation="cubic")


def test_how_texts_are_mixed():
    one, other = torch.tensor([[2.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 4.0], [1.0, 1.0]])
    expected = {"linear": [1.0, 2.0], "ease": [1.0, 2.0], "slerp": [3 * 0.5**0.5, 3 * 0.5**0.5], "none": [2.0, 0.0]}
    for interpolation, middle in expected.items():
        mixed = read_schedule('"0": "a", "4": "b"', interpolation=interpolation).mixed([one, other], 5)
        assert torch.allclose(mixed[2], torch.tensor([middle, [1.0, 1.0]]), atol=1e-6)
        assert torch.equal(mixed[0], one) and torch.equal(mixed[4], other)
    eased = read_schedule('"0": "a", "4": "b"', interpolation="ease").mixed([one, other], 5)
    assert torch.allclose(eased[1, 0], torch.tensor([27 / 16, 0.625]))


@pytest.fixture(scope="module")
def model():
    return vc_core.load("videocrafter_tiny_t2v")


def test_texts_of_one_and_of_two_blocks(model):
    """A frame that isn't mixed has the short prompt's tokens, repeated; the UNet's result is that of the prompt alone."""
    schedule = read_schedule(f'"0:2": "a girl", "2": "{LONG}", "3": "a girl"')
    tokens = encode_prompt(model.encode_text, schedule, 1, 4)
    alone = model.encode_text(["a girl"])[0]
    assert tokens.shape[1:3] == (4, 154)
    assert torch.equal(tokens[0, 0], alone.repeat(2, 1)) and torch.equal(tokens[0, 2], model.encode_text([LONG])[0])
    x = torch.randn(1, 4, 4, 8, 8, generator=torch.manual_seed(0))
    with torch.inference_mode():
        of_frames = model.unet(x, torch.tensor([500]), Conditioning(alone.repeat(2, 1).expand(1, 4, -1, -1)))
        of_video = model.unet(x, torch.tensor([500]), Conditioning(alone[None]))
    assert (of_frames - of_video).abs().max() <= 1e-5


def test_a_schedule_of_one_text_is_the_prompt(model):
    settings = {"steps": 2, "frames": 3, "seed": 5}
    videos = [model.text_to_video(prompt, **settings) for prompt in ("a red circle", read_schedule('"0": "a red circle"'))]
    other = model.text_to_video(read_schedule('"0": "a red circle", "1": "a blue square"'), **settings)
    assert (videos[0] - videos[1]).abs().max() <= 1e-4 and (other - videos[0]).abs().max() > 0.01


def test_a_schedule_for_a_batch(model):
    schedule = read_schedule('"0": "a red circle", "2": "a blue square"')
    tokens = encode_prompt(model.encode_text, schedule, 3, 4)
    assert tokens.shape[:2] == (3, 4) and torch.equal(tokens[0], tokens[2]) and not torch.equal(tokens[0, 0], tokens[0, 2])


def test_the_command_line(tmp_path, capsys):
    given = ["generate", "videocrafter_tiny_t2v", "a video of", "--steps", "1", "--frames", "2", "--output", str(tmp_path / "a.gif")]
    assert main([*given, "--prompt-schedule", '"0": "a red circle", "-1": "a blue square"']) == 0 and (tmp_path / "a.gif").is_file()
    assert main([*given, "--prompt-schedule", '"0" "a"']) != 0
    assert "line 1, column 5" in capsys.readouterr().err
    assert main([*given, "--prompt-interpolation", "ease"]) != 0
    assert "give --prompt-schedule" in capsys.readouterr().err
    assert main([*given, "--prompt-schedule", '"-9": "a"']) != 0
    assert "before the first of 2 frames" in capsys.readouterr().err
