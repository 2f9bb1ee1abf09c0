"""Root folders of Debian, made once for this machine and kept in its cache; a test works on a copy.

Rule: made by debootstrap from the mirror that this machine's apt uses. What is asked for in a test is in the root: an
installation there needs no network. `$XDG_CACHE_HOME/backhaul-tests/roots` may be deleted at any time.

The root of another architecture is unpacked, and its packages are entered as installed, without their scripts: under
qemu those take minutes, and only the scripts of our package are the subject.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.engine_images import mirror

_WHOLE: Final = "python3,ca-certificates,systemd-sysv,dbus"
_FOREIGN: Final = "python3,ca-certificates,systemd"
# What the package depends on in one architecture only. debootstrap does not see that python3-cffi-backend provides what
# python3-nacl depends on.
_MORE: Final = {"armhf": ",python3-nacl,python3-cffi-backend"}
_PATIENCE: Final = 400
_DPKG: Final = Path("var/lib/dpkg")
_COPIES: Final = Path("/var/tmp")
_PREFIX: Final = "backhaul-machine-"


@contextmanager
def debian_root(suite: str, architecture: str = "amd64") -> Iterator[Path]:
    """A copy of a root, in a folder with the suite's name; it is removed at the end, or by the next run if killed."""
    included = (_FOREIGN if architecture != _own_architecture() else _WHOLE) + _MORE.get(architecture, "")
    # A root that an older list made lacks packages.
    kept = _cache() / f"{suite}-{architecture}-{hashlib.sha256(included.encode()).hexdigest()[:8]}"
    if not kept.exists():
        _make(suite, architecture, included, kept)
    _remove_left_ones()
    home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_COPIES))
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", str(kept), str(home / suite)], check=True)
        yield home / suite
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _remove_left_ones() -> None:
    """The copies of runs that were killed: the process in the name is no more."""
    for left in _COPIES.glob(f"{_PREFIX}*-*"):
        maker = left.name.removeprefix(_PREFIX).partition("-")[0]
        if maker.isdecimal() and not Path(f"/proc/{maker}").exists():
            shutil.rmtree(left, ignore_errors=True)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "backhaul-tests" / "roots"


def _make(suite: str, architecture: str, included: str, kept: Path) -> None:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("a root of Debian needs debootstrap and root")
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Only a root that is complete gets its name.
    with tempfile.TemporaryDirectory(prefix="making-", dir=kept.parent) as scratch:
        root = Path(scratch) / "root"
        foreign = architecture != _own_architecture()
        words = ["--foreign"] if foreign else []
        command = ["debootstrap", *words, f"--arch={architecture}", "--variant=minbase", f"--include={included}"]
        ended = subprocess.run(
            [*command, suite, str(root), *mirror()], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
        assert ended.returncode == 0, "\n".join((ended.stdout + ended.stderr).splitlines()[-20:])
        if foreign:
            _enter_as_installed(root)
        root.chmod(0o755)
        try:
            root.rename(kept)
        except OSError:
            # Another run has made it meanwhile.
            if not kept.exists():
                raise


def _enter_as_installed(root: Path) -> None:
    """Unpack every downloaded package, and write what dpkg would have written about it."""
    status: list[str] = []
    for deb in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        fields = _output("dpkg-deb", "--field", str(deb))
        name = _output("dpkg-deb", "--field", str(deb), "Package").strip()
        first, _, rest = fields.partition("\n")
        status.append(f"{first}\nStatus: install ok installed\n{rest}")
        # By tar, with the links of /bin and /lib kept.
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as files:
            unpack = ["tar", "-C", str(root), "--keep-directory-symlink", "-x"]
            subprocess.run(unpack, stdin=files.stdout, check=True)
        info = root / _DPKG / "info"
        info.mkdir(parents=True, exist_ok=True)
        (info / f"{name}.list").write_text("/.\n")
    (root / _DPKG / "status").write_text("\n".join(status))
    for folder in ("updates", "triggers", "parts"):
        (root / _DPKG / folder).mkdir(parents=True, exist_ok=True)
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    shutil.rmtree(root / "debootstrap", ignore_errors=True)
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)


def _own_architecture() -> str:
    return _output("dpkg", "--print-architecture").strip()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
