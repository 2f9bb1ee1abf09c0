"""Section 3.3: what an agent does with a grant.

Rule: the requests are read as they arrived, header by header.
"""

from control_plane.cli.conformance.bench.findings import NotApplicable, Wrong, require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.store import PutAnswer
from control_plane.cli.conformance.bench.talk import Talk, settle
from control_plane.cli.conformance.catalogue import check
from schemas.parts import MIB

_SETTLE = 1.0
_SENT_BY_ITSELF = frozenset({"host", "content-length", "content-type"})
_UNSIGNED = frozenset(
    {"accept", "accept-encoding", "connection", "expect", "user-agent", "keep-alive", "transfer-encoding"}
)
"""Headers of HTTP that no signature covers."""


@check(
    "grant.put",
    section="3.3",
    title="Each granted part is sent with one PUT to exactly its URL",
    remedy="PUT the bytes of the part to the URL as it is given: neither decode nor encode its path or query.",
)
async def put(bench: Bench) -> None:
    """Targets, methods, sizes of an upload of several parts."""
    before = len(bench.store.strangers)
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    sizes = {part["part_number"]: part["size"] for part in offer.wanted}
    end = await talk.finish(offer)
    strangers = bench.store.strangers[before:]
    require(not strangers, "requests to granted URLs only", [f"{one.method} {one.target}" for one in strangers])
    require(end.status == "success", "`success`", end.brief())
    for url in talk.grants:
        require(len(url.puts) == 1, f"one PUT of part {url.part_number}", f"{len(url.puts)}")
        sent = url.puts[0]
        require(sent.method == "PUT", "PUT", sent.method)
        right = sizes.get(url.part_number, sent.size)
        require(sent.size == right, f"{right} bytes of part {url.part_number}", sent.size)


@check(
    "grant.headers",
    section="3.3",
    title="The given headers are sent exactly, and no other signed header",
    remedy="Send each given header with its value unchanged; add only `Host`, `Content-Length` and `Content-Type:"
    " application/octet-stream`.",
)
async def headers(bench: Bench) -> None:
    """Headers with punctuation in their values."""
    given = {
        "x-amz-meta-note": "Ab;c=(d),e/f+g%20h",
        "x-amz-server-side-encryption": "AES256",
        "if-none-match": "*",
    }
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    first = talk.make(offer.wanted[0], headers=given)
    await talk.grant([first])
    await talk.stored(1)
    sent = first.puts[0]
    for name, value in first.headers.items():
        seen = sent.header(name.lower())
        require(seen == value, f"`{name}: {value}`", "no such header" if seen is None else f"`{seen}`")
    kind = sent.header("content-type")
    require(kind == "application/octet-stream", "`Content-Type: application/octet-stream`", kind)
    require(
        sent.header("content-length") == str(sent.size), f"`Content-Length: {sent.size}`", sent.header("content-length")
    )
    allowed = {name.lower() for name in first.headers} | _SENT_BY_ITSELF | _UNSIGNED
    more = [name for name, _ in sent.headers if name.lower() not in allowed]
    require(not more, "no other header", more)
    twice = [name for name, _ in sent.headers if sum(name.lower() == other.lower() for other, _ in sent.headers) > 1]
    require(not twice, "each header once", sorted(set(twice)))


@check(
    "grant.bad-header",
    section="3.3",
    title="Another header than `content-md5`, `if-none-match` or `x-amz-*` is refused",
    remedy="End the upload with `error` `bad_request`, before anything is sent.",
)
async def bad_header(bench: Bench) -> None:
    """Headers that would reach beyond the object store."""
    for name, value in (("authorization", "Basic eA=="), ("host", "elsewhere"), ("x-amz-meta-a", "line\r\nx: y")):
        talk = bench.talk(bench.samples.any().path)
        offer = await talk.offered()
        url = talk.make(offer.wanted[0], headers={name: value})
        await talk.grant([url])
        end = await talk.report()
        require((end.status, end.error) == ("error", "bad_request"), f"`error` `bad_request` for `{name}`", end.brief())
        require(not url.puts, "no PUT", f"{len(url.puts)} PUTs with `{name}`")


