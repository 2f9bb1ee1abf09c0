"""What the agent may read: `ALLOWED_ROOTS`, the files of `TYPES`, and `FILE_PATH`.

Rule: default-deny. A path is compared by its components, as it is spelled on the wire
(`schemas.file_names`). A folder that was checked is never followed again by name alone: it must be the folder from the
start, or lie where only the operator can put another one.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec import Struct

from device_agent.errors import FileRefused, SettingsError
from device_agent.files.mounts import mount_of
from device_agent.files.own_files import NO_FILES, Identity, OwnFiles, identity_of
from device_agent.files.safe_open import open_folder
from device_agent.policy.patterns import State
from device_agent.policy.rules import DEFAULT_POLICY, DevicePolicy
from schemas.errors import SchemaError
from schemas.file_names import spelled, unspelled
from schemas.globs import Globs, components_of, fixed_folder
from schemas.values import ErrorCode

START_PATIENCE: Final = 5.0
"""Seconds that the start waits for file systems. A folder that answers later is used when it has answered."""

NO_TYPES: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})

log = logging.getLogger(__name__)


class CheckedFolder:
    """One folder of a setting, and the folder it led to when the agent started.

    `written` is its path in the setting, as it is spelled on the wire. `place` is the path it led to, as `os` takes it,
    and `resolved` the spelling of that; None until its file system has answered.

    A link in the path is resolved once, by `settle`. After that each `open` goes through the folders above, from `/`,
    and follows no link. Where only root and the agent's own user may rename in those folders, the folder found is used:
    a disk that is mounted later, or another one. Elsewhere it must be the folder from the start, and that one is held
    open, so that its inode number cannot pass to another folder.
    """

    def __init__(self, path: str) -> None:
        self.written = spelled(path)
        self.place: str | None = None
        self._path = path
        self._settled = threading.Event()
        self._identity: Identity | None = None
        self._held: int | None = None
        self._refused = False

    def __del__(self) -> None:
        if self._held is not None:
            os.close(self._held)

    @property
    def resolved(self) -> str | None:
        """The spelling of `place`."""
        return None if self.place is None else spelled(self.place)

    def settle(self) -> None:
        """Resolve the name, and hold the folder if it must be held; called once."""
        try:
            self.place = os.path.realpath(self._path)
            descriptor, guarded = open_folder(self.place)
        except (OSError, ValueError):
            pass  # It does not exist yet, or may not be entered yet; a NUL is in no name.
        else:
            self._identity = identity_of(os.fstat(descriptor))
            if guarded:
                # Not held: an open descriptor would keep a disk from being unmounted.
                os.close(descriptor)
            else:
                self._held = descriptor
        finally:
            self._settled.set()

    def open(self) -> int:
        """A descriptor of the folder, to open files beneath it; the caller closes it.

        `FileRefused` with `path_not_allowed` when a link or another folder has taken its place; `OSError` when it does
        not exist, or may not be entered.
        """
        self._settled.wait()
        try:
            descriptor, guarded = open_folder(self.place or self._path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._refusal() from error
            raise
        if not guarded and identity_of(os.fstat(descriptor)) != self._identity:
            os.close(descriptor)
            raise self._refusal()
        self._refused = False
        return descriptor

    def _refusal(self) -> FileRefused:
        text = f"{self.written!r} is not the folder that it was when the agent started"
        if not self._refused:
            log.warning("%s: it is not read; restart the agent if the change was intended", text)
        self._refused = True
        return FileRefused(ErrorCode.PATH_NOT_ALLOWED, text)


class ExactFile:
    """`FILE_PATH`: one file, or a link that changes (`latest.bin -> today.bin`), resolved at each open.

    The link is followed within its own folder, or beneath a root. Any other target is allowed only if it is the one
    from the start; otherwise every user with write access to that folder could read all that the agent can read.
    """

    def __init__(self, path: str) -> None:
        self.path = spelled(path)
        self._name = path
        self._folder = CheckedFolder(os.path.split(path)[0])
        self._target: CheckedFolder | None = None
        self._was = ""

    def settle(self) -> None:
        """Hold the folder of the path, and that of the file it leads to; called once."""
        self._folder.settle()
        try:
            self._was = os.path.realpath(self._name)
        except (OSError, ValueError):
            return  # As for a folder: what it leads to later must lie in its folder, or beneath a root.
        target = CheckedFolder(os.path.split(self._was)[0])
        target.settle()
        self._target = target

    @property
    def known_target(self) -> str:
        """The file that the path led to when the agent started, or the path."""
        return self._was or self._name

    def locate(self, roots: Sequence[CheckedFolder]) -> tuple[CheckedFolder, str]:
        """The folder to open, and the path beneath it; `FileRefused` for a link that leads elsewhere."""
        # The name only shows where to look: what is found is opened beneath a folder that is checked again.
        now = os.path.realpath(self._name)
        folder, name = os.path.split(now)
        if folder == self._folder.place:
            return self._folder, name
        if now == self._was and self._target is not None:
            return self._target, name
        for place in roots:
            if place.place is not None and (inside := beneath(place.place, now.split("/")[1:])):
                return place, "/".join(inside)
        text = (
            f"{self.path!r} is a link that was changed, and leads out of its folder and of ALLOWED_ROOTS of this device"
        )
        raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, text)


class FileType(Struct, frozen=True):
    """The files that match one of `patterns`, as `globs`; each lies beneath one of `folders`, above the wildcards."""

    patterns: tuple[str, ...]
    globs: Globs
    folders: tuple[CheckedFolder, ...]


class Located(NamedTuple):
    """Where to open a path: the setting that allows it, the folder, and the name beneath it as `os` takes it."""

    rule: str
    folder: CheckedFolder
    name: str

    @property
    def real(self) -> str:
        """The path of the file without links, as it is spelled on the wire."""
        return f"{(self.folder.resolved or self.folder.written).rstrip('/')}/{spelled(self.name)}"


class Roots:
    """The files that may be read: all beneath `roots`, those that match a glob of `types`, and the one file `exact`.

    These are `ALLOWED_ROOTS`, `TYPES` and `FILE_PATH`: paths as `os` takes them, and globs as the wire spells them.
    Below a root, and below the folder above a glob's wildcards, no link is followed. The agent's `own` files are never
    read, nor what the `policy` does not allow. `SettingsError` for a relative path, `SchemaError` for a wrong glob.
    """

    def __init__(
        self,
        roots: Sequence[str] = (),
        exact: str | None = None,
        *,
        types: Mapping[str, Sequence[str]] = NO_TYPES,
        own: OwnFiles = NO_FILES,
        policy: DevicePolicy = DEFAULT_POLICY,
    ) -> None:
        for path in (*roots, *filter(None, (exact,))):
            if not path.startswith("/"):
                text = f"ALLOWED_ROOTS and FILE_PATH take absolute paths; {path!r} is not one"
                raise SettingsError(text)
        self.own = own
        self.policy = policy
        self.folders = tuple(CheckedFolder(root) for root in sorted({os.path.normpath(root) for root in roots}))
        self._exact = ExactFile(os.path.normpath(exact)) if exact else None
        self.types = {name: _file_type(globs) for name, globs in types.items()}
        inside = [place for kind in self.types.values() for place in kind.folders]
        self._fences = None if policy.roots is None else tuple(map(CheckedFolder, policy.roots))
        settle = [place.settle for place in (*self.folders, *inside, *(self._fences or ()))]
        settle.append(self._resolve_policy)
        _at_once([*settle, self._exact.settle] if self._exact else settle)

    @property
    def exact(self) -> str | None:
        """`FILE_PATH`, as it is spelled on the wire."""
        return self._exact.path if self._exact else None

    def patterns_of(self, kind: str) -> tuple[str, ...]:
        """The patterns of a file type; none of one that this device does not have."""
        found = self.types.get(kind)
        return () if found is None else found.patterns

    def locate(self, path: str) -> tuple[CheckedFolder, str]:
        """The folder to open, and the path beneath it as `os` takes it; `FileRefused` for a path outside."""
        found = self.decide(path)
        return found.folder, found.name

    def decide(self, path: str) -> Located:
        """The same, with the setting that allows the path; `RefusedByPolicy` where the policy does not."""
        found = self._by_settings(path)
        real = found.real
        if not self.policy.reaches(path) or not self._is_fenced(real):
            raise self.policy.outside(path)
        self.policy.require_path(path, real)
        if (asking := self.policy.asks_for((real,))) is not None and self.asks_for(path) is None:
            # FILE_PATH is a link that was changed: the consent was for another file, or none was needed.
            raise self.policy.unasked(path, asking)
        return found

    def setting_for(self, path: str) -> str:
        """The setting that allows a path, whether the policy does or not; `FileRefused` without one."""
        return self._by_settings(path).rule

    def denied_below(self, place: CheckedFolder) -> State | None:
        """What is denied below this folder of a setting, for a walk of it; None where nothing there may be listed."""
        real = place.resolved or place.written
        if not self._is_fenced(real, above=True):
            return None
        state = State()
        for name in (place.written, real):
            denied = self.policy.denies.enter(name)
            if denied is None:
                return None
            state |= denied
        return state

    def asks_for(self, path: str) -> str | None:
        """The class of the policy that needs consent for this path; no file system is read for it."""
        return self.policy.asks_for((path, self._known(path)))

    def _resolve_policy(self) -> None:
        self.policy = self.policy.resolved(_real)

    def _is_fenced(self, real: str, *, above: bool = False) -> bool:
        """Whether a path without links is one of the policy's `roots`, lies in one, or `above` one."""
        if self._fences is None:
            return True
        places = [place.resolved or place.written for place in self._fences]
        components = real.split("/")[1:]
        inside = any(real == place or beneath(place, components) for place in places)
        return inside or (above and any(f"{place}/".startswith(f"{real.rstrip('/')}/") for place in places))

    def _by_settings(self, path: str) -> Located:
        components = require_plain(path)
        if self._exact is not None and path == self._exact.path:
            return Located("FILE_PATH", *self._exact.locate(self.folders))
        for place in self.folders:
            # A folder whose file system does not answer has no resolved name, and delays no other one here.
            for root in filter(None, (place.written, place.resolved)):
                inside = beneath(root, components)
                if inside:
                    return Located(f"ALLOWED_ROOTS {place.written}", place, _name_of("/".join(inside)))
        for name, kind in self.types.items():
            if kind.globs.matches(path):
                place = next(place for place in kind.folders if beneath(place.written, components))
                return Located(f"TYPES {name}", place, _name_of("/".join(beneath(place.written, components))))
        text = f"{path!r} lies outside ALLOWED_ROOTS of this device"
        raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, text)

    def mount_of(self, path: str) -> str:
        """The mount point that holds a path; no file system is read for it."""
        return mount_of(self._known(path))

    def _known(self, path: str) -> str:
        """The path without the links that the folders of the settings had at the start."""
        if self._exact is not None and path == self._exact.path:
            return self._exact.known_target
        for place in (*self.folders, *(place for kind in self.types.values() for place in kind.folders)):
            inside = beneath(place.written, path.split("/")[1:])
            if inside and place.place is not None:
                return f"{place.place.rstrip('/')}/{'/'.join(inside)}"
        return path


