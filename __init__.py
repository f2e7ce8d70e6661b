"""VideoCrafter for ComfyUI: the node pack's door. The nodes are in ``nodes``, the models and their maths in ``vc_core``."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
