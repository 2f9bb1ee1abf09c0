"""Section 2: presence, status, birth.

Rule: what takes half a minute (a beat, the hello after a birth) is begun when the kit starts, and looked at last.
"""

import asyncio
from itertools import pairwise

from control_plane.cli.conformance.bench.findings import NotApplicable, Wrong, require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.transcript import Connected, Left, Sent
from control_plane.cli.conformance.catalogue import PROCESS, check
from schemas.codec import decode
from schemas.errors import SchemaError
from schemas.messages import Presence
from schemas.values import LAST_SEQUENCE

_BEAT = 30.0
_BIRTH_DELAY = 30.0
_SLACK = 5.0
"""Seconds that a machine under load may be late."""

_ACTIONS = frozenset({"download_file", "grant_parts", "cancel_upload", "close_upload"})


def _births(bench: Bench) -> dict[int, list[Sent]]:
    """The `online`s of each connection."""
    found: dict[int, list[Sent]] = {}
    for one in bench.presences():
        if one.document.get("status") == "online":
            found.setdefault(one.connection, []).append(one)
    return found


@check(
    "presence.birth",
    section="2.1",
    title="The presence has its required members",
    remedy="Publish a Presence as in the table: `client_id` of the topic, `online`, `install_id`, `epoch`, `sequence`.",
)
async def birth(bench: Bench) -> None:
    """Each `online` decodes, and names this client."""
    require(bench.presences(), "a presence after the connect", "none")
    for one in bench.presences():
        try:
            read = decode(Presence, one.facts.payload)
        except SchemaError as error:
            expected = "a Presence"
            raise Wrong(expected, str(error)) from error
        require(read.client_id == bench.client_id, f"`client_id` `{bench.client_id}`", read.client_id)
        require(1 in read.agent.protocol, "1 in `agent.protocol`", list(read.agent.protocol))


@check(
    "presence.capabilities",
    section="2.1",
    title="Announces the four actions of an upload",
    remedy="List in `capabilities` each action that the agent supports; an owner sends nothing else.",
)
async def capabilities(bench: Bench) -> None:
    """What an agent must support."""
    missing = sorted(_ACTIONS - bench.capabilities)
    require(not missing, f"`capabilities` with {', '.join(sorted(_ACTIONS))}", f"without {', '.join(missing)}")


@check(
    "presence.epoch",
    section="2.1",
    title="The epoch is greater at every CONNECT; the `install_id` stays",
    remedy="Keep the epoch and the `install_id` where a restart finds them; raise the epoch before each CONNECT.",
)
async def epoch(bench: Bench) -> None:
    """The connections of the run, and one more."""
    await bench.reconnect()
    births = _births(bench)
    firsts = [births[number][0].document for number in sorted(births)]
    epochs = [one.get("epoch") for one in firsts]
    rising = all(isinstance(one, int) for one in epochs) and epochs == sorted(set(epochs))  # type: ignore[type-var]
    require(rising, "epochs that rise from one connection to the next", epochs)
    names = {str(one.get("install_id")) for one in firsts}
    require(len(names) == 1, "one `install_id`", sorted(names))


@check(
    "presence.sequence",
    section="2.1",
    title="`sequence` counts 0, 1, 2 … in each epoch",
    remedy="Begin each connection with `sequence` 0, and add 1 with each beat.",
    last=True,
)
async def sequence(bench: Bench) -> None:
    """The beats of each connection."""
    for number, onlines in _births(bench).items():
        seen = [one.document.get("sequence") for one in onlines]
        require(seen == list(range(len(seen))), f"sequences 0 … {len(seen) - 1} in connection {number}", seen)


@check(
    "presence.restart",
    section="2.1",
    title="A graceful end publishes `offline`; the next start has a greater epoch and the same `install_id`",
    remedy="On SIGTERM publish `offline` with `sequence` 2^53 - 1, retained, then send DISCONNECT with reason 0. Keep"
    " `install_id` and epoch across restarts.",
    needs=(PROCESS,),
)
async def restart(bench: Bench) -> None:
    """The agent is stopped with SIGTERM, and started again."""
    assert bench.program is not None  # noqa: S101 - the check needs the process
    require(bench.presence, "a presence after the connect", "none")
    number, before, mark = bench.connection, bench.presence, bench.transcript.mark
    await asyncio.to_thread(bench.program.stop)

    def left() -> Left | None:
        return next((one for one in bench.transcript.of(Left, mark) if one.connection == number), None)

    over = await bench.transcript.until(left, bench.patience)
    last = [one.document for one in bench.presences(mark) if one.connection == number]
    bench.program.start()
    offline = last[-1] if last else {}
    require(offline.get("status") == "offline", "`offline` before the end", offline.get("status", "no presence"))
    require(offline.get("sequence") == LAST_SEQUENCE, f"`sequence` {LAST_SEQUENCE}", offline.get("sequence"))
    require(over is not None and over.reason == 0, "DISCONNECT with reason 0x00", over and over.reason)
    await bench.back(mark)
    after = bench.presence
    require(after["epoch"] > before["epoch"], f"an epoch above {before['epoch']} after the restart", after["epoch"])
    same = after["install_id"] == before["install_id"]
    require(same, "the same `install_id` after the restart", f"{before['install_id']}, then {after['install_id']}")


