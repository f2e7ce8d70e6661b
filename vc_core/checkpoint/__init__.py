"""Checkpoint files: read safely and lazily, and converted."""

from .convert import ConvertReport, convert
from .errors import CheckpointError
from .reading import Checkpoint, open_checkpoint

__all__ = ["Checkpoint", "CheckpointError", "ConvertReport", "convert", "open_checkpoint"]
