"""Section 3.3: the life of a URL, waits and rates.

Rule: these take seconds by nature; each is as short as the protocol allows.
"""

from control_plane.cli.conformance.bench.findings import NotApplicable, require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.store import PutAnswer
from control_plane.cli.conformance.bench.transcript import Sent
from control_plane.cli.conformance.catalogue import check
from schemas.parts import MIB

_LIFE = 12.0
_PAUSE = 9
_WAIT = 3.0
_RATE = MIB
_EARLY = 0.3


@check(
    "grant.short-life",
    section="3.3",
    title="No part is begun on a URL with too little life left; a new URL is requested",
    remedy="Count `expires_in` from receipt, and request a part again when less than 10 s are left for it.",
)
async def short_life(bench: Bench) -> None:
    """A pause that the object store requests leaves 3 s of 12."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    number = offer.wanted[0]["part_number"]
    slow = talk.make(offer.wanted[0], [PutAnswer(503, "SlowDown", {"Retry-After": str(_PAUSE)})])
    await talk.grant([slow, *(talk.make(part) for part in offer.wanted[1:])], expires_in=_LIFE)
    again = await talk.request(bench.patience + _PAUSE)
    require(len(slow.puts) == 1, f"no PUT on a URL that has {_LIFE - _PAUSE:g} s left", f"{len(slow.puts)} PUTs")
    require(number in again.numbers, f"a request for part {number}", again.brief())
    end = await talk.finish(again)
    require(end.status == "success", "`success` with a new URL", end.brief())


@check(
    "grant.expired",
    section="4.4",
    title="403 after the life of a URL makes the agent request a new one",
    remedy="Request a new URL on 401 or 403 with an S3 code once the life of the URL is over; this is no refusal.",
)
async def expired(bench: Bench) -> None:
    """A URL expires during its PUT; the next one is refused once, and that is the first refusal."""
    talk = bench.talk(bench.samples.any().path)
    report = await talk.offered()
    number = report.wanted[0]["part_number"]
    late = PutAnswer(403, "AccessDenied", delay=_LIFE + _EARLY)
    await talk.grant(
        [talk.make(part, [late] * 9 if part is report.wanted[0] else ()) for part in report.wanted], expires_in=_LIFE
    )
    for answers in ([PutAnswer(403, "AccessDenied")] * 9, []):
        again = await talk.request(bench.patience + _LIFE)
        require(number in again.numbers, f"a request for part {number}", again.brief())
        await talk.grant_wanted(again, {number: answers})
    end = await talk.finish(await talk.report())
    require(end.status == "success", "`success` with the new URL", end.brief())


@check(
    "grant.wait",
    section="3.3",
    title="During a `wait` no part is requested; after it the request comes again",
    remedy="Do not request for `for_seconds` from receipt, report the reason in the status, and request at the end.",
    needs=("wait",),
)
async def wait(bench: Bench) -> None:
    """A wait of 3 s, then a grant."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    reason = "kit: the budget is spent"
    mark = bench.transcript.mark
    command = await talk.grant([], wait={"reason": reason, "for_seconds": _WAIT})
    begun = bench.now()
    await bench.fence()
    found = await bench.transcript.until(
        lambda: next((one for one in talk.all_reports() if one.index >= mark), None), bench.patience + _WAIT
    )
    require(found, f"a request at the end of a wait of {_WAIT:g} s", f"none ({command['message_id']})")
    assert found is not None  # noqa: S101 - required above
    after = found.at - begun
    require(after > _WAIT - _EARLY, f"no request for {_WAIT:g} s", f"one after {after:.1f} s: {found.brief()}")
    statuses = [one for one in bench.transcript.of(Sent, mark) if one.channel == "status"]
    if statuses:
        shown = [str(one.document.get("uploads")) + str(one.document.get("current_upload")) for one in statuses]
        require(any(reason in text for text in shown), f"the reason `{reason}` in the status", "another")
    talk.sequence = found.sequence or talk.sequence
    end = await talk.finish(found)
    require(end.status == "success", f"`success` after the wait ({offer.numbers})", end.brief())


@check(
    "grant.wait-replaced",
    section="3.3",
    title="A grant with URLs ends a `wait`",
    remedy="Send the parts at once; a later `wait` replaces an earlier one in the same way.",
    needs=("wait",),
)
async def wait_replaced(bench: Bench) -> None:
    """A wait of an hour, then a wait of 1 s, then a grant."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    await talk.grant([], wait={"reason": "kit: an hour", "for_seconds": 3600})
    await bench.fence()
    await talk.grant_wanted(offer)
    end = await talk.finish(await talk.report())
    require(end.status == "success", "`success`", end.brief())


@check(
    "grant.rate",
    section="3.3",
    title="`max_bytes_per_second` of a grant limits the attempt",
    remedy="Send no faster than the rate of the latest grant with URLs, over all parts of the attempt together.",
    needs=("rate",),
)
async def rate(bench: Bench) -> None:
    """5 MiB at 1 MiB a second take 5 s; half of that is accepted."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    url = talk.make(offer.wanted[0])
    begun = bench.now()
    await talk.grant([url], max_bytes_per_second=_RATE)
    await talk.stored(1, bench.patience + 10)
    took = bench.now() - begun
    size = url.puts[-1].size
    require(took > size / _RATE / 2, f"{size} bytes in {size / _RATE:.1f} s or more", f"{took:.1f} s")
    await talk.cancel()


@check(
    "grant.options-rate",
    section="3.1",
    title="`options.max_bytes_per_second` limits the upload",
    remedy="Obey the rate of `options`, or reject a command that has one with `unsupported`.",
)
async def options_rate(bench: Bench) -> None:
    """The rate of the command."""
    talk = bench.talk(bench.samples.any().path)
    await talk.start(options={"max_bytes_per_second": _RATE})
    offer = await bench.answer(talk.message_id, since=talk.mark)
    if offer.error == "unsupported":
        reason = "the agent rejects a rate as `unsupported`, as it may"
        raise NotApplicable(reason)
    talk.sequence = offer.sequence or 0
    url = talk.make(offer.wanted[0])
    begun = bench.now()
    await talk.grant([url])
    await talk.stored(1, bench.patience + 10)
    took, size = bench.now() - begun, url.puts[-1].size
    require(took > size / _RATE / 2, f"{size} bytes in {size / _RATE:.1f} s or more", f"{took:.1f} s")
    await talk.cancel()
