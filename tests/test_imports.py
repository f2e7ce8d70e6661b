"""The core stands alone: it imports nothing of ComfyUI's, and itself by relative names only, so that it runs under any folder's name."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "vc_core").rglob("*.py"))
#: ComfyUI's own top-level modules, and ours that know it.
COMFYUI = {
    "comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "latent_preview", "node_helpers", "nodes",
    "server",
}


def imported(path: Path) -> set[str]:
    """The top-level modules that a file imports by absolute names, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_of_the_core_imports_comfyui_or_itself_by_name(path):
    assert not imported(path) & (COMFYUI | {"vc_core"})


def test_the_nodes_do_import_it():
    """Or the scan above would find nothing anywhere."""
    assert "comfy" in imported(ROOT / "nodes" / "bridge" / "model.py")


def test_no_module_of_comfyui_is_loaded_with_the_core():
    code = f"import sys, vc_core, vc_core.pipeline; print({COMFYUI!r} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip() == "set()"
