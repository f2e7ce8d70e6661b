"""Files from strangers: whatever they ask for, nothing is run, and an attack is refused by name.

That nothing ran is shown by a marker: Python's own unpickler would make a file (or call a function) for each payload, which the
tests ``..._are_live`` show.
"""

from __future__ import annotations

import contextlib
import copyreg
import io
import pickle
import sys
import tarfile
import time
import types
from pathlib import Path

import pytest

from harness.hostile import refusal, text, zipped


@pytest.fixture
def innocent(monkeypatch):
    """A module with a harmless name and live traps, as a package that is installed could have; records what was called."""
    module = types.ModuleType("innocent")
    module.called = []

    def touch(*arguments):
        module.called.append("touch")
        return {}

    class Trap:
        def __new__(cls, *arguments, **named):
            module.called.append("new")
            return super().__new__(cls)

        def _sprung(name):
            return lambda self, *arguments: module.called.append(name)

        __setstate__, __setitem__, __setattr__ = _sprung("setstate"), _sprung("setitem"), _sprung("setattr")
        append, extend, add, update = _sprung("append"), _sprung("extend"), _sprung("add"), _sprung("update")

        def __hash__(self):
            module.called.append("hash")
            return 1

    module.touch, module.Trap = touch, Trap
    touch.__module__ = Trap.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, "innocent", module)
    return module


TRAP = b"cinnocent\nTrap\n)\x81"
# Each calls something of the module `innocent`, which is on no list of attacks: it must simply not happen.
TRAPS: dict[str, bytes] = {
    "reduce": b"\x80\x02cinnocent\ntouch\n)R.",
    "instance": b"\x80\x02(iinnocent\ntouch\n.",
    "object": b"\x80\x02(cinnocent\nTrap\no.",
    "new": b"\x80\x02" + TRAP + b".",
    "new with names": b"\x80\x04cinnocent\nTrap\n)}\x92.",
    "stack global": b"\x80\x04" + text("innocent") + text("touch") + b"\x93)R.",
    "state": b"\x80\x02" + TRAP + b"K\x01b.",
    "attributes": b"\x80\x02" + TRAP + b"N}" + text("x") + b"K\x01s\x86b.",
    "append": b"\x80\x02" + TRAP + b"K\x01a.",
    "appends": b"\x80\x02" + TRAP + b"(K\x01K\x02e.",
    "item": b"\x80\x02" + TRAP + b"K\x01K\x02s.",
    "items": b"\x80\x02" + TRAP + b"(K\x01K\x02u.",
    "add": b"\x80\x04" + TRAP + b"(K\x01\x90.",
    "key": b"\x80\x02}" + TRAP + b"K\x01s.",
    "argument of a tensor": b"\x80\x02ctorch._utils\n_rebuild_parameter\ncinnocent\ntouch\n)R\x89N\x87R.",
    "hooks of a parameter": b"\x80\x02ccollections\nOrderedDict\n]cinnocent\ntouch\n)RK\x01\x86a\x85R.",
    "state within state": b"\x80\x02}" + TRAP + b"}" + text("__setstate__") + b"cinnocent\ntouch\nsbK\x01bb.",
    "extension 1": b"\x80\x02\x82\x77)R.",
    "extension 2": b"\x80\x02\x83\x77\x00)R.",
    "extension 4": b"\x80\x02\x84\x77\x00\x00\x00)R.",
}


@pytest.fixture
def extension(innocent):
    """The extension code 0x77 registered for `innocent.touch`, and already in the unpickler's cache."""
    copyreg.add_extension("innocent", "touch", 0x77)
    pickle.loads(b"\x80\x02\x82\x77.")
    yield
    copyreg.remove_extension("innocent", "touch", 0x77)


@pytest.mark.parametrize("name", TRAPS)
def test_the_traps_are_live(innocent, extension, name):
    # What some leave behind is no object; the trap has sprung by then.
    with contextlib.suppress(TypeError, AttributeError, pickle.UnpicklingError):
        pickle.loads(TRAPS[name])
    assert innocent.called


@pytest.mark.parametrize("name", TRAPS)
def test_no_trap_springs(tmp_path, innocent, extension, name):
    message = "EXT" if name.startswith("extension") else "whole Python object|no tensors|not tensors"
    refusal(tmp_path / "model.ckpt", zipped(TRAPS[name]), message)
    assert not innocent.called