@check(
    "grant.other-host",
    section="3.3",
    title="A URL of another host is refused with `host_not_allowed`",
    remedy="Compare scheme, host and port with UPLOAD_HOSTS before the first byte is sent; `rejected` otherwise.",
)
async def other_host(bench: Bench) -> None:
    """A URL to a server that the device does not allow."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    url = talk.make(offer.wanted[0])
    visits = bench.elsewhere.visits
    host, path = bench.store.origin, url.url.removeprefix(bench.store.origin)
    moved = f"{host.rpartition(':')[0]}:{bench.elsewhere.port}{path}"
    await talk.grant([], config={"presigned_urls": [{**url.as_part(), "url": moved}], "expires_in": 900})
    end = await talk.report()
    seen = bench.elsewhere.visits - visits
    require(seen == 0, "no connection to the other host", f"{seen}")
    right = (end.status, end.error) == ("rejected", "host_not_allowed")
    require(right, "`rejected` with `host_not_allowed`", end.brief())


@check(
    "grant.redirect",
    section="3.3",
    title="A redirect is not followed",
    remedy="Switch redirects off in the HTTP library; a 3xx without an S3 code is tried again with backoff.",
)
async def redirect(bench: Bench) -> None:
    """The object store answers 307 once, to another server."""
    target = f"{bench.store.origin.rpartition(':')[0]}:{bench.elsewhere.port}/stolen"
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    visits = bench.elsewhere.visits
    first = offer.wanted[0]["part_number"]
    await talk.grant_wanted(offer, {first: [PutAnswer(307, headers={"Location": target})]})
    retried = await bench.transcript.until(lambda: _puts(talk, first) > 1, bench.patience * 2)
    require(bench.elsewhere.visits == visits, "no connection to the target of a redirect", "one")
    require(retried, "the part again", "nothing after the redirect")


def _puts(talk: Talk, number: int) -> int:
    return sum(len(url.puts) for url in talk.grants if url.part_number == number)


@check(
    "grant.fewer",
    section="3.3",
    title="What was not granted is requested again",
    remedy="When no granted part is left to begin, request the parts that are missing.",
)
async def fewer(bench: Bench) -> None:
    """Only the first of several parts is granted."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    if len(offer.wanted) == 1:
        reason = "the file has one part"
        raise NotApplicable(reason)
    await talk.grant([talk.make(offer.wanted[0])])
    again = await talk.request()
    require(again.sequence == 2, "`sequence` 2", again.sequence)  # noqa: PLR2004 - the second response
    missing = set(offer.numbers[1:])
    require(missing <= set(again.numbers), f"a request for parts {sorted(missing)}", again.brief())
    end = await talk.finish(again)
    require(end.status == "success", "`success`", end.brief())


@check(
    "grant.unanswered-once",
    section="3.3",
    title="At most one request is unanswered, and a request has only parts that are missing",
    remedy="Wait for the answer to a request before the next one; leave out what is stored.",
)
async def one_request(bench: Bench) -> None:
    """Parts are granted one by one."""
    talk = bench.talk(bench.samples.any().path)
    report = await talk.offered()
    done: set[int] = set()
    while report.status == "in_progress":
        again = sorted(done & set(report.numbers))
        require(not again, "a request without the parts that are stored", f"parts {again} again")
        part = report.wanted[0]
        await talk.grant([talk.make(part)])
        done.add(part["part_number"])
        report = await talk.report()
    require(report.status == "success", "`success`", report.brief())
    sequences = [one.sequence for one in talk.all_reports()]
    require(sequences == sorted(set(sequences), key=str), "one response after each grant", sequences)


