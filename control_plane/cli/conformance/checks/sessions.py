"""Section 1: the connection of an agent.

Rule: read from the packets that the agent sends, at the tap.
"""

import json

from control_plane.cli.conformance.bench.findings import Wrong, require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.talk import settle
from control_plane.cli.conformance.bench.transcript import Acknowledged, Connected, DeliveredToAgent, Sent, Subscribed
from control_plane.cli.conformance.bench.wire import (
    EXPIRY,
    RECEIVE_MAXIMUM,
    SESSION_EXPIRY,
    WILL_DELAY,
    Subscription,
    WillFacts,
)
from control_plane.cli.conformance.catalogue import check
from schemas.codec import decode
from schemas.errors import SchemaError
from schemas.messages import Presence
from schemas.values import LAST_SEQUENCE

_SESSION_EXPIRY = 600
_KEEP_ALIVE = 30
_RECEIVE_MAXIMUM = 16
_WILL_DELAY = 10
_SETTLE = 0.5


def _connects(bench: Bench) -> list[Connected]:
    return list(bench.transcript.of(Connected))


@check(
    "session.identity",
    section="1",
    title="MQTT 5, and the MQTT client id is the client id",
    remedy="Connect with MQTT 5, and use `client_id` as MQTT client id, and as username where there is one.",
)
async def identity(bench: Bench) -> None:
    """Client id, username and version of the protocol."""
    for one in _connects(bench):
        require(one.facts.level == 5, "MQTT protocol level 5", one.facts.level)  # noqa: PLR2004 - MQTT 5
        require(one.facts.client_id == bench.client_id, f"MQTT client id `{bench.client_id}`", one.facts.client_id)
        names = {bench.client_id, None}
        require(one.facts.username in names, f"username `{bench.client_id}`, or none", one.facts.username)


@check(
    "session.clean-start",
    section="1",
    title="Clean Start is false",
    remedy="Connect with Clean Start 0: a clean start drops the commands that wait in the session.",
)
async def clean_start(bench: Bench) -> None:
    """The session is continued."""
    for one in _connects(bench):
        require(not one.facts.clean_start, "Clean Start false", f"true in connection {one.connection}")


@check(
    "session.properties",
    section="1",
    title="Session Expiry 600, Keep Alive 30, Receive Maximum 16",
    remedy="Set these three in CONNECT; without a Session Expiry the broker keeps no command for an absent agent.",
)
async def properties(bench: Bench) -> None:
    """The numbers of CONNECT."""
    for one in _connects(bench):
        numbers = one.facts.properties
        for name, seen, right in (
            ("Session Expiry Interval", numbers.get(SESSION_EXPIRY, 0), _SESSION_EXPIRY),
            ("Keep Alive", one.facts.keep_alive, _KEEP_ALIVE),
            ("Receive Maximum", numbers.get(RECEIVE_MAXIMUM), _RECEIVE_MAXIMUM),
        ):
            require(seen == right, f"{name} {right}", "none" if seen is None else seen)


@check(
    "session.will",
    section="1",
    title="The will is the `offline` of this connection",
    remedy="Set a will: topic `presence`, QoS 1, retained, Will Delay 10, no Message Expiry; its body is a Presence"
    " with `offline`, the epoch of this connection and `sequence` 2^53 - 1.",
)
async def will(bench: Bench) -> None:
    """The will of each CONNECT."""
    for one in _connects(bench):
        found = one.facts.will
        if found is None:
            expected = "a will"
            raise Wrong(expected, f"none in connection {one.connection}")
        _flags(bench, found)
        try:
            body = decode(Presence, found.payload)
        except SchemaError as error:
            expected = "a will whose body is a Presence"
            raise Wrong(expected, str(error)) from error
        require(body.status == "offline", "`status` `offline` in the will", body.status)
        require(body.sequence == LAST_SEQUENCE, f"`sequence` {LAST_SEQUENCE} in the will", body.sequence)
        birth = next((sent for sent in bench.presences() if sent.connection == one.connection), None)
        if birth is not None:
            epoch = birth.document.get("epoch")
            require(body.epoch == epoch, f"the epoch of the connection ({epoch}) in the will", body.epoch)