def attacks(marker: Path) -> dict[str, tuple[bytes, str]]:
    """Pickles that would make the file `marker`, and the global that the refusal must name."""
    shell = f"touch '{marker}'"
    code = f"open({str(marker)!r}, 'w').close()"
    call = text(shell) + b"\x85R."
    return {
        "os.system": (b"\x80\x02cos\nsystem\n" + call, "os.system"),
        "posix.system": (b"\x80\x02cposix\nsystem\n" + call, "posix.system"),
        "stack global": (b"\x80\x04" + text("os") + text("system") + b"\x93" + call, "os.system"),
        "memoized name": (b"\x80\x04" + text("os") + b"\x940" + text("system") + b"\x940h\x00h\x01\x93" + call, "os.system"),
        "instance": (b"\x80\x02(" + text(shell) + b"ios\nsystem\n.", "os.system"),
        "object": (b"\x80\x02(csubprocess\nPopen\n" + text(shell) + b"I-1\nNNNNNI01\nI01\no.", "subprocess.Popen"),
        "subprocess": (b"\x80\x02csubprocess\ngetoutput\n" + call, "subprocess.getoutput"),
        "eval": (b"\x80\x02cbuiltins\neval\n" + text(code) + b"\x85R.", "builtins.eval"),
        "Python 2's exec": (b"\x80\x02c__builtin__\nexec\n" + text(code) + b"\x85R.", "__builtin__.exec"),
        "open": (b"\x80\x02cbuiltins\nopen\n" + text(str(marker)) + text("w") + b"\x86R.", "builtins.open"),
        "io.open": (b"\x80\x02cio\nopen\n" + text(str(marker)) + text("w") + b"\x86R.", "io.open"),
        "runpy": (b"\x80\x02crunpy\n_run_code\n" + text(code) + b"}\x86R.", "runpy._run_code"),
        "dotted name": (b"\x80\x04" + text("torch.serialization") + text("os.system") + b"\x93" + call, "os.system"),
        "importlib": (
            b"\x80\x02cimportlib\nimport_module\n" + text("os") + b"\x85R0cos\nsystem\n" + call,
            "importlib.import_module",
        ),
        "inner names": (
            b"\x80\x02cbuiltins\ngetattr\nccollections\nOrderedDict\n"
            + text("__init_subclass__")
            + b"\x86R0cos\nsystem\n"
            + call,
            "builtins.getattr",
        ),
        "import": (
            b"\x80\x02cbuiltins\ngetattr\ncbuiltins\n__import__\n" + text("os") + b"\x85R" + text("system") + b"\x86R" + call,
            "builtins.__import__",
        ),
        "state": (
            b"\x80\x02cinnocent\nTrap\n)\x81}" + text("__setstate__") + b"cos\nsystem\nsb0cos\nsystem\n" + call,
            "os.system",
        ),
        "deep inside": (
            b"\x80\x02}" + text("state_dict") + b"}" + text("a") + b"]cos\nsystem\n" + call[:-1] + b"ass.",
            "os.system",
        ),
        "in the arguments of a tensor": (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\n" + call[:-1] + b"K\x00))I00\nNtR.",
            "os.system",
        ),
        "in a persistent identifier": (b"\x80\x02(" + text("storage") + b"cos\nsystem\n" + call[:-1] + b"tQ.", "os.system"),
        "behind the tensors": (b"\x80\x02}" + text("a") + b"K\x01s0cos\nsystem\n" + call, "os.system"),
    }


NAMES = list(attacks(Path("marker")))


@pytest.mark.skipif(sys.platform == "win32", reason="the payloads are written for a POSIX shell")
@pytest.mark.parametrize("name", NAMES)
def test_the_payloads_are_live(tmp_path, innocent, name):
    marker = tmp_path / "marker"

    class Careless(pickle.Unpickler):
        def persistent_load(self, identifier):
            return identifier

    with contextlib.suppress(TypeError, AttributeError):
        Careless(io.BytesIO(attacks(marker)[name][0])).load()
    for _ in range(100):  # Popen does not wait
        if marker.exists():
            break
        time.sleep(0.05)
    assert marker.exists()


@pytest.mark.parametrize("name", NAMES)
def test_attacks_are_refused_by_name(tmp_path, innocent, name):
    pickled, named = attacks(tmp_path / "marker")[name]
    refusal(tmp_path / "model.ckpt", zipped(pickled), f"refused: it asks for .*{named}")
    assert not (tmp_path / "marker").exists() and not innocent.called


def test_an_attack_in_the_oldest_form_a_tar(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "../../evil"):
            entry = tarfile.TarInfo(name)
            content = attacks(tmp_path / "marker")["os.system"][0]
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    refusal(tmp_path / "model.ckpt", buffer.getvalue(), "tar archive")
    assert {path.name for path in tmp_path.iterdir()} == {"model.ckpt"}


@pytest.mark.parametrize("name", NAMES)
def test_attacks_outside_of_a_zip_are_not_read_at_all(tmp_path, innocent, name):
    refusal(tmp_path / "model.ckpt", attacks(tmp_path / "marker")[name][0], "a Python pickle, but not one that torch.save wrote")
    assert not (tmp_path / "marker").exists() and not innocent.called
