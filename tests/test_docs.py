"""The docs name what is there: links lead somewhere, tables hold what the code holds."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from dev.gallery import page as gallery_page
from dev.models_table import PAGE as MODELS_PAGE
from dev.models_table import table
from dev.workflow_routes import box_of, crossed, curve, input_place, output_place
from harness.comfyui import REPOSITORY
from vc_core.fetch import published_files

PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((REPOSITORY / "docs").rglob("*.md"))
TITLE = 30  # pixels of a node's title, above its position
WORKFLOWS = sorted((REPOSITORY / "workflows").glob("*.json"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_to_files(path: Path):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_the_table_of_models_is_that_of_the_code():
    assert table() in MODELS_PAGE.read_text(encoding="utf-8")  # python -m dev.models_table writes it


def test_the_gallery_shows_all_its_images():
    written = (REPOSITORY / "docs" / "gallery" / "README.md").read_text(encoding="utf-8")
    assert written == gallery_page()  # make gallery writes it
    assert sum(path.stat().st_size for path in (REPOSITORY / "docs" / "gallery").iterdir()) < 1_000_000


def test_the_readme_names_every_workflow():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [path.stem for path in WORKFLOWS if f"`{path.stem}`" not in readme] == []


def test_the_readme_is_short_and_links_to_every_page():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 160
    assert [page.name for page in (REPOSITORY / "docs").glob("*.md") if f"(docs/{page.name})" not in readme] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_names_the_models_it_may_need(path: Path):
    assert path.with_suffix(".jpg").is_file()  # its thumbnail
    nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
    loaders = [node for node in nodes if node["type"] == "VideoCrafterLoader"]
    known = [{"name": file.save_as, "url": file.url, "directory": file.folder} for file in published_files().values()]
    assert loaders and all(node["properties"]["models"] == known for node in loaders)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_lies_in_order(path: Path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    boxes = [
        (node.get("title", node["type"]), left, top - TITLE, left + width, top + height)
        for node in workflow["nodes"]
        for (left, top), (width, height) in [(node["pos"], node["size"])]
    ]
    assert [(one[0], other[0]) for index, one in enumerate(boxes) for other in boxes[index + 1 :] if overlap(one, other)] == []
    groups = [
        (group["title"], left, top, left + width, top + height)
        for group in workflow["groups"]
        for left, top, width, height in [group["bounding"]]
    ]
    assert [(one[0], other[0]) for index, one in enumerate(groups) for other in groups[index + 1 :] if overlap(one, other)] == []
    assert [node for node in workflow["nodes"] if node["type"] == "MarkdownNote"]  # that says what to change
    assert [box[0] for box in boxes for group in groups if overlap(box, group) and not inside(box, group)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_link_runs_behind_a_node(path: Path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    reroutes = {reroute["id"]: reroute for reroute in workflow["extra"].get("reroutes", [])}
    last = {each["id"]: each["parentId"] for each in workflow["extra"].get("linkExtensions", [])}
    for number, source, slot, target, target_slot, _ in workflow["links"]:
        corners, reroute = [], last.get(number)
        while reroute is not None:
            corners.insert(0, tuple(reroutes[reroute]["pos"]))
            reroute = reroutes[reroute].get("parentId")
        way = [output_place(nodes[source], slot), *corners, input_place(nodes[target], target_slot)]
        places = curve(*way) if len(way) == 2 else [place for one, other in pairwise(way) for place in straight(one, other)]
        behind = [node["type"] for node in nodes.values() if crossed(places, [box_of(node)])]
        assert not behind, (path.stem, nodes[source]["type"], nodes[target]["type"], behind)


def straight(one: tuple[float, float], other: tuple[float, float], pieces: int = 20) -> list[tuple[float, float]]:
    """Places on the line between two points."""
    return [tuple(a + (b - a) * index / pieces for a, b in zip(one, other, strict=True)) for index in range(pieces + 1)]


def overlap(one: tuple, other: tuple) -> bool:
    """Whether two boxes (name, left, top, right, bottom) share any place."""
    return one[1] < other[3] and other[1] < one[3] and one[2] < other[4] and other[2] < one[4]


def inside(box: tuple, group: tuple) -> bool:
    """Whether a box lies wholly in a group's."""
    return group[1] <= box[1] and group[2] <= box[2] and box[3] <= group[3] and box[4] <= group[4]
