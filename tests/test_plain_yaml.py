"""Configurations of strangers are read as plain data: nothing in them is resolved, constructed or expanded."""

from __future__ import annotations

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from vc_core import plain_yaml
from vc_core.config import ModelConfig, from_yaml, load_config, published, to_yaml
from vc_core.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:register_new_resolver")  # its successor is not in older releases
REFUSED = {
    "reference": 'title: "${oc.env:HOME}"',
    "escaped reference": 'title: "\\x24{oc.env:HOME}"',
    "reference in a name": '"${oc.env:HOME}": 1',
    "reference to a resolver": 'title: "\\u0024{trap:1}"',
    "anchor": "unet: &a {in_channels: 4}",
    "alias": "a: &a [1]\nb: *a",
    "merge": "a: &a {b: 1}\nc: {<<: *a}",
    "tag": "title: !!python/object/apply:os.system [echo]",
    "own tag": "title: !trap 1",
    "binary": "title: !!binary aGVsbG8=",
    "date": "title: 2026-01-01",
    "list": "- 1",
    "text": "hello",
    "no YAML": "a: [1",
    "number as a name": "1: 2",
    "deep": "a: " + "[" * 4000 + "]" * 4000,
    "levels": "a: " + "[" * 30 + "]" * 30,
}


@pytest.fixture(autouse=True)
def trap():
    """A resolver that must not run."""
    OmegaConf.register_new_resolver("trap", lambda *_: pytest.fail("a reference was resolved"), replace=True)
    yield
    OmegaConf.clear_resolver("trap")


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_plain_data_is_refused_at_every_door(kind, tmp_path):
    with pytest.raises(ConfigError):
        plain_yaml.read(REFUSED[kind])
    with pytest.raises(ConfigError, match="The configuration in the file's metadata is refused"):
        from_yaml(REFUSED[kind])
    (tmp_path / "config.yaml").write_text(REFUSED[kind], encoding="utf-8")
    with pytest.raises(ConfigError, match="can't be read as a configuration"):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${trap:1}"])
def test_a_mapping_is_not_resolved(value):
    with pytest.raises(ConfigError, match="reference"):
        load_config({"title": value})
    assert "trap" in value or OmegaConf.create({"title": value}).title, "the resolver itself works"


@pytest.mark.parametrize("name", published())
def test_plain_configurations_are_read_as_before(name):
    config = load_config(name)
    assert from_yaml(to_yaml(config)) == config


@pytest.mark.parametrize("title", ["<img src=x onerror=alert(1)>", "a\x1b[31m", "x" * 81, "a\nb", "", "&lt;", "'"])
def test_titles_that_are_no_plain_text_are_not_shown(title):
    config = load_config("t2v_512_v2")
    shown = from_yaml(to_yaml(replace(config, title=title, name=title)))
    assert (shown.title, shown.name) == (ModelConfig().title, ModelConfig().name)
    assert from_yaml(to_yaml(config)).title == config.title
