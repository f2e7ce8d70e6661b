"""Each published configuration builds exactly the tensors of its published file."""

from __future__ import annotations

import pytest
import torch

from tests import goldens
from vc_core.checkpoint.identify import PREFIXES
from vc_core.config import load_config
from vc_core.models.autoencoder import Autoencoder
from vc_core.models.layers import Layers
from vc_core.models.text_encoder import TextEncoder
from vc_core.models.unet import UNet


@pytest.mark.parametrize("name", goldens.MODELS)
def test_names_and_shapes(name):
    config = load_config(name)
    layers = Layers(device="meta")
    networks: dict[str, torch.nn.Module] = {
        "unet": UNet(config.unet, layers),
        "autoencoder": Autoencoder(config.autoencoder, layers),
        "text_encoder": TextEncoder(config.text_encoder, device="meta"),
    }
    published = goldens.manifest(name)
    for part, prefix in PREFIXES.items():
        ours = {prefix + key: list(value.shape) for key, value in networks[part].state_dict().items()}
        theirs = {key: shape for key, shape in published.items() if key.startswith(prefix)}
        assert len(theirs) > 100 and ours == theirs