@check(
    "presence.state-went-back",
    section="2.1",
    title="A stored presence with a greater epoch makes the agent connect again above it",
    remedy="Read the own stored presence before the birth; where it has this `install_id` and an epoch that is not"
    " below the own one, take an epoch above it and connect again.",
)
async def state_went_back(bench: Bench) -> None:
    """The broker has a presence of a later epoch: the agent's state is an older copy."""
    now = bench.presence
    require(now, "a presence after the connect", "none")
    stored = {**now, "status": "offline", "epoch": now["epoch"] + 1_000_000, "sequence": LAST_SEQUENCE}
    bench.tap.refuses = True
    mark = bench.transcript.mark
    bench.tap.cut()
    await bench.transcript.until(lambda: bench.connection is None, bench.patience)
    await bench.owner.publish(bench.topics.presence(bench.client_id), stored, retain=True)
    bench.tap.refuses = False

    def above() -> bool:
        connects = list(bench.transcript.of(Connected, mark))
        return bool(connects) and any(
            one.document.get("status") == "online" and one.document.get("epoch", 0) > stored["epoch"]
            for one in bench.presences(mark)
        )

    patience = max(bench.patience, 20.0)
    done = await bench.transcript.until(above, patience)
    seen = [one.document.get("epoch") for one in bench.presences(mark)]
    require(done, f"an `online` with an epoch above {stored['epoch']}", f"epochs {seen}")


@check(
    "status.pace",
    section="2.2",
    title="At most one status a second, and `idle` after the last upload",
    remedy="Publish a Status at most once a second while there are uploads, and one with `idle` after them.",
    last=True,
)
async def status(bench: Bench) -> None:
    """The statuses of the run."""
    statuses = [one for one in bench.transcript.of(Sent) if one.channel == "status"]
    if not statuses:
        reason = "the agent published no status in this run"
        raise NotApplicable(reason)
    gaps = [
        later.at - earlier.at
        for earlier, later in pairwise(statuses)
        if earlier.connection == later.connection and later.document.get("status") != "idle"
    ]
    # A message may wait a moment on its way, and the next one not.
    close = [gap for gap in gaps if gap < 0.5]  # noqa: PLR2004
    require(len(close) <= len(gaps) // 10, "a second between statuses", f"{len(close)} of {len(gaps)} below 0.5 s")

    def idle() -> bool:
        latest = [one for one in bench.transcript.of(Sent) if one.channel == "status"][-1]
        return latest.document.get("status") == "idle"

    done = await bench.transcript.until(idle, max(bench.patience, _BEAT + _SLACK))
    require(done, "`idle` once every upload is closed", statuses[-1].document.get("status"))


@check(
    "birth.hello",
    section="2.3",
    title="Publishes a hello within 30 s after a birth",
    remedy="Subscribe to the birth topic, and publish a hello after a random delay of 0 to 30 s.",
    last=True,
)
async def birth_hello(bench: Bench) -> None:
    """The hello after a Birth of a control plane."""
    mark = bench.transcript.mark
    await bench.owner.publish(bench.topics.birth(), {"instance": bench.owner.name})
    found = await bench.transcript.until(lambda: bench.hello(mark), _BIRTH_DELAY + _SLACK)
    require(found, "a hello within 30 s after a birth", f"none within {_BIRTH_DELAY + _SLACK:g} s")


@check(
    "presence.beat",
    section="2.1",
    title="Publishes `online` again every 30 s",
    remedy="Repeat the presence every 30 s with the next `sequence`: a client without a beat for 90 s counts as away.",
    last=True,
)
async def beat(bench: Bench) -> None:
    """The gaps between beats; the next beat is awaited where no connection has had two."""
    if not _gaps(bench):
        latest = bench.presences()[-1].at
        due = latest + _BEAT + _SLACK - asyncio.get_running_loop().time()
        await bench.transcript.until(lambda: _gaps(bench), max(due, bench.patience))
    gaps = _gaps(bench)
    require(gaps, f"a beat {_BEAT:g} s after the last one", f"none within {_BEAT + _SLACK:g} s")
    for gap in gaps:
        require(_BEAT / 2 < gap < _BEAT + _SLACK, f"a beat every {_BEAT:g} s", f"one after {gap:.1f} s")


def _gaps(bench: Bench) -> list[float]:
    """Seconds between the beats of each connection."""
    return [later.at - earlier.at for beats in _births(bench).values() for earlier, later in pairwise(beats)]
