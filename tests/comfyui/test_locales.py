"""What the nodes say of themselves: complete, in every language, and on a help page each."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dev.locales import ENGLISH, keys, languages, node_texts, our_nodes, read
from harness.comfyui import REPOSITORY
from harness.graph import ObjectInfo, input_specs, options_of
from harness.server import Server

from .conftest import PACK_NAME

HELP = REPOSITORY / "web" / "docs"


@pytest.fixture(scope="module")
def nodes(object_info: ObjectInfo) -> ObjectInfo:
    return our_nodes(object_info, PACK_NAME)


def test_every_node_describes_itself_and_all_that_goes_in_and_out(nodes: ObjectInfo):
    assert len(nodes) >= 15
    for name, info in nodes.items():
        assert info["description"].endswith("."), name
        for input_name, spec in input_specs(info):
            assert options_of(spec).get("tooltip", "").endswith("."), f"{name}.{input_name}"
            if spec[0] in ("INT", "FLOAT"):
                assert {"default", "min", "max"} <= set(options_of(spec)), f"{name}.{input_name}"
        for output, tooltip in zip(info["output_name"], info["output_tooltips"] or [], strict=True):
            assert tooltip and tooltip.endswith("."), f"{name}: {output}"
        if "search_aliases" in info:  # came after the oldest release
            assert "videocrafter" in info["search_aliases"], name


def test_the_page_of_nodes_lists_them_all(nodes: ObjectInfo):
    page = (REPOSITORY / "docs" / "nodes.md").read_text(encoding="utf-8")
    assert [info["display_name"] for info in nodes.values() if info["display_name"] not in page] == []


def test_english_is_what_the_nodes_say(nodes: ObjectInfo):
    assert read(ENGLISH) == {name: node_texts(info) for name, info in nodes.items()}  # python -m dev.locales writes it


@pytest.mark.parametrize("language", [language for language in languages() if language != ENGLISH])
def test_a_language_is_complete_and_has_nothing_stale(nodes: ObjectInfo, language: str):
    texts = read(language)
    assert keys(texts) == keys({name: node_texts(info) for name, info in nodes.items()})
    assert all(text.strip() for text in flat(texts))


@pytest.mark.parametrize("language", languages())
def test_no_text_has_marks_that_the_interface_takes_for_its_own(language: str):
    assert not [text for text in flat(read(language)) if re.search(r"[{}|@]", text)]  # of its message format


def test_chinese_is_chinese():
    texts = read("zh")
    tooltips = [part["tooltip"] for node in texts.values() for group in ("inputs", "outputs") for part in node.get(group, {}).values()]
    assert all(re.search("[\u4e00-\u9fff]", text) for text in tooltips + [node["description"] for node in texts.values()])


def test_the_server_hands_the_texts_out(comfyui: Server):
    served = comfyui.get("/i18n")
    for language in languages():
        assert served[language]["nodeDefs"].items() >= read(language).items()


def test_every_node_has_a_help_page_that_names_its_inputs_and_outputs(nodes: ObjectInfo):
    assert {path.stem for path in HELP.glob("*.md")} == set(nodes)
    for name, info in nodes.items():
        page = (HELP / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {info['display_name']}\n")
        assert "## When to use it" in page and "## Common errors" in page, name
        inputs, _, outputs = page.partition("## Outputs")
        assert sorted(bold(inputs.partition("## Inputs")[2])) == sorted(input_name for input_name, _ in input_specs(info)), name
        assert sorted(bold(outputs.partition("\n## ")[0])) == sorted(info["output_name"]), name


def test_help_pages_show_images_that_exist():
    shown = {name for path in HELP.glob("*.md") for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", path.read_text(encoding="utf-8"))}
    images = {path.name: path.stat().st_size for path in HELP.iterdir() if path.suffix != ".md"}
    assert set(images) == shown
    assert sum(images.values()) < 100_000  # bytes: they come with every installation


def bold(text: str) -> list[str]:
    """What stands in bold in the first column of a page's table."""
    return [name for line in text.splitlines() if line.startswith("| **") for name in re.findall(r"\*\*(\w+)\*\*", line.split("|")[1])]


def flat(texts: dict[str, Any]) -> list[str]:
    """All texts, wherever they stand."""
    return [text for value in texts.values() for text in (flat(value) if isinstance(value, dict) else [value])]
