"""Faster float32 layers for processors; nothing in ``models`` imports them."""
