"""Cases of a matrix: for each a control plane and an agent of its own, with two uploads, and what came of them.

Rule: a case is run once, in a thread, and judged by tests; it ends all its processes itself.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from broker.server import Broker, free_port
from control_plane.cli.site.stack import BUCKET
from schemas.names import RECEIPT_SUFFIX
from tests.support.fault_sites import CHUNK, MIB, SERVE, FaultSite, SiteProcess, plane_settings
from tests.support.patience import came_true
from tests.support.proxy import Proxy
from tests.support.strict_s3 import Operation, StrictControl, StrictServer, start_strict

SIZES: Final = {"one put 100% ü+.bin": MIB // 2, "parts.bin": CHUNK + MIB}
"""The files of a case: one that is sent by one PUT where the object store allows that, and one of parts."""

MOST: Final = 1.3
"""Bytes of parts that may arrive for each byte of a file."""

PATIENCE: Final = 120.0
"""Seconds that a step of a case may take on a busy machine."""

_DATA: Final = frozenset({Operation.PUT_OBJECT, Operation.UPLOAD_PART})
_PROBE: Final = re.compile(r"(uploads/)?\.backhaul-probe/\d/[^/]+")
"""Keys of the probe: few, and fixed."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One upload at the end of its case. `reasons` are all its reason codes, with their texts."""

    upload: Mapping[str, Any]
    reasons: Mapping[str, str]
    equal: bool
    received: int
    size: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case. `ready` is what readiness shows, 503 or not, and `strays` what nothing of this site needs any more."""

    ready: Mapping[str, Any]
    sent: tuple[Sent, ...]
    strays: tuple[str, ...]
    connected: bool
    listed: tuple[str, ...]


@dataclass
class Case:
    """One running control plane and its object store; agents are added by `site.agent`."""

    site: FaultSite
    store: StrictServer
    client_id: str
    prefix: str = ""
    """Of the object keys that are looked at, where other cases use the same object store."""

    seen: dict[str, dict[str, str]] = field(default_factory=dict)

    def until(self, condition: Callable[[], object], what: str | Callable[[], str]) -> None:
        """Wait for a condition, and look seldom: other cases run at the same time."""
        if not came_true(condition, PATIENCE, 0.15):
            awaited = what if isinstance(what, str) else what()
            pytest.fail(f"waited {PATIENCE:.0f} s for {awaited}\n{self.site.log_tail()}")

    def readiness(self) -> dict[str, Any]:
        """What readiness shows."""
        return dict(self.site.http.get(f"{self.site.server}/health/ready").json())

    def answers(self) -> bool:
        """Whether the control plane answers at all."""
        try:
            return self.site.http.get(f"{self.site.server}/health", timeout=5).is_success
        except httpx.TransportError:
            return False

    def look(self, upload_id: str) -> dict[str, Any]:
        """One upload; its reason is remembered."""
        upload = self.site.upload(upload_id)
        if reason := upload["reason"]:
            self.seen.setdefault(upload_id, {})[reason["code"]] = reason["text"]
        return upload

    def outcome(self, ready: Mapping[str, Any], uploads: Mapping[str, Path]) -> Outcome:
        """What came of the uploads, by their ids and files; all have ended, and the agent runs."""
        site = self.site
        self.until(lambda: site.connected(self.client_id), "the client to be connected")
        shown = {upload_id: self.look(upload_id) for upload_id in uploads}
        keys = {upload["s3_key"] for upload in shown.values() if upload["state"] == "completed"}
        # What attempts left is removed after their end.
        self.until(lambda: not self._strays(keys), lambda: f"the strays to go: {self._strays(keys)}")
        return Outcome(
            ready,
            tuple(self._sent(upload, uploads[upload_id]) for upload_id, upload in shown.items()),
            self._strays(keys),
            site.connected(self.client_id),
            tuple(
                one["path"]
                for one in site.get(
                    f"/clients/{self.client_id}/files?pattern={site.directory}/{self.client_id}/files/*"
                )["files"]
            ),
        )

    def _sent(self, upload: dict[str, Any], path: Path) -> Sent:
        stored = self.store.storage.bucket(BUCKET).objects.get(upload["s3_key"])
        content = path.read_bytes()
        received = sum(
            one.received for one in self.store.events if one.operation in _DATA and one.key == upload["s3_key"]
        )
        reasons = self.seen.get(upload["upload_id"], {})
        return Sent(upload, reasons, stored is not None and stored.read() == content, received, len(content))

    def _strays(self, keys: set[str]) -> tuple[str, ...]:
        """Open multipart uploads, and objects that are none of `keys`, nor their receipts, nor the probe's.

        Of the probe's, versions.
        """
        storage = self.store.storage
        bucket = storage.bucket(BUCKET)
        found = {key for key in list(bucket.objects) if not _PROBE.fullmatch(key)} | {*bucket.versions.values()}
        found |= {one.key for one in list(storage.uploads.values())}
        kept = keys | {f"{key}{RECEIPT_SUFFIX}" for key in keys}
        return tuple(sorted(key for key in found - kept if key.startswith(self.prefix)))


@contextmanager
def running_case(
    directory: Path, mosquitto: Broker, mqtt_url: str | None = None, settings: Mapping[str, str] | None = None
) -> Iterator[Case]:
    """A control plane under a `TOPIC_ROOT` of its own, not waited for; `mqtt_url` is where it finds the broker.

    Presigned URLs lead to the object store itself; `site.s3` is a proxy before it for cases that want one.
    """
    with ExitStack() as stack:
        store = stack.enter_context(start_strict(directory / "store"))
        port = int(store.s3.endpoint.rpartition(":")[2])
        mqtt, s3 = stack.enter_context(Proxy(mosquitto.address.port)), stack.enter_context(Proxy(port))
        server, home = free_port(), directory / "plane"
        given = {
            **plane_settings(home, mosquitto, store.s3, s3, server),
            "S3_PUBLIC_ENDPOINT": "",
            "MQTT_URL": mqtt_url or mosquitto.address.url,
            "TOPIC_ROOT": f"matrix/{directory.name}",
            **{name: text.format(store=port, proxy=s3.port) for name, text in (settings or {}).items()},
        }
        plane = stack.enter_context(SiteProcess(SERVE, given, home / "plane.log"))
        url = f"http://127.0.0.1:{server}"
        site = FaultSite(directory, mosquitto, store.s3, StrictControl(port), mqtt, s3, plane, url, stack)
        stack.callback(site.end_agents)
        yield Case(site, store, f"at-{directory.name}".replace("_", "-"))


def agent_settings(case: Case, mqtt_url: str) -> dict[str, str]:
    """The settings of an agent of this case that differ from those of `FaultSite.agent`."""
    public = case.site.plane.settings["S3_PUBLIC_ENDPOINT"] or case.site.plane.settings["AWS_ENDPOINT"]
    scheme, _, host_port = public.partition("://")
    # Whether the bucket stands in the path or in the host is what a case may be about.
    hosts = f"{scheme}://{host_port},{scheme}://{BUCKET}.{host_port}"
    return {"MQTT_URL": mqtt_url, "UPLOAD_HOSTS": hosts, "TOPIC_ROOT": case.site.plane.settings["TOPIC_ROOT"]}
