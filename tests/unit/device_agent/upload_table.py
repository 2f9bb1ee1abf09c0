"""Uploads and commands over a real journal, for tests of the state between two turns of the loop.

Rule: nothing runs by itself; `flush` commits and runs the effects at once.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from device_agent.after.policy import AfterPolicy
from device_agent.commands import Commands
from device_agent.durability import Durability
from device_agent.errors import PutFailed, PutFailure
from device_agent.queries.answers import Query
from device_agent.state.installation import Installation
from device_agent.state.journal import Journal
from device_agent.transfer.events import (
    Digested,
    DigestParts,
    Measured,
    MeasureSource,
    Opened,
    OpenSource,
    PublishResponse,
    PutPart,
)
from device_agent.uploads import DeferredEffect, Run, Uploads
from schemas.messages import Command, Response
from schemas.parts import MIB
from schemas.values import PresignedPart
from tests.unit.device_agent.device import fingerprint


@dataclass
class UploadTable:
    """Uploads and commands over a real journal, without threads."""

    folder: Path
    workers: int = 4
    responses: list[Response] = field(default_factory=list)
    queries: list[Command] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of the file of an upload, where they are not 10 MiB."""
    foreign: bool = False
    disk_failure: str | None = None

    def __post_init__(self) -> None:
        self.journal, transfers = Journal.open(self.folder)
        self.durability = Durability(self.journal, lambda _token: None)
        self.uploads = Uploads(self.journal, transfers.values(), workers=self.workers, now=0.0, wall=lambda: 1.0)
        self.commands = Commands(
            self.uploads,
            self.journal,
            installation=Installation.open(self.folder),
            default_file=None,
            check_url=self.check,
            disk_failure=lambda: self.disk_failure,
            publish=self.responses.append,
            run_query=self.query,
            patterns_of=lambda _type: (),
            after_refusal=AfterPolicy().refusal,
            after_acknowledged=lambda _upload_id, _close: None,
        )

    def query(self, command: Command, _query: Query, _scope: str) -> bool:
        self.queries.append(command)
        return True

    def check(self, _url: PresignedPart) -> None:
        if self.foreign:
            raise PutFailed(PutFailure.HOST_NOT_ALLOWED, "evil:443 is not in UPLOAD_HOSTS of this device")

    def command(self, action: str, message_id: str = "m1", **payload: Any) -> None:  # noqa: ANN401
        message = {"message_id": message_id, "action": action, "payload": payload}
        self.commands.receive(msgspec.json.encode(message), 1.0)

    def download(self, upload_id: str, *, attempt: int = 1, **more: Any) -> Run | None:  # noqa: ANN401
        config = {"upload_id": upload_id, "attempt": attempt}
        self.command("download_file", f"b-{upload_id}-{attempt}", file_path="/d/a", upload_config=config, **more)
        return self.uploads.get(upload_id)

    def take_early(self) -> list[tuple[Run, DeferredEffect]]:
        """The effects that run before the next commit."""
        return self.uploads.take_effects(self.durability.may_run_early)

    def flush(self) -> list[Response]:
        """Commit, and run the effects at once; the published responses."""
        responses = []
        self.journal.commit()
        while effects := self.uploads.take_effects():
            for run, effect in effects:
                match effect:
                    case PublishResponse(response=response):
                        responses.append(response)
                    case MeasureSource():
                        self.uploads.handle(run, Measured(now=1.0, size=self.sizes.get(run.upload_id, 10 * MIB)))
                    case OpenSource():
                        size = self.sizes.get(run.upload_id, 10 * MIB)
                        self.uploads.handle(run, Opened(now=1.0, fingerprint=fingerprint(size)))
                    case DigestParts(parts=parts):
                        digests = {part.number: "d" for part in parts}
                        self.uploads.handle(run, Digested(now=1.0, digests=digests))
                    case _:
                        pass
            self.journal.commit()
        return responses

    def begun(self, now: float) -> list[str]:
        """The uploads of the parts that idle senders start, one entry for each part."""
        self.uploads.effects.clear()
        self.uploads.tick(now, 0.5)
        self.uploads.schedule(now)
        return sorted(run.upload_id for run, effect in self.uploads.effects if isinstance(effect, PutPart))


@pytest.fixture
def table(tmp_path: Path) -> UploadTable:
    return UploadTable(tmp_path)
