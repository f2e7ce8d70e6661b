"""Processes that torchrun starts, one a GPU, and how they share work."""
