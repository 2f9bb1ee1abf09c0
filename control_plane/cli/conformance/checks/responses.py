"""Section 4.2: sequence, acknowledgement, ETags, resumption.

Rule: an upload is granted part by part, so that each response can be compared with the one before.
"""

from control_plane.cli.conformance.bench.findings import NotApplicable, require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.store import PutAnswer
from control_plane.cli.conformance.bench.talk import Report, Talk
from control_plane.cli.conformance.catalogue import check

_MANY = 50


async def _part_by_part(bench: Bench) -> tuple[Talk, list[Report]]:
    """An upload of which each grant has one part; the responses after the offer."""
    talk = bench.talk(bench.samples.any().path)
    report = await talk.offered()
    if len(report.wanted) < 3:  # noqa: PLR2004 - two responses after the offer, and an end
        reason = "the file has fewer than three parts"
        raise NotApplicable(reason)
    reports: list[Report] = []
    while report.status == "in_progress":
        url = talk.make(report.wanted[0])
        await talk.grant([url])
        report = await talk.report()
        reports.append(report)
    require(report.status == "success", "`success`", report.brief())
    return talk, reports


@check(
    "response.sequence",
    section="4.2",
    title="Responses of an attempt count `sequence` 1, 2, 3 …",
    remedy="Raise `sequence` with each new response of an attempt, and with nothing else.",
)
async def sequence(bench: Bench) -> None:
    """Part by part."""
    talk, _ = await _part_by_part(bench)
    seen = sorted({one.sequence or 0 for one in talk.all_reports()})
    require(seen == list(range(1, len(seen) + 1)), f"sequences 1 … {len(seen)}", seen)


@check(
    "response.etag-exact",
    section="4.1",
    title="An ETag is reported exactly as the object store wrote it",
    remedy="Report the value of the `ETag` header as it is, with its quotes.",
)
async def etag_exact(bench: Bench) -> None:
    """ETags that are no MD5, weak, and without quotes."""
    for etag in ('"AbC-7/d+e=&<x>"', 'W/"9f"', "0123456789abcdef"):
        talk = bench.talk(bench.samples.any().path)
        offer = await talk.offered()
        await talk.grant_wanted(offer, {1: [PutAnswer(200, etag=etag)]})
        end = await talk.finish(await talk.report())
        require(end.status == "success", "`success`", end.brief())
        seen = [one.etags["1"] for one in talk.all_reports() if "1" in one.etags]
        require(seen and set(seen) == {etag}, f"ETag `{etag}`", seen or "no ETag of part 1")


@check(
    "response.etags-repeated",
    section="4.2",
    title="ETags that are not acknowledged are sent in every response",
    remedy="Keep each ETag until the owner acknowledges a response that had it; put all of them into each response.",
)
async def etags_repeated(bench: Bench) -> None:
    """The owner has not committed the end, and sends the command again."""
    talk, reports = await _part_by_part(bench)
    end = reports[-1]
    require(end.etags, "an ETag in `success`: that of the last part", "none")
    count = len(talk.all_reports())
    await bench.publish(talk.download(acknowledges=talk.sequence - 1))
    again = await bench.transcript.until(lambda: talk.all_reports()[count:], bench.patience)
    require(again, "the end again", "no answer")
    assert again is not None  # noqa: S101 - required above
    require(again[0].etags == end.etags, f"the ETags {end.etags} again", again[0].etags)


@check(
    "response.etags-acknowledged",
    section="4.2",
    title="ETags that are acknowledged are never sent again",
    remedy="Forget the ETags of responses up to `acknowledges`.",
)
async def etags_acknowledged(bench: Bench) -> None:
    """The owner acknowledges each response."""
    talk, reports = await _part_by_part(bench)
    known: set[str] = set()
    for report in reports:
        again = sorted(known & set(report.etags))
        require(not again, f"no ETag of parts {again} again", report.brief())
        known |= set(report.etags)
    right = {str(url.part_number) for url in talk.grants}
    require(known == right, f"the ETags of parts {sorted(right)}, each once", sorted(known))


