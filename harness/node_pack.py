"""The pack's node classes in this process, without a server: for calling one thousands of times, or in several processes at once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from .comfyui import REPOSITORY, comfyui_dir

NAME = "pack"


def import_pack(output: Path) -> ModuleType:
    """Import the pack as ComfyUI does, which saves into ``output`` then, and previews beside it.

    Call it once a process, which should be a process of its own: ComfyUI's modules have names such as ``nodes`` and ``utils``.
    """
    sys.argv = ["main.py", "--cpu"]  # ComfyUI reads them when it is imported
    sys.path.insert(0, str(comfyui_dir()))
    sys.modules.pop("nodes", None)
    import comfy.options

    comfy.options.enable_args_parsing()
    import folder_paths
    import utils.extra_config  # noqa: F401 first, as main.py does: older releases put a folder with another utils in front

    folder_paths.set_output_directory(str(output))
    folder_paths.set_temp_directory(str(output.with_name(f"{output.name}_temp")))
    spec = importlib.util.spec_from_file_location(NAME, REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


def run(node: str, extra_pnginfo: Any = None, prompt: Any = None, **inputs: Any) -> Any:
    """Execute an imported node's class with hidden inputs, as ComfyUI would, but without checking the inputs first."""
    classes = {name: each for name, each in vars(sys.modules[f"{NAME}.nodes"]).items() if name == node}
    hidden = SimpleNamespace(extra_pnginfo=extra_pnginfo, prompt=prompt, unique_id="1")
    return type(node, (classes[node],), {"hidden": hidden}).execute(**inputs)
