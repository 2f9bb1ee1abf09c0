"""Section 3: commands in general.

Rule: what an agent cannot carry out it answers if it can, and it works on in any case.
"""

import json

from control_plane.cli.conformance.bench.findings import require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.talk import Report, settle
from control_plane.cli.conformance.catalogue import check

_SETTLE = 0.5


def _is(answer: Report, status: str, error: str) -> None:
    require((answer.status, answer.error) == (status, error), f"`{status}` with `{error}`", answer.brief())


@check(
    "command.unreadable",
    section="3",
    title="A command that is no JSON object is dropped, and the next one is answered",
    remedy="Catch what the JSON parser raises; drop the message, and work on.",
)
async def unreadable(bench: Bench) -> None:
    """Several kinds of bytes that are no command."""
    for payload in (b"", b"\xff\xfe\x00", b"{", b"[]", b"null", b'"text"', b'{"action":"health_check"}', b"[" * 400):
        await bench.publish(payload)
    await bench.fence()


@check(
    "command.unknown-action",
    section="3",
    title="An unknown action is rejected as `unsupported`",
    remedy="Answer `rejected` with `unsupported`, with the `message_id` and the `action` of the command.",
)
async def unknown_action(bench: Bench) -> None:
    """An action of a later version."""
    answer = await bench.ask("reboot_device", {"when": "now"})
    _is(answer, "rejected", "unsupported")
    require(answer.document.get("action") == "reboot_device", "`action` repeated", answer.document.get("action"))


@check(
    "command.wrong-types",
    section="General rules",
    title="A field of the wrong JSON type is refused with `bad_request`",
    remedy='Check the type of each field before it is used: `1.0` and `"1"` are no integers, `null` is no number.',
)
async def wrong_types(bench: Bench) -> None:
    """Values that some languages would convert."""
    for name, wrong in (("attempt", "1"), ("attempt", 1.0), ("attempt", True), ("chunk_size", "5242880"), ("owner", 7)):
        talk = bench.talk(bench.samples.any().path)
        command = talk.download({name: wrong})
        mark = bench.transcript.mark
        await bench.publish(command)
        answer = await bench.answer(talk.message_id, since=mark)
        require(
            (answer.status, answer.error) == ("error", "bad_request"),
            f"`error` with `bad_request` for `{name}` {json.dumps(wrong)}",
            answer.brief(),
        )
        if name != "attempt":
            continue
        named = answer.payload.get("upload_id")
        require(named in {talk.upload_id, None}, f"`upload_id` {talk.upload_id}, or none", named)


@check(
    "command.missing-member",
    section="3",
    title="A command without a required member is refused with `bad_request`",
    remedy="Answer `error` with `bad_request`; the answer has the `message_id` of the command.",
    needs=("list_files",),
)
async def missing_member(bench: Bench) -> None:
    """`list_files` without a pattern."""
    _is(await bench.ask("list_files", {"limit": 5}), "error", "bad_request")


@check(
    "command.unknown-option",
    section="3",
    title="An unknown value of a closed list is rejected as `unsupported`",
    remedy="Answer `rejected` with `unsupported` for a digest or an option value that is not in the tables.",
)
async def unknown_option(bench: Bench) -> None:
    """A digest of a later version."""
    talk = bench.talk(bench.samples.any().path)
    mark = bench.transcript.mark
    await bench.publish(talk.download({"digest": "blake3"}))
    _is(await bench.answer(talk.message_id, since=mark), "rejected", "unsupported")


@check(
    "command.unknown-members",
    section="General rules",
    title="Members that are not in the tables are ignored",
    remedy="Ignore unknown members at every level; a later version may add some.",
)
async def unknown_members(bench: Bench) -> None:
    """Members of a later version in each object of a command."""
    talk = bench.talk(bench.samples.any().path)
    command = talk.download({"x_new": {"a": 1}}, x_new=[1, 2], options={"x_new": "fast"})
    await bench.publish({**command, "x_new": None, "issued_at": "2026-01-01T00:00:00Z"})
    offer = await talk.request()
    urls = [{**talk.make(part).as_part(), "x_new": 1} for part in offer.wanted]
    await talk.grant([], config={"presigned_urls": urls, "expires_in": 900, "x_new": True}, x_new="y")
    await talk.finish(await talk.report())


@check(
    "command.second-place",
    section="3.1",
    title="`upload_id` and `attempt` are read in both places",
    remedy="Read them in `upload_config`, else beside it; the same holds for `presigned_urls` and `expires_in`.",
)
async def second_place(bench: Bench) -> None:
    """An upload whose commands name it beside `upload_config`."""
    talk = bench.talk(bench.samples.any().path)
    command = talk.download()
    for name in ("upload_id", "attempt"):
        command["payload"][name] = command["payload"]["upload_config"].pop(name)
    await bench.publish(command)
    offer = await talk.request()
    urls = [talk.make(part).as_part() for part in offer.wanted]
    payload = {**talk.identity, "acknowledges": talk.sequence, "presigned_urls": urls, "expires_in": 900}
    await bench.publish({"message_id": f"{talk.upload_id}.g", "action": "grant_parts", "payload": payload})
    await talk.finish(await talk.report())


@check(
    "command.other-installation",
    section="3",
    title="A command for another installation is refused with `stale_epoch`",
    remedy="Where a command has an `install_id` that is not the agent's, answer `error` with `stale_epoch`.",
)
async def other_installation(bench: Bench) -> None:
    """The `install_id` of an installation that is gone, and then the right one."""
    _is(await bench.ask("health_check", install_id="another-installation"), "error", "stale_epoch")
    own = bench.presence.get("install_id")
    answer = await bench.ask("health_check", install_id=own)
    require(answer.error != "stale_epoch", "an answer to a command with the agent's own `install_id`", answer.brief())


@check(
    "command.repeated",
    section="4.2",
    title="A repeated `download_file` is answered with the latest response, and does nothing twice",
    remedy="Recognize a command by `upload_id` and `attempt`; publish the latest response again, with its `sequence`.",
)
async def repeated(bench: Bench) -> None:
    """The command is published three times."""
    talk = bench.talk(bench.samples.any().path)
    offer = await talk.offered(acknowledges=0)
    for _ in range(2):
        before = len(talk.all_reports())
        await bench.publish(talk.download(acknowledges=0))
        await bench.fence()

        def again(before: int = before) -> bool:
            return len(talk.all_reports()) > before

        require(await bench.transcript.until(again, bench.patience), "the latest response again", "no answer")
    await settle(_SETTLE)
    reports = talk.all_reports()
    require({one.sequence for one in reports} == {1}, "sequence 1", [one.sequence for one in reports])
    require(all(one.numbers == offer.numbers for one in reports), f"parts {offer.numbers}", reports[-1].brief())


@check(
    "command.qos-0",
    section="1",
    title="A command at QoS 0 is carried out or refused like any other",
    remedy="Do not look at the QoS of a command; one of QoS 0 has no packet id to acknowledge.",
)
async def qos_0(bench: Bench) -> None:
    """A `health_check` at QoS 0."""
    mark = bench.transcript.mark
    await bench.publish({"message_id": "kit-qos-0", "action": "health_check", "payload": {}}, qos=0)
    answer = await bench.answer("kit-qos-0", since=mark)
    require(answer.status in {"success", "rejected"}, "an answer", answer.brief())
