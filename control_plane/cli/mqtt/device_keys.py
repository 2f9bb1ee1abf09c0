"""The operator file: the keys of the devices that this operator knows, against which their messages are verified.

Rule: only the operator adds a key: by a fingerprint that they typed, or `--trust-first`. The file is 0600,
and replaced as a whole.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from broker.atomic_file import replace_file
from control_plane.cli.errors import Misused
from control_plane.settings import Settings
from schemas.errors import SchemaError
from schemas.signing.documents import KeyText
from schemas.signing.ed25519 import Verifier
from schemas.topics import CLIENT_ID_PATTERN
from schemas.values import Instant

NAME: Final = "device-keys.json"
MAX_FILE: Final = 64 * 1024 * 1024
"""Bytes; enough for more devices than one person commands."""

_CHANGED_BY_OTHERS: Final = 0o022


class PinnedKey(Struct, frozen=True, forbid_unknown_fields=True):
    """The key of one device of one fleet; `topic_root` distinguishes fleets."""

    topic_root: Annotated[str, Meta(min_length=1, max_length=1024)]
    client_id: Annotated[str, Meta(pattern=CLIENT_ID_PATTERN)]
    public_key: KeyText
    pinned_at: Instant

    @property
    def verifier(self) -> Verifier:
        """What verifies the messages of the device."""
        return Verifier.of_text(self.public_key)


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["backhaul-device-keys-v1"]
    devices: tuple[PinnedKey, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceKeys:
    """The keys of one fleet in the operator file. Without the file none is pinned. `Misused` when it cannot be used.

    `place` is None for a user without a home folder, who named no file: then nothing can be pinned.
    """

    place: Path | None
    topic_root: str

    @classmethod
    def of(cls, settings: Settings) -> "DeviceKeys":
        """Those of these settings: `DEVICE_KEYS_FILE`, else a file in the user's configuration."""
        if settings.device_keys_file is not None:
            return cls(Path(settings.device_keys_file), settings.topic_root)
        try:
            base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        except (RuntimeError, KeyError):
            return cls(None, settings.topic_root)
        return cls(base / "backhaul" / NAME, settings.topic_root)

    @property
    def path(self) -> Path:
        """The file; `Misused` without a place for it."""
        if self.place is None:
            text = "this user has no home folder: name a file in DEVICE_KEYS_FILE"
            raise Misused(text)
        return self.place

    def all(self) -> tuple[PinnedKey, ...]:
        """The pinned keys of this fleet, by client id."""
        return tuple(one for one in self._read() if one.topic_root == self.topic_root)

    def of_client(self, client_id: str) -> PinnedKey | None:
        """The key of a device; None when none is pinned."""
        return next((one for one in self.all() if one.client_id == client_id), None)

    def pin(self, client_id: str, verifier: Verifier) -> PinnedKey:
        """Pin the key of a device in place of any other, durable on return."""
        pinned = PinnedKey(self.topic_root, client_id, verifier.text, datetime.now(UTC).replace(microsecond=0))
        self._change(lambda others: (*others, pinned), client_id)
        return pinned

    def remove(self, client_id: str) -> None:
        """Pin no key of this device any more; one that has none stays so."""
        self._change(lambda others: others, client_id)

    def _change(self, change: Callable[[tuple[PinnedKey, ...]], tuple[PinnedKey, ...]], client_id: str) -> None:
        """Write what `change` makes of all entries but that of this device."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _locked(self.path):
                name = (self.topic_root, client_id)
                others = tuple(one for one in self._read() if (one.topic_root, one.client_id) != name)
                ordered = sorted(change(others), key=lambda one: (one.topic_root, one.client_id))
                content = msgspec.json.encode(_File("backhaul-device-keys-v1", tuple(ordered)))
                replace_file(self.path, msgspec.json.format(content, indent=2) + b"\n")
        except OSError as error:
            text = f"{error.filename or self.path}: {error.strerror}: name another file in DEVICE_KEYS_FILE"
            raise Misused(text) from error

    def _read(self) -> tuple[PinnedKey, ...]:
        if self.place is None:
            return ()
        try:
            with self.place.open("rb") as file:
                # Its content decides which devices' messages are taken.
                if os.fstat(file.fileno()).st_mode & _CHANGED_BY_OTHERS:
                    text = f"{self.place}: other users may change these keys: chmod 600 it"
                    raise Misused(text)
                content = file.read(MAX_FILE + 1)
            found = msgspec.json.decode(content, type=_File).devices
            for one in found:
                Verifier.of_text(one.public_key)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            text = f"{self.place}: {error.strerror}"
            raise Misused(text) from error
        except (msgspec.DecodeError, SchemaError, UnicodeDecodeError) as error:
            text = f"{self.place}: these are no keys of devices: {error}"
            raise Misused(text) from error
        return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two commands that pin at the same time change the file one after the other."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
