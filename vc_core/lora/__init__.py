"""LoRA files of every layout: read, matched with a model's layers, merged into its weights, and written.

>>> from vc_core.lora import open_lora
>>> lora = open_lora("style.safetensors").match(unet_shapes)
>>> print("\\n".join(lora.report()))
style.safetensors: 90 of 90 layers, rank 16
alpha 8: VADER's, whose files don't tell it
"""

from .files import LoraFile, open_lora
from .layer import Layer
from .lora import Lora
from .merging import LoraSetting, with_loras
from .writing import save_lora

__all__ = ["Layer", "Lora", "LoraFile", "LoraSetting", "open_lora", "save_lora", "with_loras"]
