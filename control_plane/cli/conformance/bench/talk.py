"""The owner's side of one upload, a step at a time.

Rule: a step publishes one command, or takes one response of the agent. What an agent answers instead is `Wrong`.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from control_plane.cli.conformance.bench.findings import fail
from control_plane.cli.conformance.bench.store import HEADER_OF, GrantedUrl, PutAnswer
from control_plane.cli.conformance.bench.transcript import Sent
from schemas.parts import MIN_CHUNK_SIZE

if TYPE_CHECKING:
    from control_plane.cli.conformance.bench.site import Bench


@dataclass(frozen=True, slots=True)
class Report:
    """One response of the agent; `index` is its place in the transcript."""

    index: int
    at: float
    document: Mapping[str, Any]
    payload: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, index: int, sent: Sent) -> "Report":
        """The response in an entry of the transcript."""
        document = sent.document
        payload = document.get("payload")
        return cls(index, sent.at, document, payload if isinstance(payload, dict) else {})

    @property
    def status(self) -> str:
        """The `status`."""
        return str(self.document.get("status"))

    @property
    def error(self) -> str | None:
        """The `error`."""
        code = self.document.get("error")
        return None if code is None else str(code)

    @property
    def sequence(self) -> int | None:
        """The `sequence`."""
        number = self.document.get("sequence")
        return number if isinstance(number, int) else None

    @property
    def etags(self) -> dict[str, str]:
        """The `etags`."""
        etags = self.payload.get("etags", {})
        return dict(etags) if isinstance(etags, dict) else {}

    @property
    def wanted(self) -> list[dict[str, Any]]:
        """The `wanted_parts`."""
        wanted = self.payload.get("wanted_parts", [])
        return [part for part in wanted if isinstance(part, dict)] if isinstance(wanted, list) else []

    @property
    def numbers(self) -> list[int]:
        """The part numbers of the `wanted_parts`."""
        return [part.get("part_number", 0) for part in self.wanted]

    def brief(self) -> str:
        """A short text of the response."""
        text = f"`{self.status}`"
        if self.error is not None:
            text += f" with `{self.error}`"
        if self.document.get("message"):
            text += f" ({self.document['message']})"
        if self.sequence is not None:
            text += f", sequence {self.sequence}"
        if self.wanted:
            text += f", which requests parts {self.numbers}"
        return text


class Talk:
    """One upload of one file, of which the kit is the owner."""

    def __init__(
        self, bench: "Bench", path: str | None, *, digest: str = "md5", chunk_size: int = MIN_CHUNK_SIZE
    ) -> None:
        self.bench = bench
        self.path = path
        self.digest = digest
        self.chunk_size = chunk_size
        self.upload_id = f"kit-{secrets.token_hex(8)}"
        self.message_id = secrets.token_hex(8)
        self.attempt = 1
        self.sequence = 0
        self.grants: list[GrantedUrl] = []
        self.mark = bench.transcript.mark

    @property
    def identity(self) -> dict[str, Any]:
        """`upload_id` and `attempt`."""
        return {"upload_id": self.upload_id, "attempt": self.attempt}

    def download(self, config: Mapping[str, Any] | None = None, **payload: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """The `download_file` of this attempt; `config` and `payload` add members."""
        upload_config = {
            **self.identity,
            "owner": self.bench.owner.name,
            "digest": self.digest,
            "chunk_size": self.chunk_size,
            **(config or {}),
        }
        named = {} if self.path is None else {"file_path": self.path}
        return {
            "message_id": self.message_id,
            "action": "download_file",
            "payload": {"upload_config": upload_config, "acknowledges": self.sequence, **named, **payload},
        }

    async def start(self, config: Mapping[str, Any] | None = None, **payload: Any) -> None:  # noqa: ANN401 - JSON
        """Publish the `download_file` of this attempt."""
        await self.bench.publish(self.download(config, **payload))

    async def offered(self, **payload: Any) -> Report:  # noqa: ANN401 - JSON
        """Publish the `download_file`, and take the offer."""
        await self.start(**payload)
        return await self.request()

    async def report(self, patience: float | None = None) -> Report:
        """The next response of this attempt with a sequence that was not taken yet."""
        found = await self.bench.transcript.until(self._next, patience or self.bench.patience)
        if found is None:
            fail(f"a response about the upload with a sequence above {self.sequence}", self._silence())
        self.sequence = found.sequence or self.sequence
        return found

    async def request(self, patience: float | None = None) -> Report:
        """The next response, which has to request parts."""
        found = await self.report(patience)
        if found.status != "in_progress":
            fail("a request for parts (`in_progress`)", found.brief())
        return found

    async def ended(self, status: str, error: str | None = None, *, patience: float | None = None) -> Report:
        """The next response, which has to be this end."""
        found = await self.report(patience)
        if (found.status, found.error) != (status, error):
            fail(f"`{status}`" + (f" with `{error}`" if error else ""), found.brief())
        return found

    def make(
        self,
        part: Mapping[str, Any],
        answers: Sequence[PutAnswer] = (),
        headers: Mapping[str, str] | None = None,
    ) -> GrantedUrl:
        """A URL for one wanted part, bound to its digest."""
        given = dict(headers or {})
        if self.digest in HEADER_OF and part.get("digest"):
            given[HEADER_OF[self.digest]] = str(part["digest"])
        made = self.bench.store.grant(self.upload_id, int(part["part_number"]), given, answers)
        self.grants.append(made)
        return made

    async def grant(
        self,
        urls: Sequence[GrantedUrl],
        *,
        expires_in: float = 900,
        config: Mapping[str, Any] | None = None,
        **payload: Any,  # noqa: ANN401 - JSON
    ) -> dict[str, Any]:
        """Publish a grant of these URLs; returns the command."""
        given = {"presigned_urls": [url.as_part() for url in urls], "expires_in": expires_in}
        command = {
            "message_id": f"{self.upload_id}.{self.attempt}.{secrets.token_hex(3)}",
            "action": "grant_parts",
            "payload": {
                "acknowledges": self.sequence,
                "upload_config": {**self.identity, **(given if urls else {}), **(config or {})},
                **payload,
            },
        }
        await self.bench.publish(command)
        return command

    async def grant_wanted(self, report: Report, answers: Mapping[int, Sequence[PutAnswer]] | None = None) -> None:
        """Grant all that a response requests, with planned answers for some parts."""
        planned = answers or {}
        await self.grant([self.make(part, planned.get(part["part_number"], ())) for part in report.wanted])

    async def finish(self, report: Report, patience: float | None = None) -> Report:
        """Grant all that is requested until the upload ends; that end."""
        while report.status == "in_progress":
            await self.grant_wanted(report)
            report = await self.report(patience)
        return report

    async def close(self, outcome: str = "completed") -> None:
        """Publish `close_upload`."""
        payload = {**self.identity, "acknowledges": self.sequence, "outcome": outcome}
        await self.bench.publish(
            {"message_id": f"{self.upload_id}.close", "action": "close_upload", "payload": payload}
        )

    async def cancel(self, message_id: str | None = None) -> str:
        """Publish `cancel_upload`; returns its message id."""
        message_id = message_id or secrets.token_hex(8)
        await self.bench.publish({"message_id": message_id, "action": "cancel_upload", "payload": self.identity})
        return message_id

    async def stored(self, count: int, patience: float | None = None) -> None:
        """Wait until so many of the granted parts are stored."""
        enough = await self.bench.transcript.until(
            lambda: sum(url.stored is not None for url in self.grants) >= count, patience or self.bench.patience
        )
        if not enough:
            done = sum(url.stored is not None for url in self.grants)
            latest = self.all_reports()[-1:]
            after = f"{done} after {patience or self.bench.patience:g} s"
            fail(f"{count} parts stored", after + "".join(f"; the latest response is {one.brief()}" for one in latest))

    def all_reports(self) -> list[Report]:
        """Every response about this upload so far, repeated ones too, of any attempt."""
        return [one for one in self.bench.reports(self.mark) if one.payload.get("upload_id") == self.upload_id]

    def _next(self) -> Report | None:
        found = [
            one
            for one in self.all_reports()
            if one.payload.get("attempt", 1) == self.attempt and (one.sequence or 0) > self.sequence
        ]
        return min(found, key=lambda one: one.sequence or 0, default=None)

    def _silence(self) -> str:
        reports = self.all_reports()
        return f"nothing new; its latest response is {reports[-1].brief()}" if reports else "no response about it"


async def settle(seconds: float) -> None:
    """Let something pass that should not happen: the only wait for time in the kit."""
    await asyncio.sleep(seconds)
