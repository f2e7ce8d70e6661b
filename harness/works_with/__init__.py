"""What works with our MODEL: a table of ComfyUI's nodes and features, each with a graph and an assertion on its results.

A row is a function that builds its graph on a :class:`~harness.bench.Bench` and returns the assertion; each module beside this
one enters the rows of a group. Tests that are no such row are listed in ``CLAIMS``. ``tests/comfyui`` runs both;
``python -m dev.works_with`` writes ``docs/works_with.md`` from them.
"""

from . import batches, conditioning, length, lora, samplers, watching
from .controls import CLAIMS as CONTROL_CLAIMS
from .length import CLAIMS as LENGTH_CLAIMS
from .patches import CLAIMS as PATCH_CLAIMS
from .table import ROWS, Claims

CLAIMS: Claims = CONTROL_CLAIMS | PATCH_CLAIMS | LENGTH_CLAIMS

__all__ = ["CLAIMS", "ROWS", "batches", "conditioning", "length", "lora", "samplers", "watching"]
