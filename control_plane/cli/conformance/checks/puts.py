"""Section 4.4: what the answer to a PUT means.

Rule: the first part of an upload gets planned answers; the others are stored.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from control_plane.cli.conformance.bench.findings import Wrong, require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.store import PutAnswer
from control_plane.cli.conformance.bench.talk import Report, Talk
from control_plane.cli.conformance.catalogue import LONG, check

_BACKOFF: Final = 20.0
"""Seconds that two repetitions with backoff may take."""

_RETRY_AFTER: Final = 2
_MANY: Final = 50
_TIMES: Final = 3
_SETTLED: Final = 3.0
_EARLY: Final = 0.2


async def _begin(bench: Bench, answers: Sequence[PutAnswer]) -> tuple[Talk, int]:
    """An upload whose first part is answered like this; the talk, and the number of that part."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    number = int(offer.wanted[0]["part_number"])
    await talk.grant_wanted(offer, {number: answers})
    return talk, number


async def _survives(bench: Bench, answer: PutAnswer, what: str) -> Talk:
    """One such answer, and the upload succeeds all the same under the same URL."""
    talk, number = await _begin(bench, [answer])
    report = await talk.report(bench.patience + _BACKOFF)
    if report.status not in {"success", "in_progress"}:
        expected = f"the part tried again after {what}"
        raise Wrong(expected, report.brief())
    end = await talk.finish(report, bench.patience + _BACKOFF)
    require(end.status == "success", f"`success` after {what}", end.brief())
    tries = len(talk.grants[0].puts)
    require(tries > 1, f"part {number} tried again under the same URL after {what}", f"{tries} PUT")
    return talk


@check(
    "put.unavailable",
    section="4.4",
    title="503 with an S3 code is tried again with backoff",
    remedy="Try 5xx, 408, 425, 429, `SlowDown`, `RequestTimeout` and `InternalError` again, with growing pauses.",
)
async def unavailable(bench: Bench) -> None:
    """`SlowDown`."""
    await _survives(bench, PutAnswer(503, "SlowDown"), "503 `SlowDown`")


@check(
    "put.retry-after",
    section="4.4",
    title="`Retry-After` is obeyed",
    remedy="Pause for `Retry-After` seconds at least.",
)
async def retry_after(bench: Bench) -> None:
    """503 with `Retry-After: 2`."""
    talk = await _survives(
        bench, PutAnswer(503, "SlowDown", {"Retry-After": str(_RETRY_AFTER)}), "503 with Retry-After"
    )
    puts = sorted((put for put in talk.grants[0].puts), key=lambda put: put.began)
    pause = puts[1].began - puts[0].ended
    require(pause > _RETRY_AFTER - _EARLY, f"{_RETRY_AFTER} s before the next PUT", f"{pause:.1f} s")


@check(
    "put.portal",
    section="4.4",
    title="403 without an S3 error document is no refusal of the object store",
    remedy="Only `<Error>…<Code>` is the object store's answer; try any other 3xx, 4xx or 5xx again with backoff.",
)
async def portal(bench: Bench) -> None:
    """A captive portal answers in place of the object store."""
    page = b"<html><body>Please accept the terms.</body></html>"
    await _survives(bench, PutAnswer(403, headers={"Content-Type": "text/html"}, body=page), "403 of a portal")


@check(
    "put.reset",
    section="4.4",
    title="A connection that is reset is tried again",
    remedy="Catch resets and timeouts of the HTTP library, and try again with backoff.",
)
async def reset(bench: Bench) -> None:
    """The object store closes the connection without an answer."""
    await _survives(bench, PutAnswer(reset=True), "a reset")


@check(
    "put.no-etag",
    section="4.4",
    title="2xx without an ETag is not stored",
    remedy="Count a part as stored only when the answer has an ETag; try again otherwise.",
)
async def no_etag(bench: Bench) -> None:
    """200 without ETag, as a proxy would answer."""
    await _survives(bench, PutAnswer(200, etag=""), "200 without an ETag")


@check(
    "put.precondition",
    section="4.4",
    title="412 counts as stored, with an empty ETag",
    remedy='An earlier PUT may have succeeded: report the part with the ETag `""`; the owner\'s HEAD decides.',
)
async def precondition(bench: Bench) -> None:
    """412 `PreconditionFailed`."""
    talk, number = await _begin(bench, [PutAnswer(412, "PreconditionFailed")])
    end = await talk.report()
    require(end.status == "success", "`success`", end.brief())
    seen = end.etags.get(str(number))
    require(seen == "", f"an empty ETag of part {number}", repr(seen))


@check(
    "put.gone",
    section="4.4",
    title="404 `NoSuchUpload` is `upload_gone`",
    remedy="End the attempt with `error` `upload_gone`: the multipart upload does not exist any more.",
)
async def gone(bench: Bench) -> None:
    """The multipart upload was aborted."""
    talk, _ = await _begin(bench, [PutAnswer(404, "NoSuchUpload")] * _MANY)
    await talk.ended("error", "upload_gone")


@check(
    "put.refused",
    section="4.4",
    title="The second refusal of a part is `storage_refused`",
    remedy="After 401, 403 or another 4xx with an S3 code request a new URL; report the second refusal with the status"
    " and the code in `message`.",
)
async def refused(bench: Bench) -> None:
    """403 `AccessDenied`, under two URLs."""
    talk, number = await _begin(bench, [PutAnswer(403, "AccessDenied")] * _MANY)
    again = await talk.request()
    require(number in again.numbers, f"a request for part {number}", again.brief())
    await talk.grant_wanted(again, {number: [PutAnswer(403, "AccessDenied")] * _MANY})
    end: Report = await talk.ended("error", "storage_refused")
    text = str(end.document.get("message"))
    require("403" in text and "AccessDenied" in text, "status and code in `message`", text)


@check(
    "put.bad-digest",
    section="4.4",
    title="400 `BadDigest` of an unchanged file is tried again, and the third time `digest_mismatch`",
    remedy="Stat the file: report `source_changed` if it changed; else try again, twice.",
)
async def bad_digest(bench: Bench) -> None:
    """The object store receives other bytes, three times."""
    # An agent may doubt the times of a file that changed a moment ago, and call this a change.
    sample = bench.samples.any()
    await asyncio.sleep(max(0.0, _SETTLED - bench.samples.age(sample)))
    talk, number = await _begin(bench, [PutAnswer(400, "BadDigest")] * _MANY)
    report = await talk.report(bench.patience + _BACKOFF)
    while report.status == "in_progress":
        await talk.grant_wanted(report, {number: [PutAnswer(400, "BadDigest")] * _MANY})
        report = await talk.report(bench.patience + _BACKOFF)
    require((report.status, report.error) == ("error", "digest_mismatch"), "`error` `digest_mismatch`", report.brief())
    puts = sum(len(url.puts) for url in talk.grants if url.part_number == number)
    require(puts == _TIMES, f"{_TIMES} tries", f"{puts}")


@check(
    "put.never-available",
    section="4.4",
    title="An object store that stays unavailable ends in `storage_unavailable`",
    remedy="After 8 failures of a part end the attempt with `error` `storage_unavailable`; the owner resumes it.",
    needs=(LONG,),
)
async def never_available(bench: Bench) -> None:
    """503 for ever: up to four minutes."""
    talk, _ = await _begin(bench, [PutAnswer(503, "SlowDown")] * _MANY)
    await talk.ended("error", "storage_unavailable", patience=400.0)
