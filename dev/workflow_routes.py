"""Leads the links of a workflow around its nodes: where a straight link would run behind a node, it gets points to pass (reroutes).

The points are corners of the shortest way over a grid between the nodes' boxes; bends and places that another link takes cost extra.
The interface draws curves through them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

CELL = 20  # pixels of the grid
MARGIN = 12  # pixels that a way keeps from a node's box
GROUP_TITLE_HEIGHT = 30
TITLE_HEIGHT, SLOT_HEIGHT, WIDGET_HEIGHT, TEXT_HEIGHT = 30, 20, 24, 100
LEAD = 2  # cells that a link goes straight out of a node and into one
BEND, SHARED = 4, 6  # what a bend and a place on another link's way cost, in cells

Point = tuple[float, float]
Cell = tuple[int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Step = tuple[int, int]
STEPS: tuple[Step, ...] = ((1, 0), (0, 1), (0, -1), (-1, 0))


def add_routes(graph: dict[str, Any]) -> None:
    """Give the links of a graph the reroutes that they need. The graph has ``nodes`` and ``links``, as the interface saves them."""
    boxes = {node["id"]: box_of(node) for node in graph["nodes"]}
    titles = [title_of(group) for group in graph["groups"]]
    nodes = {node["id"]: node for node in graph["nodes"]}
    taken: dict[Cell, int] = {}
    reroutes: list[dict[str, Any]] = []
    extensions: list[dict[str, int]] = []
    for link in graph["links"]:
        number, source, source_slot, target, target_slot = link[:5]
        start, end = output_place(nodes[source], source_slot), input_place(nodes[target], target_slot)
        if not crossed(curve(start, end), [box for node, box in boxes.items() if node not in (source, target)]) and start[0] < end[0]:
            continue
        corners = _way(start, end, [*boxes.values(), *titles], taken, source)
        parent = None
        for corner in corners:
            reroute = {"id": len(reroutes) + 1, "pos": list(corner), "linkIds": [number]}
            reroutes.append(reroute if parent is None else {**reroute, "parentId": parent})
            parent = len(reroutes)
        if parent:
            extensions.append({"id": number, "parentId": parent})
    if reroutes:
        graph["extra"] |= {"reroutes": reroutes, "linkExtensions": extensions}


def box_of(node: dict[str, Any]) -> Box:
    """A node's box with its title."""
    (left, top), (width, height) = node["pos"], node["size"]
    return left, top - TITLE_HEIGHT, left + width, top + height


def title_of(group: dict[str, Any]) -> Box:
    """The box of a group's title, less the margin, so that links pass between two groups."""
    left, top, width, _ = group["bounding"]
    return left + MARGIN, top + MARGIN, left + width - MARGIN, top + GROUP_TITLE_HEIGHT - MARGIN


def output_place(node: dict[str, Any], slot: int) -> Point:
    """Where a link leaves a node."""
    return node["pos"][0] + node["size"][0], node["pos"][1] + (slot + 0.7) * SLOT_HEIGHT


def input_place(node: dict[str, Any], slot: int) -> Point:
    """Where a link enters a node: at a plain input, or at a widget."""
    inputs = node["inputs"]
    if "widget" not in inputs[slot]:
        return node["pos"][0], node["pos"][1] + (slot + 0.7) * SLOT_HEIGHT
    plain = sum("widget" not in socket for socket in inputs)
    above = SLOT_HEIGHT * max(plain, len(node["outputs"])) + WIDGET_HEIGHT * (slot - plain + 0.7)
    return node["pos"][0], node["pos"][1] + above


def curve(start: Point, end: Point, pieces: int = 24) -> list[Point]:
    """Places along a link as the interface draws it: a curve that leaves and enters horizontally."""
    reach = 0.25 * ((end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2) ** 0.5
    first, second = (start[0] + reach, start[1]), (end[0] - reach, end[1])
    points = []
    for index in range(pieces + 1):
        t = index / pieces
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        points.append(tuple(sum(w * p[axis] for w, p in zip(weights, (start, first, second, end), strict=True)) for axis in (0, 1)))
    return points  # type: ignore[return-value]


def crossed(points: list[Point], boxes: list[Box]) -> bool:
    """Whether one of the places lies in one of the boxes."""
    return any(left < x < right and top < y < bottom for x, y in points for left, top, right, bottom in boxes)


def _way(start: Point, end: Point, boxes: list[Box], taken: dict[Cell, int], source: int) -> list[Point]:
    """The corners of the best way from an output to an input; marks its cells as taken by the source node's links."""
    first, last = (round(start[0] / CELL) + LEAD, round(start[1] / CELL)), (round(end[0] / CELL) - LEAD, round(end[1] / CELL))
    blocked = _blocked(boxes) - {first, last}
    cells = _search(first, last, blocked, taken, source)
    for cell in cells:
        taken.setdefault(cell, source)
    corners = [here for before, here, after in zip(cells, cells[1:], cells[2:], strict=False) if _turns(before, here, after)]
    ends = [first] if start[0] + LEAD * CELL * 2 > end[0] and not corners else []
    return [(x * CELL, y * CELL) for x, y in ends + corners]


def _turns(before: Cell, here: Cell, after: Cell) -> bool:
    return (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1])


def _blocked(boxes: list[Box]) -> set[Cell]:
    def cells(low: float, high: float) -> range:
        return range(int(-(-(low - MARGIN) // CELL)), int((high + MARGIN) // CELL) + 1)

    return {(x, y) for left, top, right, bottom in boxes for x in cells(left, right) for y in cells(top, bottom)}


def _search(first: Cell, last: Cell, blocked: set[Cell], taken: dict[Cell, int], source: int) -> list[Cell]:
    """Dijkstra's algorithm over pairs of a cell and the direction in which it was reached; it starts and ends to the right."""
    limit_x, limit_y = [sorted(axis) for axis in zip(*blocked, first, last, strict=True)]
    inside_x, inside_y = range(limit_x[0] - 4, limit_x[-1] + 5), range(limit_y[0] - 4, limit_y[-1] + 5)
    queue: list[tuple[float, Cell, Step]] = [(0.0, first, STEPS[0])]
    reached: dict[tuple[Cell, Step], tuple[float, tuple[Cell, Step] | None]] = {(first, STEPS[0]): (0.0, None)}
    while queue:
        cost, cell, step = heapq.heappop(queue)
        if cell == last and step == STEPS[0]:
            return list(_back(reached, (cell, step)))[::-1]
        if cost > reached[cell, step][0]:
            continue
        for turn in STEPS:
            there = (cell[0] + turn[0], cell[1] + turn[1])
            if turn == (-step[0], -step[1]) or there in blocked or there[0] not in inside_x or there[1] not in inside_y:
                continue
            total = cost + 1 + BEND * (turn != step) + SHARED * (taken.get(there, source) != source)
            if total < reached.get((there, turn), (float("inf"), None))[0]:
                reached[there, turn] = (total, (cell, step))
                heapq.heappush(queue, (total, there, turn))
    raise ValueError(f"There is no way for a link from {first} to {last} between the nodes.")


def _back(reached: dict[tuple[Cell, Step], tuple[float, tuple[Cell, Step] | None]], state: tuple[Cell, Step] | None) -> Iterator[Cell]:
    while state is not None:
        yield state[0]
        state = reached[state][1]
