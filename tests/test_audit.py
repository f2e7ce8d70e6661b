"""Reading files, their metadata and configurations of strangers asks the system for nothing but the file: by Python's audit events."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from dev.file_mutations import KINDS
from dev.fuzz_files import run, write
from harness import goldens
from harness.hostile import text, zipped
from vc_core import config as config_module
from vc_core.config import from_yaml, load_config, to_yaml
from vc_core.errors import VideoCrafterError
from vc_core.family.model_file import ModelFile

#: What an attack would ask for. "compile" and "exec" are also what imports and code out of text do.
WATCHED = ("import", "exec", "compile", "open", "subprocess", "os.", "pty", "socket", "ctypes", "shutil", "webbrowser", "pickle", "marshal",
           "code.__new__", "function.__new__", "urllib", "ftplib", "smtplib", "http", "sqlite3", "tempfile", "mmap")  # fmt: skip
#: Looking whether files are there.
HARMLESS = ("os.listdir", "os.scandir", "os.putenv", "os.fspath")

#: The annotations of the configuration's schema, as they are seen when they are evaluated.
ANNOTATIONS = {
    str(str(each.type).encode())
    for schema in vars(config_module).values() if isinstance(schema, type) and is_dataclass(schema)
    for each in fields(schema)
}  # fmt: skip

_events: list[tuple[str, str]] | None = None


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _events is not None and event.startswith(WATCHED) and event not in HARMLESS:
        _events.append((event, str(arguments[0]) if arguments else ""))


sys.addaudithook(_watch)  # a hook stays for ever; it does nothing but while events are collected


@contextlib.contextmanager
def watched() -> Iterator[list[tuple[str, str]]]:
    """Collects the events of what runs inside."""
    global _events
    _events = found = []
    try:
        yield found
    finally:
        _events = None


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported(tmp_path_factory):
    """A sound model, a refused one and a configuration were read before, so that late imports of ours are over."""
    folder = tmp_path_factory.mktemp("warm")
    config = to_yaml(load_config("t2v_512_v2"))
    save_file(goldens.weights("t2v_512_v2"), folder / "m.safetensors")
    torch.save(dict(goldens.weights("t2v_512_v2")), folder / "m.ckpt")
    for path in (folder / "m.safetensors", folder / "m.ckpt"):
        ModelFile.open(path).tensors("unet")
    for wrong in (config + "a: [", config + "a: 1", "title: ${oc.env:HOME}", "unet: {in_channels: x}"):
        with contextlib.suppress(VideoCrafterError):
            from_yaml(wrong)
    for kind in KINDS:
        for seed in range(3):
            made = KINDS[kind](random.Random(seed))
            if isinstance(made, bytes):
                write(kind, made, folder / "f.ckpt")
            run(kind, made, folder / "f.ckpt")


def test_the_hook_sees_what_it_must(tmp_path):
    with watched() as events:
        exec("1")
        eval(compile("2", "a", "eval"))
        (tmp_path / "a").write_text("a")
        with contextlib.suppress(ImportError):
            __import__("nothing_of_this_name")
        with contextlib.suppress(FileNotFoundError):
            __import__("subprocess").run(["/nothing/of/this/name"], check=False)
        __import__("socket").socket().close()
    assert {"exec", "compile", "open", "import", "subprocess.Popen", "socket.__new__"} <= {event for event, _ in events}


MODEL_TEXTS = {
    "environment": 'title: "${oc.env:HOME}"',
    "escaped environment": 'title: "\\x24{oc.env:HOME}"',
    "resolver": 'title: "\\u0024{trap:1}"',
    "resolver in a name": '"\\x24{trap:1}": 1',
    "python tag": "title: !!python/object/apply:os.system [echo]",
    "python module": "title: !!python/module:antigravity",
    "python name": "title: !!python/name:os.system",
    "new object": "title: !!python/object/new:subprocess.Popen [[echo]]",
    "alias": "a: &a [x]\nb: *a",
    "target": "unet: {_target_: os.system}",
    "file": "<<: !include /etc/passwd",
    "sound": "title: A model",
}


@pytest.mark.parametrize("case", MODEL_TEXTS)
@pytest.mark.filterwarnings("ignore:register_new_resolver")
def test_metadata_and_configurations_ask_for_nothing(case, tmp_path):
    OmegaConf.register_new_resolver("trap", lambda *_: pytest.fail("a reference was resolved"), replace=True)
    path = tmp_path / "m.safetensors"
    texts = {"vc_core.config": MODEL_TEXTS[case], "workflow": MODEL_TEXTS[case], MODEL_TEXTS[case]: "x"}
    save_file(goldens.weights("t2v_512_v2"), path, texts)
    (tmp_path / "c.yaml").write_text(MODEL_TEXTS[case])
    with watched() as events:
        for action in (
            lambda: ModelFile.open(path),
            lambda: from_yaml(MODEL_TEXTS[case]),
            lambda: load_config({"title": MODEL_TEXTS[case]}),
            lambda: load_config({"unet": {MODEL_TEXTS[case]: MODEL_TEXTS[case]}}),
            lambda: load_config(tmp_path / "c.yaml"),
        ):
            with contextlib.suppress(VideoCrafterError):
                action()
    OmegaConf.clear_resolver("trap")
    assert not unexpected(events, tmp_path)


def unexpected(events: list[tuple[str, str]], folder: Path) -> list[tuple[str, str]]:
    """The events that aren't the opening of the files of a test, by path or by descriptor, or of our own configurations.

    OmegaConf evaluates the annotations of the schema, which are in our source, each time: so many events of "exec" are left out.
    """
    ours = (str(folder), str(Path(load_config.__code__.co_filename).parent / "configs"))
    annotations = [("compile", what) for event, what in events if event == "compile" and what in ANNOTATIONS]
    executed = [(event, what) for event, what in events if event == "exec"]
    found = [(event, what) for event, what in events if not (event == "open" and (what.startswith(ours) or what.isdigit()))]
    return [each for each in found if each not in annotations and each[0] != "exec"] + executed[len(annotations) :]


@pytest.mark.parametrize("pickled", [
    b"\x80\x02cos\nsystem\n" + text("true") + b"\x85R.",
    b"\x80\x02cbuiltins\neval\n" + text("1") + b"\x85R.",
    b"\x80\x02cantigravity\nx\n.",
    b"\x80\x02cvery_much_not_there\nx\n)R.",
    b"\x80\x02(" + text("true") + b"ios\nsystem\n.",
    b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\n" + text("os") + b"\x86R.",
])  # fmt: skip
def test_pickles_ask_for_nothing(pickled, tmp_path):
    (tmp_path / "m.ckpt").write_bytes(zipped(pickled))
    with watched() as events, contextlib.suppress(VideoCrafterError):
        ModelFile.open(tmp_path / "m.ckpt")
    assert not unexpected(events, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_at_random_ask_for_nothing(kind, tmp_path):
    for seed in range(12):
        made = KINDS[kind](random.Random(f"audit {kind} {seed}"))
        if isinstance(made, bytes):
            write(kind, made, tmp_path / "m.ckpt")
        with watched() as events:
            run(kind, made, tmp_path / "m.ckpt")
        assert not unexpected(events, tmp_path), seed
