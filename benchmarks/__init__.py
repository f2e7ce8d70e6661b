"""What the models cost: seconds, memory and arithmetic, measured in one run by ``python -m benchmarks``."""
