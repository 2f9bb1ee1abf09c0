"""Sections 3.2 to 3.4: what an agent offers.

Rule: the kit computes plan and digests by itself, from the file where it can read it.
"""

import base64
import hashlib
import zlib

from control_plane.cli.conformance.bench.findings import NotApplicable, Wrong, require
from control_plane.cli.conformance.bench.samples import THREE_PARTS, Sample
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.talk import Report, Talk
from control_plane.cli.conformance.catalogue import FOLDER, check
from schemas.parts import MIB, MIN_CHUNK_SIZE, plan_parts

_WINDOW = 64 * MIB
_MOST = 100
_REPEAT = 20.0


@check(
    "offer.identity",
    section="4",
    title="An offer names its upload as the command did",
    remedy="An offer has the `message_id` of the command, `action` `download_file`, `in_progress`, `sequence` 1, and in"
    " its payload `upload_id`, `attempt`, `owner`, and `file_path` character for character.",
)
async def identity(bench: Bench) -> None:
    """The members of the first response of an upload."""
    sample = bench.samples.any()
    talk = bench.talk(sample.path)
    offer = await talk.offered()
    _named(bench, talk, offer, bench.owner.name)
    require(
        offer.payload.get("file_path") == sample.path, f"`file_path` `{sample.path}`", offer.payload.get("file_path")
    )


def _named(bench: Bench, talk: Talk, offer: Report, owner: str) -> None:
    document, payload = offer.document, offer.payload
    for name, seen, right in (
        ("message_id", document.get("message_id"), talk.message_id),
        ("action", document.get("action"), "download_file"),
        ("sequence", offer.sequence, 1),
        ("upload_id", payload.get("upload_id"), talk.upload_id),
        ("attempt", payload.get("attempt", 1), talk.attempt),
        ("owner", payload.get("owner"), owner),
    ):
        require(seen == right, f"`{name}` {right!r} in the offer", repr(seen))
    known = bench.presence.get("epoch")
    epoch = document.get("epoch")
    require(epoch in {None, known}, f"`epoch` {known} in a response, or none", epoch)


@check(
    "offer.plan",
    section="3.2",
    title="Size and parts follow the part plan",
    remedy="part_size = max(chunk_size, ceil(file_size / 10000) rounded up to a MiB); every part but the last has it.",
    needs=(FOLDER,),
)
async def plan(bench: Bench) -> None:
    """Files around the border of a part, with two chunk sizes."""
    for size, chunk in (
        (THREE_PARTS, MIN_CHUNK_SIZE),
        (2 * MIN_CHUNK_SIZE, MIN_CHUNK_SIZE),
        (MIN_CHUNK_SIZE + 1, MIN_CHUNK_SIZE),
        (13 * MIB, 6 * MIB),
        (1, MIN_CHUNK_SIZE),
    ):
        talk = bench.talk(bench.samples.make(f"kit-{size}.bin", size).path, chunk_size=chunk)
        offer = await talk.offered()
        seen = offer.payload.get("file_size")
        require(seen == size, f"`file_size` {size}", seen)
        right = [(part.number, part.size) for part in plan_parts(size, chunk)]
        wanted = [(part.get("part_number"), part.get("size")) for part in offer.wanted]
        require(wanted == right, f"parts {right} of {size} bytes in chunks of {chunk}", wanted)
        await talk.cancel()


@check(
    "offer.empty-file",
    section="3.2",
    title="A file of 0 bytes has one part of 0 bytes",
    remedy="Offer part 1 with size 0, and PUT no bytes to its URL.",
    needs=(FOLDER,),
)
async def empty_file(bench: Bench) -> None:
    """An empty file, uploaded."""
    talk = bench.talk(bench.samples.make("kit-empty.bin", 0).path)
    offer = await talk.offered()
    wanted = [(part.get("part_number"), part.get("size")) for part in offer.wanted]
    require(wanted == [(1, 0)], "one part of 0 bytes", wanted)
    end = await talk.finish(offer)
    require(end.status == "success", "`success`", end.brief())
    put = talk.grants[0].stored
    require(put is not None and put.size == 0, "a PUT of 0 bytes", put and put.size)