@check(
    "grant.completed-parts",
    section="4.2",
    title="Parts in `completed_parts` count as sent",
    remedy="Do not send the parts of these inclusive ranges, and do not request them.",
)
async def completed_parts(bench: Bench) -> None:
    """All parts but the last are completed already."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    if len(offer.wanted) == 1:
        reason = "the file has one part"
        raise NotApplicable(reason)
    last = offer.wanted[-1]
    await talk.grant([talk.make(last)], completed_parts=[[1, last["part_number"] - 1]])
    end = await talk.report()
    require(end.status == "success", "`success` after the last part", end.brief())
    seen = sorted(end.etags)
    require(seen == [str(last["part_number"])], f"the ETag of part {last['part_number']}", seen)


@check(
    "grant.repeated",
    section="4.2",
    title="A repeated grant sends no part twice",
    remedy="Recognize parts that are stored; answer a repeated grant with the latest response.",
)
async def repeated(bench: Bench) -> None:
    """The same grant again, after its parts are stored."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    command = await talk.grant([talk.make(part) for part in offer.wanted])
    end = await talk.report()
    require(end.status == "success", "`success`", end.brief())
    before = sum(len(url.puts) for url in talk.grants)
    count = len(talk.all_reports())
    await bench.publish(command)
    again = await bench.transcript.until(lambda: len(talk.all_reports()) > count, bench.patience)
    await bench.fence()
    await settle(_SETTLE)
    puts = sum(len(url.puts) for url in talk.grants)
    require(puts == before, f"no PUT beside the {before}", puts)
    require(again, "the end again", "no answer to the repeated grant")
    latest = talk.all_reports()[-1]
    require(
        (latest.status, latest.sequence) == (end.status, end.sequence), f"the end again ({end.brief()})", latest.brief()
    )


@check(
    "grant.beyond-plan",
    section="3.2",
    title="A grant for a part beyond the plan ends the upload with `bad_request`",
    remedy="Compare each `part_number` with the plan, and a `chunk_size` with the command's and the plan's.",
)
async def beyond_plan(bench: Bench) -> None:
    """Part 9,999 of a small file, and a foreign chunk size."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    url = talk.make({**offer.wanted[0], "part_number": 9_999})
    await talk.grant([url])
    end = await talk.report()
    require((end.status, end.error) == ("error", "bad_request"), "`error` with `bad_request`", end.brief())
    require(not url.puts, "no PUT", len(url.puts))
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    url = talk.make(offer.wanted[0])
    await talk.grant([url], config={"chunk_size": 7 * MIB})
    end = await talk.report()
    right = (end.status, end.error) == ("error", "bad_request")
    require(right, "`error` with `bad_request` for another `chunk_size`", end.brief())


@check(
    "grant.unknown-upload",
    section="4.2",
    title="A grant for an unknown upload is answered `upload_gone`",
    remedy="Answer `error` with `upload_gone`, the ids of the grant, and no `sequence`.",
)
async def unknown_upload(bench: Bench) -> None:
    """An upload that the agent never had."""
    talk = bench.talk(None)
    mark = bench.transcript.mark
    url = talk.make({"part_number": 1})
    command = await talk.grant([url])
    answer = await bench.answer(command["message_id"], since=mark)
    require((answer.status, answer.error) == ("error", "upload_gone"), "`error` with `upload_gone`", answer.brief())
    if answer.sequence is not None:
        expected = "no `sequence`: the answer is outside of the count"
        raise Wrong(expected, str(answer.sequence))
    named = answer.payload.get("upload_id")
    require(named == talk.upload_id, f"`upload_id` {talk.upload_id}", named)
    require(not url.puts, "no PUT", len(url.puts))


@check(
    "grant.pregranted",
    section="3.3",
    title="A command with URLs starts at once",
    remedy="Send the parts without an offer; the plan is `chunk_size` as given, and surplus parts are ignored. An agent"
    " that does not support it answers `rejected` with `unsupported`.",
)
async def pregranted(bench: Bench) -> None:
    """A command as `backhaul mqtt trigger --print` makes it."""
    talk = bench.talk(bench.samples.any().path, digest="none")
    urls = [talk.make({"part_number": number}) for number in (1, 2, 3)]
    await talk.start({"presigned_urls": [url.as_part() for url in urls], "expires_in": 900})
    first = await bench.answer(talk.message_id, since=talk.mark)
    talk.sequence = first.sequence or 0
    if (first.status, first.error) == ("rejected", "unsupported"):
        reason = "the agent rejects a pre-granted command as `unsupported`, as it may"
        raise NotApplicable(reason)
    end = await talk.finish(first)
    require(end.status == "success", "`success`", end.brief())
    require(first.sequence == 1, "`sequence` 1 in the first response", first.sequence)
    require(urls[0].stored is not None, "part 1 sent to the URL of the command", first.brief())
