"""Each published configuration builds exactly the tensors of its published file."""

from __future__ import annotations

import pytest

from harness import goldens
from vc_core.config import load_config
from vc_core.family.model_file import meta_networks
from vc_core.family.parts import PARTS


@pytest.mark.parametrize("name", goldens.MODELS)
def test_names_and_shapes(name):
    networks = meta_networks(load_config(name))
    published = goldens.manifest(name)
    assert ("projector" in networks) == (name not in goldens.TEXT_TO_VIDEO)
    for part, network in networks.items():
        prefix = PARTS[part].prefix
        ours = {prefix + key: list(value.shape) for key, value in network.state_dict().items()}
        theirs = {key: shape for key, shape in published.items() if key.startswith(prefix)}
        assert theirs and ours == theirs