@check(
    "offer.window",
    section="3.3",
    title="A request has the next parts of 64 MiB together, at least one and at most 100",
    remedy="Request the next parts in order until the next one would exceed 64 MiB, or 100 parts.",
    needs=(FOLDER,),
)
async def window(bench: Bench) -> None:
    """A file of 80 MiB, and a part that is larger than the window."""
    talk = bench.talk(bench.samples.hole("kit-large.bin", 80 * MIB).path)
    offer = await talk.offered()
    total = sum(int(part.get("size", 0)) for part in offer.wanted)
    require(0 < total <= _WINDOW, f"at most {_WINDOW} bytes in a request", total)
    require(len(offer.wanted) <= _MOST, f"at most {_MOST} parts in a request", len(offer.wanted))
    require(offer.numbers == list(range(1, len(offer.numbers) + 1)), "the next parts in order", offer.numbers)
    await talk.cancel()


@check(
    "offer.digest-md5",
    section="3.3",
    title="The digest of a part is base64 of the MD5 of its bytes",
    remedy="Digest exactly the bytes of the part; base64 of the raw digest, with padding.",
)
async def digest_md5(bench: Bench) -> None:
    """The default digest."""
    await _digests(bench, "md5")


@check(
    "offer.digest-sha256",
    section="3.3",
    title="With `digest` `sha256` the digests are SHA-256",
    remedy="Use the digest that the command names; one that the agent cannot compute is `rejected` as `unsupported`.",
)
async def digest_sha256(bench: Bench) -> None:
    """SHA-256."""
    await _digests(bench, "sha256")


@check(
    "offer.digest-crc32",
    section="3.3",
    title="With `digest` `crc32` the digests are CRC-32",
    remedy="CRC-32 as in zlib, 4 bytes in big-endian order, in base64.",
)
async def digest_crc32(bench: Bench) -> None:
    """CRC-32."""
    await _digests(bench, "crc32")


async def _digests(bench: Bench, name: str) -> None:
    sample = bench.samples.any()
    talk = bench.talk(sample.path, digest=name)
    await talk.start()
    offer = await bench.answer(talk.message_id, since=talk.mark)
    talk.sequence = offer.sequence or 0
    if (offer.status, offer.error) == ("rejected", "unsupported"):
        reason = f"the agent rejects `{name}` as `unsupported`, as it may"
        raise NotApplicable(reason)
    require(offer.status == "in_progress", "an offer", offer.brief())
    for part in offer.wanted:
        right = _digest(sample, name, int(part["part_number"]), int(part["size"]))
        seen = part.get("digest")
        require(right in {None, seen}, f"{name} {right} of part {part['part_number']}", seen)
    end = await talk.finish(offer)
    require(end.status == "success", "`success`: the store accepts the bytes under their digests", end.brief())
    for url in talk.grants:
        put = url.stored
        require(put is not None, f"part {url.part_number} stored", "no PUT")


def _digest(sample: Sample, name: str, number: int, size: int) -> str | None:
    data = sample.read((number - 1) * MIN_CHUNK_SIZE, size)
    if data is None:
        return None
    match name:
        case "md5":
            raw = hashlib.md5(data, usedforsecurity=False).digest()
        case "sha256":
            raw = hashlib.sha256(data).digest()
        case _:
            raw = zlib.crc32(data).to_bytes(4)
    return base64.b64encode(raw).decode()


@check(
    "offer.fingerprint",
    section="4.1",
    title="The fingerprint is what the file system has",
    remedy="Take size, mtime, ctime, device and inode of the open file (`fstat`), times in ns as integers.",
    needs=(FOLDER,),
)
async def fingerprint(bench: Bench) -> None:
    """A fact for information: where it is given, it is right."""
    sample = bench.samples.any()
    talk = bench.talk(sample.path)
    offer = await talk.offered()
    given = offer.payload.get("fingerprint")
    if not isinstance(given, dict):
        reason = "the offer has no fingerprint: it may be left out"
        raise NotApplicable(reason)
    assert sample.local is not None  # noqa: S101 - the check needs the folder
    stat = sample.local.stat()
    right = {
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "ctime_ns": stat.st_ctime_ns,
        "device": stat.st_dev,
        "inode": stat.st_ino,
    }
    require(given == right, f"the fingerprint {right}", given)


