"""What a GPU computes, how fast, and why: ``python -m benchmarks.gpu``."""
