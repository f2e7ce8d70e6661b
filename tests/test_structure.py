"""The order of the packages and the size of what is in them, read from the source of every Python file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: What each package may import of the others.
BELOW = {
    "vc_core": set(),
    "nodes": {"vc_core"},
    "tiny_world": {"vc_core"},
    "harness": {"vc_core"},
    "benchmarks": {"vc_core", "harness"},
    "dev": {"vc_core", "harness"},
    "tests": {"vc_core", "tiny_world", "harness", "benchmarks", "dev"},
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in BELOW
    for path in sorted((ROOT / package).rglob("*.py"))
}
MAX_LINES_OF_FILE, MAX_LINES_OF_FUNCTION, MAX_COMPLEXITY = 400, 60, 14
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.match_case, ast.IfExp, ast.comprehension)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imports(module: str, source: ast.Module, is_package: bool) -> Iterator[str]:
    """The full names of what a module imports anywhere in it, but for what only a type checker sees."""
    nodes: list[ast.AST] = [source]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            base = parts[: len(parts) - node.level + is_package] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)
        nodes.extend(ast.iter_child_nodes(node))


def module_of(name: str) -> str | None:
    """The module of ours that an imported name is or is in; None for what is not ours."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name or None


@cache
def graph() -> dict[str, set[str]]:
    """The modules of ours that each module imports."""
    found = {}
    for module, path in FILES.items():
        names = imports(module, tree(module), path.name == "__init__.py")
        found[module] = {target for name in names if (target := module_of(name)) and target != module}
    return found


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """The modules of a cycle, in order; empty where there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module not in done:
            for target in sorted(edges.get(module, ())):
                if found := visit(target, [*path, module]):
                    return found
            done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := visit(module, []))), [])


def functions(module: str) -> Iterator[tuple[str, Function]]:
    """Every function of a module, methods and nested ones too, with its name and line."""
    for node in ast.walk(tree(module)):
        if isinstance(node, Function):
            yield f"{module}:{node.lineno} {node.name}", node


def complexity(function: Function) -> int:
    """1, and 1 for each branch, comprehension and further operand of `and` or `or`; nested functions are part of it."""
    total = 1
    for node in ast.walk(function):
        total += isinstance(node, BRANCHES)
        if isinstance(node, ast.BoolOp):
            total += len(node.values) - 1
    return total


def test_nothing_imports_in_a_circle():
    """Imports that only a type checker sees count too, unless they stand under TYPE_CHECKING."""
    assert cycle(graph()) == []


def test_nothing_imports_upwards():
    wrong = []
    for module, targets in graph().items():
        package = module.split(".")[0]
        wrong += [f"{module} imports {target}" for target in targets if target.split(".")[0] not in BELOW[package] | {package}]
    assert wrong == []


def test_the_networks_import_no_kernels():
    edges = graph()
    wrong = [(module, target) for module in edges if module.startswith("vc_core.models") for target in edges[module]]
    assert [pair for pair in wrong if pair[1].startswith("vc_core.kernels")] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import vc_core.config", {"vc_core.config"}),
        ("from vc_core import config, load", {"vc_core.config", "vc_core"}),
        ("from ..config import load_config", {"vc_core.config"}),
        ("from . import unet", {"vc_core.models.unet"}),
        ("def f():\n    from .unet import UNet", {"vc_core.models.unet"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .unet import UNet", set()),
        ("import torch\nfrom os.path import join", set()),
    ],
)
def test_the_walk_sees_imports(source, expected):
    """Or the tests above would find nothing anywhere."""
    names = imports("vc_core.models.attention", ast.parse(source), is_package=False)
    assert {module for name in names if (module := module_of(name))} == expected


def test_the_walk_sees_cycles():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_complexity_by_hand():
    source = """
def function(a, b):
    for each in a:                              # 1
        if each and b or not a:                 # 1, and 2 operands
            yield [x for x in each if x]        # 1
    try:
        assert a                                # 1
    except ValueError:                          # 1
        b = 1 if a else 2                       # 1
    match b:
        case 1:                                 # 1
            pass
    def nested():
        while a:                                # 1
            pass
"""
    assert complexity(ast.parse(source).body[0]) == 1 + 10


@pytest.mark.parametrize("package", BELOW)
def test_no_file_is_long(package):
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in FILES.items()}
    assert {module: n for module, n in lines.items() if module.split(".")[0] == package and n > MAX_LINES_OF_FILE} == {}


@pytest.mark.parametrize("package", ["vc_core", "nodes"])
def test_no_function_is_long_or_branches_much(package):
    wrong = []
    for module in FILES:
        if module.split(".")[0] == package:
            for name, function in functions(module):
                lines = function.end_lineno - function.lineno + 1
                if lines > MAX_LINES_OF_FUNCTION or complexity(function) > MAX_COMPLEXITY:
                    wrong.append(f"{name}: {lines} lines, complexity {complexity(function)}")
    assert wrong == []
