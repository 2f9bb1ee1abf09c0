"""How large the agent's Debian package is, to fetch and installed, beside wheels of the same code.

Rule: all are for Debian 12 on amd64, of the same versions. Installed is the sum of the sizes of all files, with
the modules that the installation compiles; the system's Python is not counted.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Final

from benchmarks.figures import MIB, Figure, Report
from benchmarks.site import ROOT

NAME: Final = "deb12-amd64"
MOST: Final = 1.2
"""The package has also the unit, the scripts, licenses and the changelog."""

_BUILD: Final = ROOT / "deploy/debian/build"
_OWN: Final = ("device_agent/", "schemas/")


def package() -> Report:
    """The package is built here, as `make package` does it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        deb = _deb(folder / "deb")
        libraries = _libraries(folder / "wheels")
        project = _project_wheel(folder / "project")
        wheels = [*libraries, _agent_wheel(project, folder / "agent.whl")]
        everything = [*libraries, project]
        fetched = deb.stat().st_size, _sum(wheels), _sum(everything)
        unpacked = folder / "unpacked"
        with tarfile.open(fileobj=io.BytesIO(_run("dpkg-deb", "--fsys-tarfile", str(deb)))) as archive:
            archive.extractall(unpacked, filter="data")
        installed = (
            _installed(unpacked, unpacked / "usr/lib/backhaul-agent/lib"),
            _installed(_unzipped(wheels, folder / "wheels of the agent")),
            _installed(_unzipped(everything, folder / "everything")),
        )
    figures = [*_figures("to fetch", *fetched), *_figures("installed", *installed)]
    names = ("deb", "wheels of the agent", "wheels with the control plane")
    details = {
        "package": deb.name,
        "wheels": [one.name for one in everything],
        "bytes to fetch": dict(zip(names, fetched, strict=True)),
        "bytes installed": dict(zip(names, installed, strict=True)),
    }
    return Report("agent-package", figures, details)


def _figures(what: str, deb: int, wheels: int, project: int) -> list[Figure]:
    beside = "MiB wheels of the agent"
    return [
        Figure(f"agent package, {what}", deb / MIB, "MiB", beside, wheels / MIB, at_most=MOST),
        Figure(f"wheels with the control plane, {what}", project / MIB, "MiB", beside, wheels / MIB),
    ]


def _deb(folder: Path) -> Path:
    _run(sys.executable, str(_BUILD), "--out", str(folder), NAME)
    [deb] = folder.glob("*.deb")
    return deb


def _libraries(folder: Path) -> list[Path]:
    """The wheels that the package was made of."""
    build = _build_script()
    suite, _, arch = NAME.partition("-")
    platforms = tuple(f"{platform}_{build.MACHINES[arch]}" for platform in build.LIBCS["gnu"])
    wheels: list[Path] = build.Wheels(build.PYTHONS[suite], platforms).fetch(folder)
    return wheels


def _project_wheel(folder: Path) -> Path:
    """The project's only wheel: agent, control plane and documents."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel")
    _run(*pip, "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT))
    [wheel] = folder.glob("*.whl")
    return wheel


def _build_script() -> ModuleType:
    loader = SourceFileLoader("debian_build", str(_BUILD))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None  # noqa: S101 - a loader was given
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def _agent_wheel(project: Path, path: Path) -> Path:
    """What a wheel of the agent's own modules would be; the project has none."""
    with zipfile.ZipFile(project) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as part:
        for name in whole.namelist():
            if name.startswith(_OWN):
                part.writestr(name, whole.read(name))
    return path


def _sum(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _unzipped(wheels: Sequence[Path], folder: Path) -> Path:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)  # noqa: S202 - from the lock, by hash, or built here
    return folder


def _installed(folder: Path, modules: Path | None = None) -> int:
    """Compile as the installation does it, and sum up."""
    _run(sys.executable, "-IBm", "compileall", "-q", str(modules or folder))
    return _sum(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _run(*command: str) -> bytes:
    ended = subprocess.run(command, capture_output=True, check=False, cwd=ROOT)
    if ended.returncode != 0:
        message = f"{command[:4]} failed: {ended.stderr.decode(errors='replace')[-2000:]}"
        raise RuntimeError(message)
    return ended.stdout
