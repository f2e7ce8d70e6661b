"""What the built archives hold, and that they work without ComfyUI: `python -m dev.package_check`.

Builds the sdist and the wheel, looks into both, installs the wheel alone into a folder (what it depends on must be installed beside this
Python), and makes a clip with its command there. pip gets the build's tools from the package index.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from harness.comfyui import REPOSITORY

#: What an installed package holds beside its Python files.
DATA = ("vc_core/configs/", "vc_core/bundled/", "vc_core/published.yaml")
#: Of the repository, what the archives are built from.
SOURCES = ("vc_core", "pyproject.toml", "README.md", "LICENSE")


class PackageError(RuntimeError):
    """An archive that is not as it should be."""


def expected_files() -> set[str]:
    """Every file of ``vc_core`` that git knows or would take: code, configurations, the bundled models."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "vc_core"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    return {name for name in listed if (REPOSITORY / name).is_file()}


def build(target: Path) -> tuple[Path, Path]:
    """The wheel and the sdist, from a copy of the sources so that nothing is left in the repository."""
    sources = target / "sources"
    sources.mkdir()
    for name in SOURCES:
        whole = REPOSITORY / name
        if whole.is_dir():
            shutil.copytree(whole, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(whole, sources / name)
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(target), str(sources))
    tools = target / "tools"  # pip makes no sdists, and the setuptools beside this Python may be too old
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tools), "setuptools>=77")
    code = "import setuptools.build_meta as b, sys; b.build_sdist(sys.argv[1])"
    _run(sys.executable, "-c", code, str(target), cwd=sources, env=os.environ | {"PYTHONPATH": str(tools)})
    return next(target.glob("*.whl")), next(target.glob("*.tar.gz"))


def check_wheel(wheel: Path) -> None:
    """Raises PackageError unless the wheel holds ``vc_core`` wholly and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    _compare(wheel, names, expected_files())
    stray = [name for name in names if not name.endswith(".py") and not name.startswith(DATA)]
    if stray:
        raise PackageError(f"{wheel.name} holds {', '.join(sorted(stray))}, which is neither code, a configuration nor a bundled model.")


def check_sdist(sdist: Path) -> None:
    """Raises PackageError unless the sdist holds ``vc_core`` wholly, and beside it no more than a build needs."""
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    own = {name for name in names if not name.startswith("comfyui_videocrafter.egg-info/")}
    _compare(sdist, own, expected_files() | {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", "setup.cfg"})


def check_command(wheel: Path, folder: Path) -> None:
    """Install the wheel into a folder and make a clip with it, far from the repository."""
    installed = folder / "installed"
    _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel))
    clip = folder / "clip.webp"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    arguments = ["generate", "videocrafter_tiny_t2v", "a red circle moving right", "--steps", "2", "--output", str(clip)]
    _run(sys.executable, str(installed / "bin" / "vc-core"), *arguments, cwd=folder, env=environment)
    if not clip.stat().st_size:
        raise PackageError("vc-core made an empty file.")


def main() -> None:
    try:
        with tempfile.TemporaryDirectory() as made:
            wheel, sdist = build(Path(made))
            check_wheel(wheel)
            check_sdist(sdist)
            check_command(wheel, Path(made))
            size = wheel.stat().st_size / 1e6
            print(f"{wheel.name} ({size:.1f} MB) and {sdist.name} hold vc_core wholly and nothing else; its command works.")
    except PackageError as error:
        sys.exit(str(error))


def _compare(archive: Path, names: set[str], expected: set[str]) -> None:
    problems = [f"lacks {name}" for name in sorted(expected - names)] + [f"has {name}" for name in sorted(names - expected)]
    if problems:
        raise PackageError(f"{archive.name}:\n  " + "\n  ".join(problems))


def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        raise PackageError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