def _flags(bench: Bench, found: WillFacts) -> None:
    topic = bench.topics.presence(bench.client_id)
    require(found.topic == topic, f"the will's topic `{topic}`", found.topic)
    require(found.qos == 1, "the will at QoS 1", f"QoS {found.qos}")
    require(found.retained, "a retained will", "one that is not retained")
    delay = found.properties.get(WILL_DELAY, 0)
    require(delay == _WILL_DELAY, f"Will Delay Interval {_WILL_DELAY}", delay)
    require(EXPIRY not in found.properties, "a will without Message Expiry", found.properties.get(EXPIRY))


@check(
    "session.subscriptions",
    section="1",
    title="Subscribes to its own presence, its commands and the birth, and to nothing else",
    remedy="After each CONNACK subscribe to `presence` (QoS 0, No Local), then to `command` and `birth` (QoS 1, Retain"
    " Handling 2).",
)
async def subscriptions(bench: Bench) -> None:
    """The topic filters of each connection and their options."""
    topics = bench.topics
    command, birth, own = topics.command(bench.client_id), topics.birth(), topics.presence(bench.client_id)
    for one in _connects(bench):
        if not any(sent.connection == one.connection for sent in bench.presences()):
            continue
        found: dict[str, Subscription] = {
            each.topic: each
            for subscribed in bench.transcript.of(Subscribed)
            if subscribed.connection == one.connection
            for each in subscribed.facts.filters
        }
        more = sorted(found.keys() - {command, birth, own})
        require(not more, "no other subscription", more)
        for topic in (command, birth, own):
            require(topic in found, f"a subscription to `{topic}`", sorted(found))
        for topic in (command, birth):
            require(found[topic].qos == 1, f"`{topic}` at QoS 1", f"QoS {found[topic].qos}")
            handling = found[topic].retain_handling
            require(handling == 2, f"`{topic}` with Retain Handling 2", handling)  # noqa: PLR2004 - the option's value
        require(found[own].no_local, f"`{own}` with No Local", "without")


@check(
    "session.order",
    section="1",
    title="After CONNACK: the subscriptions, the presence, the hello",
    remedy="Publish the presence after the SUBACK of `command`, then the hello: `online` means that commands arrive.",
)
async def order(bench: Bench) -> None:
    """What follows a CONNECT, in each connection."""
    command = bench.topics.command(bench.client_id)
    for one in _connects(bench):
        steps = []
        for entry in bench.transcript.entries:
            match entry:
                case Subscribed(connection=one.connection, facts=facts):
                    steps += ["subscribe" for each in facts.filters if each.topic == command]
                case Sent(connection=one.connection) if entry.channel == "presence":
                    steps.append("presence")
                case Sent(connection=one.connection) if entry.channel == "response":
                    steps.append("hello" if entry.document.get("action") == "hello" else "response")
                case _:
                    pass
        first = [step for at, step in enumerate(steps) if step not in steps[:at]]
        wanted = ["subscribe", "presence", "hello"]
        seen = [step for step in first if step in wanted]
        if "presence" in seen:
            require(seen == wanted[: len(seen)], ", then ".join(wanted), ", then ".join(seen))


@check(
    "session.acknowledgement",
    section="1",
    title="Each command is acknowledged with PUBACK",
    remedy="Acknowledge a command when it is safe: in the journal, if the agent has one.",
)
async def acknowledgement(bench: Bench) -> None:
    """A PUBACK for a command that came in."""
    mark = bench.transcript.mark
    await bench.fence()
    delivered = [one for one in bench.transcript.of(DeliveredToAgent, mark) if one.facts.qos == 1]
    require(delivered, "a command delivered at QoS 1", "none: the agent subscribed at QoS 0")
    wanted = {(one.connection, one.facts.packet_id) for one in delivered}

    def acknowledged() -> bool:
        return wanted <= {(one.connection, one.packet_id) for one in bench.transcript.of(Acknowledged, mark)}

    done = await bench.transcript.until(acknowledged, bench.patience)
    require(done, f"a PUBACK for each of {len(wanted)} commands", "fewer")
    reasons = {one.reason for one in bench.transcript.of(Acknowledged, mark)}
    require(reasons == {0}, "PUBACK with reason 0x00", [hex(reason) for reason in sorted(reasons)])


