"""`make comfyui`: ComfyUI with this pack, for a browser on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import sys

from harness.comfyui import STORE, comfyui_dir
from harness.server import command, prepare_base


def main() -> None:
    port = os.environ.get("PORT") or "8188"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        sys.exit(f"PORT is {port!r}; it must be a number from 1 to 65535.")
    folder, base = comfyui_dir(), STORE / "workspace"
    prepare_base(base, "ComfyUI-VideoCrafter")
    print(f"ComfyUI will be at http://127.0.0.1:{port} in a moment; Ctrl-C ends it.")
    print(f"Checkpoints go into {base / 'models' / 'checkpoints'}, results into {base / 'output'}.", flush=True)
    os.chdir(folder)
    arguments = command(folder, base, int(port))
    os.execv(arguments[0], arguments)


if __name__ == "__main__":
    main()
