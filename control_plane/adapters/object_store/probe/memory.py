"""The result of the last probe, for programs that run for one upload.

Rule: one small file for each endpoint, bucket and access key; it holds no secret, and counts for an hour.
"""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from control_plane.adapters.object_store.settings import S3Settings
from control_plane.services.ports.object_store import ObjectStoreCapabilities

VALID_FOR: Final = 3_600.0


class _Remembered(msgspec.Struct, forbid_unknown_fields=True):
    at: float
    addressing: str
    seen: ObjectStoreCapabilities


@dataclass(frozen=True, slots=True)
class ProbeMemory:
    """Results below `folder`. What cannot be read or written counts as forgotten."""

    folder: Path
    now: Callable[[], float] = time.time

    def recall(self, settings: S3Settings, access_key: str | None) -> tuple[str, ObjectStoreCapabilities] | None:
        """The form of address and the result of a probe in the last hour; None without one."""
        try:
            found = msgspec.json.decode(self._path(settings, access_key).read_bytes(), type=_Remembered)
        except (OSError, msgspec.MsgspecError):
            return None
        return (found.addressing, found.seen) if 0 <= self.now() - found.at < VALID_FOR else None

    def keep(
        self, settings: S3Settings, access_key: str | None, addressing: str, seen: ObjectStoreCapabilities
    ) -> None:
        """Remember the result of a probe."""
        path = self._path(settings, access_key)
        fresh = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(_Remembered(self.now(), addressing, seen)))
            fresh.replace(path)

    def forget(self, settings: S3Settings, access_key: str | None) -> None:
        """Forget the result."""
        with suppress(OSError):
            self._path(settings, access_key).unlink(missing_ok=True)

    def _path(self, settings: S3Settings, access_key: str | None) -> Path:
        names = (settings.endpoint, settings.public_endpoint, settings.region, settings.bucket, settings.base_path)
        ways = (settings.encryption, settings.addressing, settings.digest, access_key)
        mark = hashlib.sha256("\n".join(name or "" for name in (*names, *ways)).encode()).hexdigest()
        return self.folder / f"{mark[:32]}.json"