@check(
    "session.redelivery",
    section="1",
    title="A command that the broker delivers again after a lost connection has its effect once",
    remedy="Continue the session after each lost connection, and recognize a command by its `message_id`: the broker"
    " delivers what was not acknowledged again.",
)
async def redelivery(bench: Bench) -> None:
    """The PUBACK of a `download_file` is lost with the connection."""
    talk = bench.talk(bench.samples.any().path)
    bench.tap.keeps_acknowledgements = True
    offer = await talk.offered()
    bench.tap.keeps_acknowledgements = False
    mark = await bench.reconnect()

    def delivered() -> bool:
        again = (one for one in bench.transcript.of(DeliveredToAgent, mark))
        return any(one.document.get("message_id") == talk.message_id for one in again)

    if not await bench.transcript.until(delivered, bench.patience):
        expected = "the command delivered again in the continued session"
        raise Wrong(expected, "nothing: the agent ended its session with Clean Start or a Session Expiry of 0")
    await bench.fence()
    numbers = {one.sequence for one in talk.all_reports()}
    require(
        numbers == {offer.sequence},
        f"the one offer, sequence {offer.sequence}",
        f"sequences {sorted(numbers, key=str)}",
    )


@check(
    "session.retained-command",
    section="1",
    title="A retained command is not carried out at the next connect",
    remedy="Subscribe to `command` with Retain Handling 2, and drop what arrives marked as retained.",
)
async def retained_command(bench: Bench) -> None:
    """A command that the broker stored is not obeyed at each connect."""
    mark = bench.transcript.mark
    message = {"message_id": "kit-retained", "action": "health_check", "payload": {}}
    await bench.publish(message, retain=True)
    try:
        await bench.fence()
        before = len(bench.answers("kit-retained", since=mark))
        again = await bench.reconnect()
        await bench.fence()
        after = len(bench.answers("kit-retained", since=again))
        require(after == 0, "no answer to a stored command in the next connection", f"{before} before, {after} after")
    finally:
        await bench.owner.publish(bench.topics.command(bench.client_id), b"", retain=True)


@check(
    "session.reconnect",
    section="1",
    title="Comes back after the broker ends the connection, and begins as at the first connect",
    remedy="Connect again with backoff (at most 60 s), and begin each connection alike: subscribe, presence, hello.",
)
async def reconnect(bench: Bench) -> None:
    """Two connections in a row are cut."""
    for _ in range(2):
        await bench.reconnect()
    await bench.fence()
    mark = bench.transcript.mark
    await settle(_SETTLE)
    extra = list(bench.transcript.of(Connected, mark))
    require(not extra, "one connection at a time", f"{len(extra)} more connections")


@check(
    "topics.own",
    section="1",
    title="Publishes to its own three topics only, with the QoS and the retain flag of the table",
    remedy="`response`: QoS 1, not retained. `status`: QoS 0, not retained. `presence`: QoS 1, retained.",
    last=True,
)
async def topics(bench: Bench) -> None:
    """Every message of the run."""
    root = f"{bench.topics.root}/{bench.client_id}/"
    table = {"response": (1, False), "status": (0, False), "presence": (1, True)}
    for one in bench.transcript.of(Sent):
        require(
            one.facts.topic.startswith(root) and one.channel in table,
            f"a topic `{root}response`, `status` or `presence`",
            one.facts.topic,
        )
        seen = (one.facts.qos, one.facts.retained)
        if one.facts.payload:
            words = [f"QoS {qos}, {'retained' if kept else 'not retained'}" for qos, kept in (table[one.channel], seen)]
            require(seen == table[one.channel], f"`{one.channel}` with {words[0]}", words[1])


@check(
    "topics.expiry",
    section="1",
    title="Message Expiry: 120 on `online`, none on anything else",
    remedy="Set Message Expiry Interval 120 on each `online`; set none on responses, statuses and `offline`.",
    last=True,
)
async def expiry(bench: Bench) -> None:
    """Every message of the run."""
    for one in bench.transcript.of(Sent):
        online = one.channel == "presence" and json.loads(one.facts.payload or b"{}").get("status") == "online"
        seen, right = one.facts.properties.get(EXPIRY), 120 if online else None
        what = "`online`" if online else f"`{one.channel}`"
        require(seen == right, f"Message Expiry {right or 'none'} on {what}", "none" if seen is None else seen)
