"""LoRA files: layers and their pairs of low-rank matrices."""
