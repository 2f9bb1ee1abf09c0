"""Canaries: the secrets of a run, searched for in all that the run leaves behind.

Rule: a secret counts as found in each form: plain, percent-encoded, hexadecimal, or anywhere within a base64 text.
"""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import quote

SHORTEST: Final = 12
"""Bytes. A shorter secret would be found by chance."""


class Canaries:
    """Secrets by name, and the artefacts in which each was found."""

    def __init__(self) -> None:
        self._forms: dict[str, frozenset[bytes]] = {}

    def __len__(self) -> int:
        return len(self._forms)

    def add(self, name: str, secret: str) -> str:
        """Take a secret; returns it."""
        assert len(secret) >= SHORTEST, name
        self._forms[name] = frozenset(_forms(secret.encode()))
        return secret

    def found_in(self, artefact: bytes) -> list[str]:
        """The names of the secrets that the artefact contains, sorted."""
        return sorted(name for name, forms in self._forms.items() if any(form in artefact for form in forms))

    def found_below(self, folder: Path) -> set[tuple[str, str]]:
        """The artefacts below a folder, by their paths, and the secret that each contains; names of files count."""
        found = set[tuple[str, str]]()
        for path in folder.rglob("*"):
            place = str(path.relative_to(folder))
            content = path.read_bytes() if path.is_file() else b""
            found |= {(place, name) for name in self.found_in(place.encode() + b"\0" + content)}
        return found


def _forms(secret: bytes) -> Iterable[bytes]:
    yield secret
    yield quote(secret, safe="").encode()
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for shift in range(3):
        # The characters that depend on nothing before or after the secret.
        text = base64.b64encode(bytes(shift) + secret)
        whole = text[(shift * 8 + 5) // 6 : (shift + len(secret)) * 8 // 6]
        yield whole
        yield whole.translate(bytes.maketrans(b"+/", b"-_"))


def arguments_of_processes(pids: Iterable[int]) -> bytes:
    """The command lines of the processes and of all that they started."""
    parents = {}
    lines = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
            lines[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])
    family = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return b"\n".join(lines[pid] for pid in family if pid in lines)
