"""A broker that forges, alters, replays, reorders and withholds: it can withhold, and nothing else.

Rule: what is not obeyed leaves uploads, journal and trust as they were, is not answered, and is counted.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.commands import ANSWER_EVERY
from device_agent.files.roots import Roots
from device_agent.mqtt.publisher import BIRTH_EVERY, HELLO_JITTER
from device_agent.state.journal import Journal
from device_agent.trust.sessions import PREVIOUS_FOR
from device_agent.trust.signing import AHEAD
from schemas.signing.canonical import KID, SIGNATURE, Signature, SignedKind, read_signature, to_text
from schemas.signing.documents import KeyEntry, KeyRole
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import sign_document
from tests.unit.device_agent.trust.fleet import (
    ALICE,
    BOB,
    DAY,
    MADE,
    NEXT_ROOT,
    PLANE,
    ROOT,
    ROOT_1,
    THIEF,
    TOPIC,
    entry,
    keys_of,
    operator,
    published,
    root_of,
)
from tests.unit.device_agent.trust.loop import TOPICS, SignedLoop, codes, signed

CONFIG = {"upload_id": "u1", "owner": "control-plane"}
NEW: dict[str, Any] = {"file_path": "/data/a", "upload_config": CONFIG}


@pytest.fixture
def agent(tmp_path: Path) -> SignedLoop:
    return SignedLoop(tmp_path)


class Unchanged:
    """The state before, and what has to be the same after."""

    def __init__(self, agent: SignedLoop) -> None:
        self._agent = agent
        self._before, self._counted = agent.state(), agent.unverified

    def require(self, *, counted: int) -> None:
        assert self._agent.state() == self._before
        assert self._agent.unverified == self._counted + counted


def test_a_signed_command_is_obeyed(agent: SignedLoop) -> None:
    """The other tests would pass with an agent that obeys nothing."""
    run = agent.sending()
    assert agent.unverified == 0
    order = run.transfer.order
    assert (order.principal, order.owner, len(order.command_sha256 or "")) == ("control-plane", "control-plane", 64)


@pytest.mark.parametrize("action", ["download_file", "grant_parts", "cancel_upload", "close_upload", "health_check"])
@pytest.mark.parametrize(
    "sign",
    [
        lambda _data: None,
        lambda data: signed(data, THIEF),
        lambda data: Signature(PLANE.kid, signed(data, THIEF).value),
        lambda data: Signature(THIEF.kid, signed(data).value),
        lambda data: Signature(PLANE.kid, bytes(64)),
        lambda data: signed(data, topic=TOPICS.command("d2")),
        lambda data: signed(data, topic=TOPICS.response("d1")),
        lambda data: signed(data, kind=SignedKind.RESPONSE),
        lambda data: signed(data, kind=SignedKind.BIRTH),
        lambda data: signed(data + b" "),
        lambda data: signed(data, BOB),
    ],
    ids=[
        "unsigned",
        "by a thief",
        "by a thief in another's name",
        "in a thief's name",
        "no signature",
        "for another device",
        "for another topic",
        "of another kind",
        "of another direction",
        "of another payload",
        "by a key of no list",
    ],
)
def test_a_forged_command_is_not_obeyed(
    agent: SignedLoop, action: str, sign: Callable[[bytes], Signature | None]
) -> None:
    agent.sending()
    data = agent.payload(action, "forged", file_path="/data/b", upload_id="u1", outcome="completed", acknowledges=1)
    unchanged = Unchanged(agent)
    assert agent.receive(data, sign(data)) == []
    unchanged.require(counted=1)


@pytest.mark.parametrize(
    "change",
    [
        lambda named: [*named, named[0]],
        lambda named: [*named, named[1]],
        lambda named: [*named, (KID, THIEF.kid)],
        lambda named: named[:1],
        lambda named: named[1:],
        lambda named: [named[0], (SIGNATURE, named[1][1] + "=")],
        lambda named: [named[0], (SIGNATURE, named[1][1].replace("-", "+").replace("_", "/") + "==")],
        lambda named: [(KID, named[0][1].upper()), named[1]],
        lambda named: [("Kid", named[0][1]), named[1]],
    ],
)
def test_duplicate_missing_and_badly_written_properties_are_no_signature(
    agent: SignedLoop, change: Callable[[list[tuple[str, str]]], list[tuple[str, str]]]
) -> None:
    data = agent.payload("download_file", **NEW)
    unchanged = Unchanged(agent)
    assert agent.receive(data, read_signature(change(signed(data).properties()))) == []
    unchanged.require(counted=1)


FIELDS: dict[str, Any] = {
    "message_id": "other",
    "action": "cancel_upload",
    "session": "A" * 22,
    "issued_at": "2027-01-01T00:00:00Z",
    "install_id": "other",
    "payload": {"file_path": "/data/b"},
}


@pytest.mark.parametrize("name", FIELDS)
def test_an_altered_field_makes_it_nobodys_command(agent: SignedLoop, name: str) -> None:
    data = agent.payload("download_file", **NEW)
    altered = msgspec.json.encode({**msgspec.json.decode(data), name: FIELDS[name]})
    unchanged = Unchanged(agent)
    assert agent.receive(altered, signed(data)) == []
    unchanged.require(counted=1)


def test_an_altered_bit_anywhere_makes_it_nobodys_command() -> None:
    """Of the payload, of the signature, and of the key's name."""
    with TemporaryDirectory() as folder:
        agent = SignedLoop(Path(folder))
        data = agent.payload("download_file", **NEW)
        signature = signed(data)

        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.integers(0, 8 * (len(data) + len(signature.value)) - 1))
        def alter(bit: int) -> None:
            whole = bytearray(data + signature.value)
            whole[bit // 8] ^= 1 << bit % 8
            unchanged = Unchanged(agent)
            altered = Signature(signature.kid, bytes(whole[len(data) :]))
            assert agent.receive(bytes(whole[: len(data)]), altered) == []
            unchanged.require(counted=1)

        alter()
        for name in (ALICE.kid, ROOT.kid, agent.signing.signer.kid):
            assert agent.receive(data, Signature(name, signature.value)) == []
        # The untouched one is obeyed: nothing else had kept the altered ones from it.
        agent.receive(data, signature)
        assert agent.loop.agent.uploads.get("u1") is not None


def test_a_replay_on_the_same_connection_is_answered_from_the_state(agent: SignedLoop) -> None:
    """Each command once more, after all of them: none has an effect again."""
    agent.loop.agent.turn([])
    recorded: list[bytes] = []
    sent = agent.sent

    def record(data: bytes, by: Signer = PLANE) -> Any:  # noqa: ANN401
        recorded.append(data)
        return sent(data, by)

    agent.sent = record  # type: ignore[method-assign]
    agent.sending()
    agent.send("cancel_upload", upload_id="u1")
    agent.send("download_file", "second", file_path="/data/a", upload_config={**CONFIG, "attempt": 2})
    run = agent.loop.agent.uploads.get("u1")
    assert run is not None
    assert (run.ended, run.transfer.order.attempt) == (False, 2)
    before, counted = agent.state(), agent.unverified
    for data in recorded * 3:
        agent.loop.now += ANSWER_EVERY
        sent(data)
        assert agent.state() == before
    assert agent.loop.agent.uploads.counters["repeated_commands"] == 3 * len(recorded)
    # It was signed by a trusted key: that is no forgery.
    assert agent.unverified == counted


def test_a_replayed_query_is_carried_out_once_a_second_at_most(agent: SignedLoop) -> None:
    data = agent.payload("health_check")
    assert len(agent.sent(data)) == 1
    agent.loop.now += ANSWER_EVERY
    assert [len(agent.sent(data)) for _ in range(10)] == [1] + [0] * 9


def test_a_replay_of_an_old_session_is_stale_or_a_late_copy(agent: SignedLoop) -> None:
    """After a restart: what begins something is refused, and a copy of what is at hand is answered from the state."""
    agent.sending()
    old = agent.session
    agent.restart()
    assert agent.session != old
    unchanged = Unchanged(agent)
    for action, more in (
        ("download_file", {"file_path": "/data/b", "upload_id": "u2"}),
        ("download_file", {"file_path": "/data/b", "upload_id": "u1", "attempt": 2}),
        ("grant_parts", {"upload_id": "u1", "acknowledges": 9}),
        ("cancel_upload", {"upload_id": "u2"}),
        ("close_upload", {"upload_id": "u2", "outcome": "completed"}),
        ("list_files", {"pattern": "/data/*"}),
        ("health_check", {}),
    ):
        agent.loop.now += ANSWER_EVERY
        assert codes(agent.send(action, session=old, **more)) == [("error", "stale_epoch")], action
    for action, more in (
        ("download_file", {"file_path": "/data/a", "upload_config": CONFIG, "acknowledges": 9}),
        ("cancel_upload", {"upload_id": "u1"}),
        ("close_upload", {"upload_id": "u1", "outcome": "completed"}),
    ):
        agent.send(action, session=old, **more)
        run = agent.loop.agent.uploads.get("u1")
        assert run is not None
        assert not run.ended
    unchanged.require(counted=0)
    agent.send("cancel_upload", upload_id="u1")
    assert agent.loop.agent.uploads.get("u1").ended  # type: ignore[union-attr]


def test_a_command_without_a_session_or_for_another_is_stale(agent: SignedLoop) -> None:
    unchanged = Unchanged(agent)
    for session in (None, to_text(bytes(16))):
        agent.loop.now += ANSWER_EVERY
        assert codes(agent.send("download_file", session=session, **NEW)) == [("error", "stale_epoch")]
    unchanged.require(counted=0)


def test_stale_commands_are_answered_once_a_second(agent: SignedLoop) -> None:
    agent.loop.now += 100
    answers = 0
    for _ in range(50):
        answers += len(agent.send("health_check", session=None))
        agent.loop.now += ANSWER_EVERY / 10
    assert answers == 5


def test_a_late_command_of_the_connection_before_is_obeyed_for_an_hour(agent: SignedLoop) -> None:
    """Signed before the connection was lost, and delivered after it: so are the commands of a busy fleet."""
    old = agent.session
    agent.connect()
    agent.loop.now += PREVIOUS_FOR - 1
    agent.send("download_file", session=old, **NEW)
    assert agent.loop.agent.uploads.get("u1") is not None
    data = agent.payload("cancel_upload", upload_id="u1", session=old)
    agent.loop.now += 2
    agent.connect()
    agent.sent(data)
    assert not agent.loop.agent.uploads.get("u1").ended  # type: ignore[union-attr]


def test_any_order_and_any_gap_leads_to_what_some_order_of_the_owner_could(tmp_path: Path) -> None:
    """Reordered and withheld commands: never an upload that nobody began, a part without a grant, or an unknown end."""
    for number, order in enumerate(permutations(range(4))):
        agent = SignedLoop(tmp_path / str(number))
        commands = [
            agent.payload("download_file", **NEW),
            agent.payload("grant_parts", upload_id="u1", acknowledges=1),
            agent.payload("cancel_upload", upload_id="u1"),
            agent.payload("close_upload", upload_id="u1", outcome="cancelled"),
        ]
        for at in order[: 1 + number % 4]:
            agent.sent(commands[at])
        run = agent.loop.agent.uploads.get("u1")
        assert run is None or (run.transfer.order.file_path, list(run.transfer.in_flight)) == ("/data/a", [])
        assert {one.upload_id for one in agent.loop.agent.uploads} <= {"u1"}
        assert agent.unverified == 0
        agent.loop.journal.close()


LIMITED: dict[str, tuple[KeyEntry, Signer, str, dict[str, Any]]] = {
    "role": (entry(roles=(KeyRole.TRANSFER,)), PLANE, "download_file", NEW),
    "path": (entry(paths=("/srv/**",)), PLANE, "download_file", NEW),
    "owner": (operator(), ALICE, "grant_parts", {"upload_id": "u0", "acknowledges": 1}),
    "owner of a close": (operator(), ALICE, "close_upload", {"upload_id": "u0", "outcome": "completed"}),
    "path of a cancel": (operator(paths=("/home/**",)), ALICE, "cancel_upload", {"upload_id": "u0"}),
    "listing": (operator(paths=("/home/**",)), ALICE, "list_files", {"pattern": "/data/*"}),
}


@pytest.mark.parametrize("what", LIMITED)
def test_a_key_is_obeyed_only_for_what_it_may_sign(tmp_path: Path, what: str) -> None:
    limited, key, action, payload = LIMITED[what]
    agent = SignedLoop(tmp_path, entry(BOB, "control-plane"), limited)
    agent.send("download_file", "m0", by=BOB, file_path="/data/z", upload_config={"upload_id": "u0"})
    assert agent.loop.agent.uploads.get("u0") is not None
    unchanged = Unchanged(agent)
    assert agent.send(action, by=key, **payload) == []
    unchanged.require(counted=1)


def test_a_beginner_without_the_owners_key_acknowledges_nothing(agent: SignedLoop) -> None:
    """An operator may begin an upload of the control plane again, and may not say what the control plane has stored."""
    run = agent.requesting()
    before = run.transfer
    assert (before.sequence, before.acknowledged) == (1, 0)
    assert len(agent.send("download_file", "again", by=ALICE, acknowledges=1, **NEW)) == 1
    assert run.transfer == before
    agent.send("download_file", "anew", by=PLANE, acknowledges=1, **NEW)
    assert run.transfer.acknowledged == 1


def test_an_upload_of_an_unknown_owner_is_its_beginners(tmp_path: Path) -> None:
    agent = SignedLoop(tmp_path, entry(), operator(), operator(BOB, "bob"))
    urls = [{"part_number": 1, "url": "https://s/1"}]
    agent.send(
        "download_file", by=ALICE, file_path="/data/a", upload_config={"upload_id": "u1", "presigned_urls": urls}
    )
    for stranger in (BOB, PLANE):
        unchanged = Unchanged(agent)
        agent.send("close_upload", by=stranger, upload_id="u1", outcome="completed")
        unchanged.require(counted=1)
    # Also after a restart: who began it is in the journal.
    agent.restart()
    agent.send("close_upload", by=BOB, upload_id="u1", outcome="completed")
    assert agent.loop.agent.uploads.get("u1") is not None
    agent.send("close_upload", by=ALICE, upload_id="u1", outcome="completed")
    assert agent.loop.agent.uploads.get("u1") is None


def test_an_operator_cannot_close_what_the_device_does_not_know(agent: SignedLoop) -> None:
    """A tombstone would keep the control plane from beginning it."""
    agent.send("close_upload", by=ALICE, upload_id="u1", outcome="completed")
    agent.send("download_file", **NEW)
    assert agent.loop.agent.uploads.get("u1") is not None


def test_a_revoked_key_is_obeyed_no_more_and_never_again(agent: SignedLoop) -> None:
    both, revoked = (entry(), operator()), (ALICE.kid,)
    agent.keys(published(keys_of(*both, version=2, revoked=revoked)))
    unchanged = Unchanged(agent)
    assert agent.send("health_check", by=ALICE) == []
    unchanged.require(counted=1)
    # The list before, as the broker has stored it.
    agent.keys(published(keys_of(*both)))
    unchanged.require(counted=2)
    agent.restart()
    assert agent.send("health_check", by=ALICE) == []
    assert agent.send("health_check", by=PLANE) != []


def test_lists_and_roots_of_others_change_nothing(agent: SignedLoop) -> None:
    thief = entry(THIEF)
    forged_root = sign_document(root_of(2, THIEF), TOPIC, [THIEF])
    other_first = sign_document(root_of(1, THIEF), TOPIC, [THIEF])
    for documents in (
        published(keys_of(thief, version=9), signer=THIEF),
        published(keys_of(thief, version=9, root=2), (ROOT_1, forged_root), THIEF),
        published(keys_of(thief, version=9), (other_first,), THIEF),
        published(keys_of(thief, entry(), operator(), version=1)),
        b"",
        b"{}",
        b"[" * 100_000,
    ):
        unchanged = Unchanged(agent)
        agent.keys(documents)
        unchanged.require(counted=1)
    assert agent.send("health_check", by=THIEF) == []


def test_a_root_is_walked_and_the_list_of_the_root_before_is_over(agent: SignedLoop) -> None:
    second = sign_document(root_of(2, NEXT_ROOT), TOPIC, [ROOT, NEXT_ROOT])
    agent.keys(published(keys_of(entry(BOB, "control-plane"), root=2), (ROOT_1, second), NEXT_ROOT))
    assert agent.send("health_check", by=BOB) != []
    assert agent.send("health_check", by=PLANE) == []
    unchanged = Unchanged(agent)
    agent.keys(published(keys_of(entry(), version=9)))
    unchanged.require(counted=1)


def test_a_withheld_list_leaves_the_one_before(agent: SignedLoop) -> None:
    """A broker can withhold: the presence says which list is obeyed."""
    assert agent.signing.keys_version == 1
    agent.restart()
    assert agent.signing.keys_version == 1
    assert agent.send("health_check") != []


def test_an_expired_key_is_obeyed_no_more_whatever_the_clock_shows(tmp_path: Path) -> None:
    agent = SignedLoop(tmp_path, entry(), operator(expires=MADE + 10 * DAY))
    data = msgspec.json.decode(agent.payload("health_check"))

    def health(number: int, by: Signer, days: int) -> int:
        moment = (MADE + days * DAY).isoformat()
        agent.loop.now += ANSWER_EVERY
        return len(agent.sent(msgspec.json.encode({**data, "message_id": f"h{number}", "issued_at": moment}), by))

    assert health(1, ALICE, 9) == 1
    # A later one is refused, and moves nothing.
    assert health(2, ALICE, 11) == 0
    assert health(3, ALICE, 10) == 1
    # The control plane's moves the ratchet; so does a restart not forget it.
    assert health(4, PLANE, 12) == 1
    assert health(5, ALICE, 10) == 0
    agent.restart()
    data = msgspec.json.decode(agent.payload("health_check"))
    assert health(6, ALICE, 9) == 0
    assert health(7, PLANE, 12) == 1


def test_a_forged_birth_makes_nobody_say_hello_and_a_signed_one_once_a_minute(agent: SignedLoop) -> None:
    def hellos() -> int:
        return sum(b'"action":"hello"' in one for one in agent.loop.network.published)

    def wait() -> None:
        agent.loop.now += HELLO_JITTER + 0.1
        agent.loop.agent.turn([])

    before, birth = hellos(), b'{"instance":"i"}'
    for signature in (None, signed(birth, THIEF, SignedKind.BIRTH, TOPICS.birth()), signed(birth)):
        agent.birth(birth, signature)
    wait()
    assert (hellos(), agent.unverified) == (before, 3)
    good = signed(birth, PLANE, SignedKind.BIRTH, TOPICS.birth())
    agent.birth(birth, good)
    wait()
    assert hellos() == before + 1
    agent.birth(birth, good)
    wait()
    assert hellos() == before + 1
    agent.loop.now += BIRTH_EVERY
    agent.loop.agent.turn([])
    assert hellos() == before + 2


def test_a_stored_presence_that_the_device_has_not_signed_is_not_read(agent: SignedLoop) -> None:
    """It would raise the epochs of the device, and make it another installation."""
    presence = agent.loop.agent._presence
    stored = msgspec.json.decode(presence.online())
    forged = msgspec.json.encode({**stored, "epoch": 10_000, "session": "B" * 22})
    topic, kind = TOPICS.presence("d1"), SignedKind.PRESENCE
    epoch = presence.epoch
    for signature in (None, THIEF.sign(kind, topic, forged), PLANE.sign(kind, topic, forged)):
        assert not presence.read_retained(forged, signature)
    assert presence.epoch == epoch
    assert presence.read_retained(forged, agent.signing.signer.sign(kind, topic, forged))


def test_its_own_will_makes_no_device_another_installation(agent: SignedLoop) -> None:
    """The broker has it since CONNECT, signed and of the present epoch, and may say that it had stored it."""
    presence, signer = agent.loop.agent._presence, agent.signing.signer
    before = msgspec.json.decode(presence.online())["install_id"]
    topic, kind = TOPICS.presence("d1"), SignedKind.PRESENCE
    for _ in range(3):
        will = presence.will()
        assert not presence.read_retained(will, signer.sign(kind, topic, will))
    assert msgspec.json.decode(presence.online())["install_id"] == before


def test_the_presence_counts_what_was_not_verified(agent: SignedLoop) -> None:
    for _ in range(3):
        agent.receive(b"{}", None)
    stored = msgspec.json.decode(agent.loop.agent._presence.online())
    assert (stored["unverified"], stored["keys_version"]) == (3, 1)
    assert (stored["key"], stored["session"]) == (agent.signing.signer.verifier.text, agent.signing.sessions.present)


def states(folder: Path) -> Iterator[tuple[str, str | None, str | None]]:
    journal, transfers = Journal.open(folder)
    journal.close()
    for one in transfers.values():
        yield one.order.owner, one.order.principal, one.order.command_sha256


def test_a_crash_after_any_command_forgets_no_owner_and_obeys_no_copy(tmp_path: Path) -> None:
    """The journal has who began what; after the crash every recorded command is of a session that is over."""
    agent = SignedLoop(tmp_path)
    data = agent.payload("download_file", **NEW)
    agent.sent(data)
    agent.loop.journal.commit()
    agent.loop.journal.close()
    (order,) = states(tmp_path)
    assert order[:2] == ("control-plane", "control-plane")
    agent._start()
    unchanged = Unchanged(agent)
    agent.sent(data)
    agent.send("close_upload", by=ALICE, upload_id="u1", outcome="completed")
    unchanged.require(counted=1)


def test_a_key_that_never_ends_cannot_end_the_others(tmp_path: Path) -> None:
    """If it leaks, one command of the year 9999 would expire every key that has an end, for ever."""
    agent = SignedLoop(tmp_path, entry(), operator(expires=datetime.now(UTC) + DAY))
    begun = datetime.now(UTC)
    assert codes(agent.send("health_check", "far", issued_at="9999-01-01T00:00:00Z")) != []
    assert begun < agent.signing.trust_file.ratchet <= datetime.now(UTC) + AHEAD
    assert codes(agent.send("health_check", "alice", by=ALICE)) != []
    agent.signing._wall = lambda: 0.0
    before = agent.signing.trust_file.ratchet
    assert codes(agent.send("health_check", "no-clock", issued_at="9999-01-01T00:00:00Z")) != []
    assert agent.signing.trust_file.ratchet == before


def test_a_key_that_ends_cannot_end_those_that_end_sooner(tmp_path: Path) -> None:
    """Unless the device has no clock: then nothing but what is signed tells it the time."""
    now = datetime.now(UTC).replace(microsecond=0)
    agent = SignedLoop(tmp_path, entry(expires=now + DAY), operator(expires=now + 200 * DAY))
    later = (now + 100 * DAY).isoformat()
    for number, wall in enumerate((now, now, now - DAY / 24)):
        # A clock that stands still, or is corrected, is set all the same.
        agent.signing._wall = wall.timestamp
        assert codes(agent.send("health_check", f"alice-{number}", by=ALICE, issued_at=later)) != []
    assert agent.signing.trust_file.ratchet == now + AHEAD
    assert codes(agent.send("health_check", "plane")) != []
    agent.signing._wall = lambda: 0.0
    assert codes(agent.send("health_check", "no-clock", by=ALICE, issued_at=later)) != []
    assert agent.send("health_check", "too-late") == []


def test_a_type_of_files_is_no_way_round_the_paths_of_a_key(tmp_path: Path) -> None:
    """The type names the device's own patterns; one is outside of what the key is for."""
    data, other = tmp_path / "data", tmp_path / "other"
    types = {"logs": (f"{data}/*.log",), "all": (f"{data}/*.log", f"{other}/*.log")}
    for folder in (data, other):
        folder.mkdir()
    agent = SignedLoop(tmp_path / "state", entry(), operator(paths=(f"{data}/**",)), roots=Roots(types=types))
    for number, (by, kind, refused) in enumerate(((ALICE, "all", 1), (ALICE, "logs", 0), (PLANE, "all", 0))):
        before = agent.unverified
        agent.send("select_files", f"m{number}", by=by, job_id="j", type=kind)
        assert agent.unverified - before == refused
        assert (f"m{number}" in agent.loop.agent._queries) is not bool(refused)