def require_plain(path: str) -> list[str]:
    """The components of an absolute path; `FileRefused` for any other path, or a component such as `..`."""
    try:
        return components_of(path)
    except SchemaError as error:
        raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, str(error)) from error


def _file_type(globs: Sequence[str]) -> FileType:
    folders = {unspelled(fixed_folder(glob)) for glob in globs}
    return FileType(tuple(globs), Globs(globs), tuple(CheckedFolder(folder) for folder in sorted(folders)))


def _real(path: str) -> str:
    """A path without links, both as they are spelled on the wire; the path itself where that cannot be found out."""
    try:
        return spelled(os.path.realpath(unspelled(path)))
    except (OSError, ValueError, SchemaError):
        return path


def _name_of(path: str) -> str:
    try:
        return unspelled(path)
    except SchemaError as error:
        raise FileRefused(ErrorCode.PATH_NOT_ALLOWED, str(error)) from error


def beneath(root: str, components: list[str]) -> list[str]:
    """The components of a path below `root`; empty when it lies outside.

    >>> beneath("/data", ["data", "a", "b"]), beneath("/", ["a"]), beneath("/data", ["database"])
    (['a', 'b'], ['a'], [])
    """
    folders = [folder for folder in root.split("/") if folder]
    return components[len(folders) :] if components[: len(folders)] == folders else []


def _at_once(calls: Sequence[Callable[[], None]]) -> None:
    """Make calls that a file system may never answer, each on a separate thread; wait `START_PATIENCE` for all."""
    threads = [threading.Thread(target=call, name="settle", daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    until = time.monotonic() + START_PATIENCE
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
