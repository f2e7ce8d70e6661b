"""Faster float32 layers for CPUs, handed to the networks as their operations. Nothing in ``models`` imports them."""
