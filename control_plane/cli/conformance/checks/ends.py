"""Section 4.2: cancel, close and tombstones.

Rule: a close is not answered, so a question behind it shows that it was read.
"""

from control_plane.cli.conformance.bench.findings import require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.store import PutAnswer
from control_plane.cli.conformance.bench.talk import Report, Talk, settle
from control_plane.cli.conformance.catalogue import check

_SETTLE = 0.5
_OUTCOMES = (
    ("completed", "success", None),
    ("cancelled", "cancelled", None),
    ("rejected", "rejected", "upload_gone"),
    ("failed", "error", "upload_gone"),
    ("a-later-outcome", "error", "upload_gone"),
)


async def _done(bench: Bench) -> Talk:
    """An upload that has ended with `success`, and is not closed."""
    talk = bench.talk(bench.samples.any().path)
    end = await talk.finish(await talk.offered())
    require(end.status == "success", "`success`", end.brief())
    return talk


@check(
    "cancel.active",
    section="3",
    title="A cancel stops the upload and is answered `cancelled`",
    remedy="Stop sending, and answer `cancelled` with the next `sequence`.",
)
async def active(bench: Bench) -> None:
    """The object store is slow when the cancel arrives."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    slow = [PutAnswer(503, "SlowDown", {"Retry-After": "2"})] * 50
    await talk.grant_wanted(offer, dict.fromkeys(offer.numbers, slow))
    await bench.transcript.until(lambda: any(url.puts for url in talk.grants), bench.patience)
    await talk.cancel()
    end = await talk.report()
    require(end.status == "cancelled", "`cancelled`", end.brief())
    require(end.sequence == 2, "`sequence` 2", end.sequence)  # noqa: PLR2004 - after the offer
    await settle(_SETTLE)
    begun = [put.began for url in talk.grants for put in url.puts if put.began > end.at + _SETTLE]
    require(not begun, "no PUT after `cancelled`", f"{len(begun)}")


@check(
    "cancel.after-end",
    section="3",
    title="A cancel after another end is answered with that end",
    remedy="Publish the end again, with its `sequence`.",
)
async def after_end(bench: Bench) -> None:
    """An upload that has succeeded."""
    talk = await _done(bench)
    count = len(talk.all_reports())
    await talk.cancel()
    again = await bench.transcript.until(lambda: talk.all_reports()[count:], bench.patience)
    require(again, "the end again", "no answer")
    assert again is not None  # noqa: S101 - required above
    right = (again[0].status, again[0].sequence) == ("success", talk.sequence)
    require(right, f"`success`, sequence {talk.sequence}", again[0].brief())


@check(
    "cancel.unknown",
    section="3",
    title="A cancel of an unknown upload is answered `cancelled`, without a `sequence`",
    remedy="Answer `cancelled` with the `message_id` of the cancel: the owner then knows that nothing is left.",
)
async def unknown(bench: Bench) -> None:
    """An upload that the agent never had."""
    talk = bench.talk(None)
    mark = bench.transcript.mark
    answer = await bench.answer(await talk.cancel(), since=mark)
    require(answer.status == "cancelled", "`cancelled`", answer.brief())
    require(answer.sequence is None, "no `sequence`", answer.sequence)
    require(answer.payload.get("upload_id") == talk.upload_id, f"`upload_id` {talk.upload_id}", answer.payload)


@check(
    "close.silent",
    section="3",
    title="A close is not answered, and ends all repetitions",
    remedy="Forget the upload, keep its id and outcome, and publish nothing.",
)
async def silent(bench: Bench) -> None:
    """A close, twice."""
    talk = await _done(bench)
    count = len(talk.all_reports())
    for _ in range(2):
        await talk.close()
    await bench.fence()
    await settle(_SETTLE)
    after = talk.all_reports()[count:]
    require(not after, "no response after a close", after[0].brief() if after else "")


@check(
    "close.tombstone",
    section="4.2",
    title="A command for a closed upload is answered with its outcome",
    remedy="`completed` → `success`, `cancelled` → `cancelled`, `rejected` → `rejected` with `upload_gone`, any other →"
    " `error` with `upload_gone`; no `sequence`, no ETags.",
)
async def tombstone(bench: Bench) -> None:
    """Five outcomes, and a `download_file` of each."""
    for outcome, status, error in _OUTCOMES:
        talk = bench.talk(bench.samples.any().path)
        await talk.offered()
        await talk.close(outcome)
        mark = bench.transcript.mark
        talk.message_id = f"{talk.message_id}-again"
        await talk.start()
        answer = await bench.answer(talk.message_id, since=mark)
        _outcome(answer, outcome, status, error)


def _outcome(answer: Report, outcome: str, status: str, error: str | None) -> None:
    words = f"`{status}`" + (f" with `{error}`" if error else "")
    require((answer.status, answer.error) == (status, error), f"{words} after the outcome `{outcome}`", answer.brief())
    require(answer.sequence is None, "no `sequence`", answer.sequence)
    require(not answer.etags, "no ETags", answer.etags)


@check(
    "close.late-commands",
    section="4.2",
    title="A late grant of a closed upload sends nothing",
    remedy="Look for a tombstone before a grant is obeyed.",
)
async def late_commands(bench: Bench) -> None:
    """A grant and a cancel behind the close."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    urls = [talk.make(part) for part in offer.wanted]
    await talk.close("failed")
    mark = bench.transcript.mark
    command = await talk.grant(urls)
    _outcome(await bench.answer(command["message_id"], since=mark), "failed", "error", "upload_gone")
    _outcome(await bench.answer(await talk.cancel(), since=mark), "failed", "error", "upload_gone")
    puts = sum(len(url.puts) for url in urls)
    require(puts == 0, "no PUT", puts)
