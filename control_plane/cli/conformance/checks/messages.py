"""Sections 0, 4 and 9: every message of the run, once more.

Rule: these run last and look back; they request nothing of the agent.
"""

from collections.abc import Callable
from typing import Final

from control_plane.cli.conformance.bench.findings import Wrong, require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.transcript import Sent
from control_plane.cli.conformance.catalogue import check
from schemas.codec import GRANT_FILL_SIZE, MAX_MESSAGE_SIZE, decode, decode_response
from schemas.errors import SchemaError
from schemas.messages import Presence, Status
from schemas.values import ERRORS, ErrorCode

_DECODERS: Final[dict[str, Callable[[bytes, Callable[[str], None]], object]]] = {
    "response": decode_response,
    "status": lambda data, dropped: decode(Status, data, dropped),
    "presence": lambda data, dropped: decode(Presence, data, dropped),
}


@check(
    "message.well-formed",
    section="General rules",
    title="Every message decodes, with the JSON types of the tables",
    remedy="Send only the types of the tables; leave out what has no value in place of `null`.",
    last=True,
)
async def well_formed(bench: Bench) -> None:
    """Every response, status and presence of the run; a wrong fact counts too."""
    for one in bench.transcript.of(Sent):
        reader = _DECODERS.get(one.channel)
        if reader is None or not one.facts.payload:
            continue
        dropped: list[str] = []
        try:
            reader(one.facts.payload, dropped.append)
        except SchemaError as error:
            expected = f"a `{one.channel}` as in the tables"
            raise Wrong(expected, f"{error}: {_excerpt(one)}") from error
        require(not dropped, f"facts of a `{one.channel}` as in the tables", f"{dropped} are wrong: {_excerpt(one)}")


def _excerpt(one: Sent) -> str:
    return one.facts.payload[:200].decode(errors="replace")


@check(
    "message.error-codes",
    section="4.5",
    title="Error codes are those of the table, with the status that belongs to them",
    remedy="Use a code of section 4.5 and its `status`; an owner gives up on a code that it does not know.",
    last=True,
)
async def error_codes(bench: Bench) -> None:
    """Every response of the run with an error."""
    for one in bench.reports():
        if one.error is None:
            continue
        code = ErrorCode.read(one.error)
        require(code is not ErrorCode.UNKNOWN, "a code of section 4.5", f"`{one.error}`")
        # A tombstone of a rejected upload is `rejected` with `upload_gone` (section 4.2).
        right = {str(ERRORS[code].travels_as)} | ({"rejected"} if code is ErrorCode.UPLOAD_GONE else set())
        require(one.status in right, f"`{one.error}` with `{ERRORS[code].travels_as}`", f"`{one.status}`")


@check(
    "message.no-url",
    section="3.3",
    title="No message has a presigned URL or a signature in it",
    remedy="Leave URLs out of responses, statuses and error texts: anyone who reads them could write to the bucket.",
    last=True,
)
async def no_url(bench: Bench) -> None:
    """Every message of the run."""
    secrets = [url.url.partition("X-Amz-Signature=")[2].partition("&")[0] for url in bench.store.granted]
    for one in bench.transcript.of(Sent):
        text = one.facts.payload.decode(errors="replace")
        found = "X-Amz-Signature" in text or any(secret in text for secret in secrets)
        require(not found, f"no URL in a `{one.channel}`", _excerpt(one))


@check(
    "message.size",
    section="9",
    title="Messages have at most 128 KiB, requests and pages at most 96 KiB",
    remedy="Request fewer parts, list fewer files, split the hello.",
    last=True,
)
async def size(bench: Bench) -> None:
    """Every message of the run."""
    for one in bench.transcript.of(Sent):
        count = len(one.facts.payload)
        require(count <= MAX_MESSAGE_SIZE, f"at most {MAX_MESSAGE_SIZE} bytes", count)
        document = one.document
        filled = document.get("action") == "hello" or document.get("status") == "in_progress"
        if one.channel == "response" and filled:
            require(count <= GRANT_FILL_SIZE, f"at most {GRANT_FILL_SIZE} bytes of a request or a hello", count)


@check(
    "message.strangers",
    section="3.3",
    title="No request was sent but to granted URLs",
    remedy="Send nothing to the object store but the granted PUTs: no HEAD, no GET, no probe of the host.",
    last=True,
)
async def strangers(bench: Bench) -> None:
    """Every request of the run."""
    seen = [f"{put.method} {put.target}" for put in bench.store.strangers]
    require(not seen, "requests to granted URLs only", seen[:3])
    require(bench.elsewhere.visits == 0, "no connection to another host", f"{bench.elsewhere.visits}")