@check(
    "response.success",
    section="4.2",
    title="`success` requests nothing, and comes when every part is stored",
    remedy="Publish `success`, with the ETags that are not acknowledged, after the last part; not before.",
)
async def success(bench: Bench) -> None:
    """One grant for everything."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    slow = offer.wanted[-1]["part_number"]
    await talk.grant_wanted(offer, {slow: [PutAnswer(503, "SlowDown", {"Retry-After": "1"})]})
    end = await talk.finish(await talk.report(), bench.patience * 2)
    require(end.status == "success", "`success`", end.brief())
    require(not end.wanted, "no `wanted_parts` in an end", end.numbers)
    stored = sum(url.stored is not None and url.stored.ended <= end.at for url in talk.grants)
    right = len({url.part_number for url in talk.grants})
    require(stored == right, f"`success` after {right} parts were stored", f"after {stored}")
    size = end.payload.get("file_size")
    require(size in {None, offer.payload.get("file_size")}, f"`file_size` {offer.payload.get('file_size')}", size)


@check(
    "response.resume",
    section="4.2",
    title="`download_file` of the same attempt resumes it after an error",
    remedy="Where `acknowledges` covers the error, sequence and ETags continue, and stored parts stay stored.",
)
async def resume(bench: Bench) -> None:
    """The second part is refused twice; then the owner resumes the attempt."""
    talk = bench.talk(bench.samples.any().path)
    report = await talk.offered()
    if len(report.wanted) == 1:
        reason = "the file has one part"
        raise NotApplicable(reason)
    number = report.wanted[1]["part_number"]
    while report.status == "in_progress":
        await talk.grant_wanted(report, {number: [PutAnswer(403, "AccessDenied")] * _MANY})
        report = await talk.report()
    require(report.error == "storage_refused", "`storage_refused`", report.brief())
    stored = {url.part_number for url in talk.grants if url.stored}
    failed = talk.sequence
    await talk.start()
    again = await talk.request()
    require(again.sequence == failed + 1, f"sequence {failed + 1} after the error", again.sequence)
    require(number in again.numbers, f"a request for part {number}", again.brief())
    twice = sorted(stored & set(again.numbers))
    require(not twice, "no request for a part that is stored", f"parts {twice}")
    end = await talk.finish(again)
    require(end.status == "success", "`success`", end.brief())


@check(
    "response.after-reconnect",
    section="4.2",
    title="What was not answered is published again after a reconnect",
    remedy="After the hello publish the latest response of each upload again.",
)
async def after_reconnect(bench: Bench) -> None:
    """The connection is lost while an offer waits for its answer."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    mark = await bench.reconnect()

    def again() -> Report | None:
        return next((one for one in talk.all_reports() if one.index >= mark), None)

    found = await bench.transcript.until(again, max(bench.patience, 20.0))
    require(found, "the offer again in the new connection", "nothing")
    assert found is not None  # noqa: S101 - required above
    require(found.sequence == offer.sequence, f"sequence {offer.sequence}", found.sequence)
    end = await talk.finish(found)
    require(end.status == "success", "`success`", end.brief())


@check(
    "hello.after-connect",
    section="4.3",
    title="A hello lists the uploads that the owner has not closed",
    remedy="List each open upload with `attempt`, the `sequence` of its latest response, its `status` and its owner; a"
    " closed one is not listed.",
)
async def hello(bench: Bench) -> None:
    """One upload is open, one has ended without a close, one is closed."""
    uploads = [bench.talk(bench.samples.any().path) for _ in range(3)]
    closed, ended, waiting = uploads
    for talk in (closed, ended):
        end = await talk.finish(await talk.offered())
        require(end.status == "success", "`success`", end.brief())
        if talk is closed:
            await talk.close()
    await waiting.offered()
    await bench.fence()
    mark = await bench.reconnect()
    await bench.transcript.until(lambda: bench.hello(mark), bench.patience)
    pages = [one for one in bench.reports(mark) if one.document.get("action") == "hello"]
    require(pages, "a hello after a connect", "none")
    install = pages[0].payload.get("install_id")
    right = bench.presence.get("install_id")
    require(install == right, f"`install_id` {right} in the hello", install)
    require(pages[0].status == "success", "a hello with `success`", pages[0].status)
    listed = {entry.get("upload_id"): entry for page in pages for entry in page.payload.get("active", [])}
    require(closed.upload_id not in listed, "no closed upload in the hello", closed.upload_id)
    for talk, status in ((ended, "success"), (waiting, "in_progress")):
        entry = listed.get(talk.upload_id)
        require(entry is not None, f"the upload with `{status}` in the hello", f"{len(listed)} others")
        assert entry is not None  # noqa: S101 - required above
        seen = {name: entry.get(name) for name in ("attempt", "sequence", "status", "owner")}
        wanted = {"attempt": 1, "sequence": talk.sequence, "status": status, "owner": bench.owner.name}
        require(seen == wanted, f"the entry {wanted}", seen)
