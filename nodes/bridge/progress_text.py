"""Text that a node shows on the canvas after it has run."""

from __future__ import annotations

from comfy_api.latest import io
from server import PromptServer


def show(node: type[io.ComfyNode], text: str) -> None:
    """Show a text in the node that is being run; its schema must have ``io.Hidden.unique_id``.

    The interface shows ``ui`` text only in its own text nodes.
    """
    PromptServer.instance.send_progress_text(text, node.hidden.unique_id)