@check(
    "offer.default-file",
    section="3.1",
    title="A command without a path means the default file",
    remedy="Offer the file that `default_file` of the presence names; without one answer `bad_request`.",
)
async def default_file(bench: Bench) -> None:
    """`download_file` without `file_path`."""
    named = bench.presence.get("default_file")
    talk = bench.talk(None)
    mark = bench.transcript.mark
    await talk.start()
    answer = await bench.answer(talk.message_id, since=mark)
    if named is None:
        right = (answer.status, answer.error) == ("error", "bad_request")
        require(right, "`error` with `bad_request`: the presence names no default file", answer.brief())
    elif answer.status == "in_progress":
        require(answer.payload.get("file_path") == named, f"`file_path` `{named}`", answer.payload.get("file_path"))
    else:
        require(answer.error == "file_not_found", "an offer, or `file_not_found`", answer.brief())


@check(
    "offer.by-hand",
    section="3.4",
    title="A command without `upload_config` belongs to the control plane",
    remedy="Take the `message_id` as `upload_id`, attempt 1, `md5`, 5 MiB, owner `control-plane`.",
)
async def by_hand(bench: Bench) -> None:
    """A command as a person types it."""
    talk = bench.talk(bench.samples.any().path)
    talk.upload_id = talk.message_id
    payload = {"file_path": talk.path}
    await bench.publish({"message_id": talk.message_id, "action": "download_file", "payload": payload})
    offer = await talk.request()
    _named(bench, talk, offer, "control-plane")
    sizes = [part.get("size") for part in offer.wanted]
    require(sizes[0] in {MIN_CHUNK_SIZE, offer.payload.get("file_size")}, "parts of 5 MiB", sizes)


@check(
    "offer.name-not-utf8",
    section="General rules",
    title="A byte of a name that is not UTF-8 is spelled `\\xNN`",
    remedy="Spell names as the general rules say, in both directions; answer with the spelling of the command.",
    needs=(FOLDER,),
)
async def name_not_utf8(bench: Bench) -> None:
    """A file with a name in Latin-1."""
    raw = b"kit-caf\xe9.bin"
    try:
        sample = bench.samples.make(raw.decode("utf-8", "surrogateescape"), 10, spelled="kit-caf\\xe9.bin")
    except OSError as error:
        reason = f"the file system of the folder takes no such name: {error.strerror}"
        raise NotApplicable(reason) from error
    talk = bench.talk(sample.path)
    offer = await talk.offered()
    require(
        offer.payload.get("file_path") == sample.path, f"`file_path` `{sample.path}`", offer.payload.get("file_path")
    )


@check(
    "offer.repeated",
    section="4.2",
    title="A request that is not answered is published again after 10 s",
    remedy="Repeat the latest response, with its `sequence`, after 10 s (varied by half), then at doubling intervals.",
)
async def repeated(bench: Bench) -> None:
    """An offer to which the owner answers nothing."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    patience = max(bench.patience, _REPEAT)
    again = await bench.transcript.until(lambda: len(talk.all_reports()) > 1, patience)
    require(again, "the offer again after 10 s", f"nothing within {patience:g} s")
    second = talk.all_reports()[1]
    require(second.sequence == offer.sequence, f"sequence {offer.sequence} again", second.sequence)
    # The interval is 10 s, varied by half.
    require(second.at - offer.at > 4.0, "a repetition after 5 to 15 s", f"after {second.at - offer.at:.1f} s")  # noqa: PLR2004


@check(
    "offer.new-attempt",
    section="4.2",
    title="A newer attempt replaces the older one, whose messages are dropped",
    remedy="On a `download_file` of a newer attempt begin anew with `sequence` 1; drop commands of older attempts.",
)
async def new_attempt(bench: Bench) -> None:
    """Attempt 2 of an upload, then a late grant of attempt 1."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered()
    late = [talk.make(part) for part in offer.wanted]
    talk.attempt, talk.sequence, talk.message_id = 2, 0, f"{talk.message_id}2"
    second = await talk.offered()
    require(second.sequence == 1, "`sequence` 1 in the new attempt", second.sequence)
    await talk.grant(late, config={"attempt": 1})
    await bench.fence()
    end = await talk.finish(second)
    require(end.status == "success", "`success` of attempt 2", end.brief())
    puts = [url.part_number for url in late if url.puts]
    if puts:
        expected = "no PUT under the URLs of attempt 1"
        raise Wrong(expected, f"parts {puts}")
