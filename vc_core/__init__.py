"""The VideoCrafter family of video diffusion models, standing alone: torch in, torch out.

>>> import vc_core
>>> model = vc_core.load("model.ckpt")
>>> video = model.text_to_video("a black swan swims on the pond")  # [1, 3, 16, 320, 512] in [-1, 1]
"""

from .family.bundled import bundled_models
from .loading import load
from .lora.merging import LoraSetting
from .models.conditioning import Conditioning
from .pipeline import VideoModel
from .sampling import Sampling

__all__ = ["Conditioning", "LoraSetting", "Sampling", "VideoModel", "bundled_models", "load"]
