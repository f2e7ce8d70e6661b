"""What works with our MODEL: a table of ComfyUI's nodes and features, each with a graph and an assertion on what comes out of it.

A row is a function that builds its graph on a :class:`~.bench.Bench` and returns the assertion; each module beside this one
enters the rows of a group. ``test_works_with.py`` runs them; ``python -m dev.works_with`` writes ``docs/works_with.md`` from them.
"""

from . import batches, conditioning, length, lora, samplers, watching

__all__ = ["batches", "conditioning", "length", "lora", "samplers", "watching"]
