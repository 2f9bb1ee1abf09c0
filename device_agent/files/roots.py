"""What the agent may read: `ALLOWED_ROOTS` and `FILE_PATH`.

Rule: default-deny. A path is compared by its components, and nothing is opened here.
"""

import os
from dataclasses import dataclass, field
from typing import Final

from device_agent.errors import FileRefused, SettingsError
from schemas.values import ErrorCode

_MAX_PATH: Final = 4096


@dataclass(frozen=True, slots=True)
class RootFolder:
    """A folder that may be read: its name in the setting, and the folder it led to when the agent started."""

    written: str
    resolved: str


@dataclass(frozen=True, slots=True)
class Roots:
    """The files that may be read: all beneath `roots` (`ALLOWED_ROOTS`), and the one file `exact` (`FILE_PATH`).

    A root that is a symbolic link, or leads through one, is resolved once, here; beneath it no link is followed. The
    exact file may be a link that changes (`latest.bin -> today.bin`): it is resolved at each open, and followed within
    its own folder, or beneath a root. Any other target is allowed only if it is the one from the start; otherwise every
    user with write access to that folder could read all that the agent can read.
    """

    roots: tuple[str, ...] = ()
    exact: str | None = None
    folders: tuple[RootFolder, ...] = field(init=False, repr=False)
    _exact_at: tuple[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for path in (*self.roots, *filter(None, (self.exact,))):
            if not path.startswith("/"):
                text = f"ALLOWED_ROOTS and FILE_PATH take absolute paths; {path!r} is not one"
                raise SettingsError(text)
        written = sorted({os.path.normpath(root) for root in self.roots})
        folders = tuple(RootFolder(root, os.path.realpath(root)) for root in written)
        object.__setattr__(self, "folders", folders)
        normal = os.path.normpath(self.exact) if self.exact else None
        object.__setattr__(self, "exact", normal)
        # Its folder and its target, at the start of the agent.
        exact_at = (os.path.realpath(os.path.split(normal)[0]), os.path.realpath(normal)) if normal else ("", "")
        object.__setattr__(self, "_exact_at", exact_at)

    def locate(self, path: str) -> tuple[str, str]:
        """The resolved folder to open, and the path beneath it; `FileRefused` for a path outside."""
        components = require_plain(path)
        if path == self.exact:
            return self._locate_exact(path)
        for place in self.folders:
            for root in (place.written, place.resolved):
                inside = beneath(root, components)
                if inside:
                    return place.resolved, "/".join(inside)
        text = f"{path!r} lies outside ALLOWED_ROOTS of this device"
        raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, text)

    def _locate_exact(self, path: str) -> tuple[str, str]:
        lies_in, was = self._exact_at
        now = os.path.realpath(path)
        folder, name = os.path.split(now)
        if now == was or folder == lies_in:
            return folder, name
        for place in self.folders:
            if inside := beneath(place.resolved, now.split("/")[1:]):
                return place.resolved, "/".join(inside)
        text = f"{path!r} is a link that was turned, and leads out of its folder and of ALLOWED_ROOTS of this device"
        raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, text)


def require_plain(path: str) -> list[str]:
    """The components of an absolute path; `FileRefused` for any other path, or a component such as `..`."""
    components = path.split("/")[1:]
    absolute = path.startswith("/") and len(path) <= _MAX_PATH and "\0" not in path and _is_utf8(path)
    if not absolute or any(component in {"", ".", ".."} for component in components):
        text = "a file path must be absolute, of at most 4096 characters of UTF-8, without //, /./, /../ and NUL"
        raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, text)
    return components


def beneath(root: str, components: list[str]) -> list[str]:
    """The components of a path below `root`; empty when it lies outside.

    >>> beneath("/data", ["data", "a", "b"]), beneath("/", ["a"]), beneath("/data", ["database"])
    (['a', 'b'], ['a'], [])
    """
    folders = [folder for folder in root.split("/") if folder]
    return components[len(folders) :] if components[: len(folders)] == folders else []


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
