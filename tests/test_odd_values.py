"""Odd values in files and configurations end in an error of ours, or are read right; none shows a reader's own error."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from harness import goldens
from harness.hostile import in_zip, record
from vc_core.checkpoint import CheckpointError, open_checkpoint
from vc_core.config import load_config, to_yaml
from vc_core.errors import ConfigError
from vc_core.family.model_file import ModelFile
from vc_core.limits import RANGES
from vc_core.sampling import Sampling

# Safetensors headers.


def stored(path, header, data=bytes(8)):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def entry(**changes):
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_metadata_that_the_library_takes(metadata, tmp_path):
    path = stored(tmp_path / "a.safetensors", {"__metadata__": metadata, "a": entry()})
    assert safe_open(path, "pt").keys() == ["a"]
    assert open_checkpoint(path).metadata == (metadata or {}) and open_checkpoint(path).tensor("a").tolist() == [0, 0]


@pytest.mark.parametrize("header", [
    {"__metadata__": 5, "a": entry()},
    {"__metadata__": {"a": 5}, "a": entry()},
    {"__metadata__": ["a"], "a": entry()},
    {"a": entry(shape=[2**63])},
    {"a": entry(shape=[2**62, 2**62, 0], data_offsets=[0, 0])},
    {"a": entry(shape=[True])},
    {"a": entry(shape=[2.0])},
    {"a": entry(shape="2")},
    {"a": entry(shape=[1] * 100)},
    {"a": entry(shape=None)},
    {"a": entry(data_offsets=[0, 2**63])},
    {"a": entry(data_offsets=[-8, 0])},
    {"a": entry(data_offsets=[0])},
    {"a": entry(data_offsets=[8, 0])},
    {"a": entry(data_offsets=[False, 8])},
    b'{"a":{"dtype":"F32","shape":[2],"data_offsets":' + b"9" * 5000 + b"}}",
    {"a": entry(dtype=5)},
    {"a": entry(dtype=["F32"])},
    {"a": entry(dtype="f32")},
    {"a": None},
    {"a": entry(), "b": entry()},
    {"a": entry(data_offsets=[0, 4]), "b": entry(data_offsets=[4, 8])},
    b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}',
    b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}',
    b'{"a":\xff}',
    b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}}',
    b"{ ",
], ids=lambda header: str(header)[:50])  # fmt: skip
def test_headers_that_are_damaged(header, tmp_path):
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        open_checkpoint(stored(tmp_path / "a.safetensors", header))


@pytest.mark.parametrize("kind, bits", [("F8_E8M0", 8), ("F4", 4), ("F6_E2M3", 6)])
def test_a_tensor_of_a_rare_type_does_not_refuse_the_file(kind, bits, tmp_path):
    header = {"odd": entry(dtype=kind, shape=[64 // bits] if bits != 6 else [4, 8], data_offsets=[0, 8 if bits != 6 else 24])}
    size = header["odd"]["data_offsets"][1]
    header["sound"] = entry(data_offsets=[size, size + 8])
    checkpoint = open_checkpoint(stored(tmp_path / "a.safetensors", header, bytes(size) + torch.ones(2).numpy().tobytes()))
    assert checkpoint.names() == ["sound"] and checkpoint.tensor("sound").tolist() == [1, 1]
    with pytest.raises(CheckpointError, match=f"'odd' has the type {kind}; possible are F64"):
        checkpoint.tensor("odd")


# Pickles.


def test_negated_and_conjugated_views_are_read_with_their_sign(tmp_path):
    complex_numbers = torch.tensor([1 + 2j, 3 - 4j])
    tensors = {
        "negative": complex_numbers.conj().imag, "conjugate": complex_numbers.conj(), "plain": complex_numbers.imag,
        "part": torch.arange(12.0).view(6, 2).view(dtype=torch.complex64).conj().imag[2:5],
    }  # fmt: skip
    assert tensors["negative"].is_neg() and tensors["conjugate"].is_conj()
    for name, expected in tensors.items():  # torch.save refuses views of one storage with several types
        torch.save({name: expected}, tmp_path / "a.ckpt")
        checkpoint = open_checkpoint(tmp_path / "a.ckpt")
        assert torch.equal(checkpoint.sound_tensor(name), expected.resolve_neg().resolve_conj())
        assert not checkpoint.tensor(name).is_neg() and not checkpoint.tensor(name).is_conj()


SPARSE = {
    "coo": lambda: torch.ones(2).to_sparse(),
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8),
    "by channel": lambda: torch.quantize_per_channel(torch.ones(2, 2), torch.ones(2), torch.zeros(2), 0, torch.quint8),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "parameter": lambda: torch.nn.Parameter(torch.ones(2).to_sparse()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SPARSE)
def test_sparse_and_quantized_tensors_do_not_refuse_sound_weights(kind, tmp_path):
    odd = SPARSE[kind]()
    weights = dict(goldens.weights("t2v_512_v2"))
    torch.save({"state_dict": weights | {"someones.table": odd}}, tmp_path / "t2v_512_v2.ckpt")
    file = ModelFile.open(tmp_path / "t2v_512_v2.ckpt")
    assert set(file.tensors("unet")) and file.contents().unknown == ("someones.table",)
    with pytest.raises(CheckpointError, match="'someones.table' (is sparse or quantized|is stored as)"):
        file.checkpoint.tensor("someones.table")
    name = "model.diffusion_model.out.2.bias"
    torch.save(weights | {name: odd}, tmp_path / "t2v_512_v2.ckpt")
    with pytest.raises(CheckpointError, match=f"{name} is s"):
        ModelFile.open(tmp_path / "t2v_512_v2.ckpt")


@pytest.mark.parametrize("properties, message", [
    (b"}X\x03\x00\x00\x00negK\x01s", "properties of a tensor are"),
    (b"}X\x03\x00\x00\x00odd\x88s", "has the property 'odd'"),
    (b"K\x05", "properties of a tensor are"),
])
def test_odd_properties_of_tensors(properties, message, tmp_path):
    plain = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    plain += b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89}" + properties + b"tRs."
    (tmp_path / "a.ckpt").write_bytes(in_zip(plain))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("name", ["alphas_cumprod", "scale_arr"])
@pytest.mark.parametrize("table", [
    torch.zeros(1000, dtype=torch.complex64), torch.zeros(1000, dtype=torch.int64), torch.zeros(0), torch.zeros(10, 100),
    torch.tensor(1.0), torch.zeros(1000, dtype=torch.bool), torch.full((1000,), torch.nan), torch.full((1000,), torch.inf),
    torch.zeros(1), torch.full((1000,), -5.0), torch.full((1000,), 5.0), torch.zeros(3000), torch.zeros(1000, dtype=torch.float8_e5m2),
], ids=lambda table: f"{table.dtype} {list(table.shape)} {table.flatten()[:1].tolist()}")  # fmt: skip
def test_odd_tables_of_the_schedule(name, table, tmp_path):
    save_file(dict(goldens.weights("t2v_512_v2")) | {name: table}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="schedule|NaN or infinite|impossible model"):
        ModelFile.open(tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float64])
def test_the_published_tables_in_any_precision_are_recognized(dtype, tmp_path):
    """At 8 bits the sample scale still tells DynamiCrafter at 1024 from the others."""
    for model in ("t2v_512_v2", "dynamicrafter_1024_v1"):
        save_file({name: value.to(dtype) for name, value in goldens.weights(model).items()}, tmp_path / "model.safetensors")
        assert ModelFile.open(tmp_path / "model.safetensors").config.schedule == load_config(model).schedule


def test_zips_with_members_of_odd_names(tmp_path):
    for name in ("archive/data/\x1b[31m", "archive/" + "x" * 60_000, "archive/data/\u202e", "archive/"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", record())
            archive.writestr("archive/data/0", bytes(16))
            archive.writestr(zipfile.ZipInfo(name), b"x" * 3)
        (tmp_path / "a.ckpt").write_bytes(buffer.getvalue())
        try:
            assert open_checkpoint(tmp_path / "a.ckpt").names() == ["a"]
        except CheckpointError as error:
            assert str(error).isprintable()


# Configurations.

ODD = [
    None, True, -1, 0, 1.5, 1e308, float("nan"), float("inf"), 2**63, -(2**70), 10**5000, "", "x", "???", "1", "1e400", [], [[]], {},
    [1, "x"], {"a": 1}, b"x", object, ["ends"] * 1000, {"": {"": {}}}, {5: 6},
]  # fmt: skip
KEYS = sorted({"name", "title", "keyframes", "nonsense", "unet", "image_encoder", "schedule", "a.b", ""} | {
    f"{part}.{key}" for part, ranges in RANGES.items() for key in ranges
} | {"schedule.prediction", "sampling.spacing", "unet.init_attention", "schedule.zero_terminal_snr"})  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_odd_values_of_configurations(key):
    part, _, inner = key.partition(".")
    for value in ODD[KEYS.index(key) % 3 :: 3]:  # a third of them for each key, since each takes a tenth of a second
        config = {part: {inner: value}} if inner and key != "a.b" else {key: value}
        try:
            read = load_config(config)
        except ConfigError as error:
            assert str(error).isprintable() and len(str(error)) < 1000
            continue
        assert load_config(read) == read and to_yaml(read)
        Sampling.of(read)


@pytest.mark.parametrize("part, key", [(part, key) for part, ranges in RANGES.items() for key in ranges])
def test_numbers_out_of_their_range_are_refused_by_name(part, key):
    for value in (RANGES[part][key][0] - 1, RANGES[part][key][1] * 2 + 1):
        whole = isinstance(RANGES[part][key][0], int) and key not in ("eta", "guidance_scale", "guidance_rescale", "scale_end")
        given = [value] if key in ("channel_mult", "attention_resolutions") else value
        with pytest.raises(ConfigError, match=rf"{part}\.{key} is .*are possible|{part}\.{key}"):
            load_config({part: {key: given if whole else float(value)}})


@pytest.mark.parametrize("changes, named", [
    ({"sampling": {"height": 0}}, "sampling.height"),
    ({"sampling": {"width": 100_000}}, "sampling.width"),
    ({"sampling": {"width": 516}}, "sampling.width is 516.*multiple of 8"),
    ({"sampling": {"frames": 10**9}}, "sampling.frames"),
    ({"sampling": {"steps": 1001}}, "sampling.steps"),
    ({"sampling": {"eta": 5.0}}, "sampling.eta"),
    ({"sampling": {"guidance_scale": float("nan")}}, "sampling.guidance_scale is nan"),
    ({"sampling": {"guidance_rescale": 7.0}}, "sampling.guidance_rescale"),
    ({"sampling": {"playback_fps": 0}}, "sampling.playback_fps"),
    ({"unet": {"default_fps": 0}}, "unet.default_fps"),
    ({"autoencoder": {"scale_factor": 0.0}}, "autoencoder.scale_factor is 0;"),
    ({"schedule": {"scale_end": 0.0}}, "schedule.scale_end"),
    ({"schedule": {"scale_end": 2.0}}, "schedule.scale_end"),
    ({"schedule": {"linear_start": 0.0}}, "schedule.linear_start"),
    ({"schedule": {"linear_start": 0.5}}, "schedule.linear_start is 0.5, more than linear_end"),
    ({"schedule": {"linear_end": 1.0}}, "schedule.linear_end"),
    ({"schedule": {"timesteps": 1}}, "schedule.timesteps"),
    ({"schedule": {"timesteps": 40}}, "sampling.steps is 50; the schedule has 40"),
    ({"unet": {"head_channels": 0}}, "unet.head_channels"),
    ({"text_encoder": {"context_length": 2}}, "text_encoder.context_length"),
    ({"unet": {"transformer_depth": 30}}, "unet has 360 transformers"),
    ({"image_encoder": {"patch_size": 500}}, "image_encoder.patch_size is 500, more than its image_size"),
    ({"unet": {"channel_mult": [[1]]}}, "unet.channel_mult has a value of type list"),
    ({"unet": {"attention_resolutions": [{}]}}, "unet.attention_resolutions has a value of type dict"),
    ({"keyframes": {"a": 1}}, "is wrong at its top level"),
    ({"title": "a\x1b[31m"}, r"title is 'a\\x1b\[31m'"),
])
def test_defaults_that_no_video_can_have(changes, named):
    with pytest.raises(ConfigError, match=named):
        load_config(changes)


def test_a_files_defaults_are_refused_by_name(tmp_path):
    text = to_yaml(load_config("t2v_512_v2")).replace("frames: 16", "frames: 1000000000")
    save_file(goldens.weights("t2v_512_v2"), tmp_path / "model.safetensors", {"vc_core.config": text})
    with pytest.raises(CheckpointError, match="impossible model: sampling.frames is 1000000000"):
        ModelFile.open(tmp_path / "model.safetensors")
