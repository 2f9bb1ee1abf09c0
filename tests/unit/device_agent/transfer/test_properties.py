"""The transfer machine with an owner and faults: lost, repeated and late messages, and crashes."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from device_agent.errors import PutFailure
from device_agent.transfer.events import Admitted, CancelRequested, CloseReceived, Granted, PartStored, Repeated, Tick
from device_agent.transfer.machine import wake_at
from device_agent.transfer.model import State, Transfer
from device_agent.transfer.replay import replay
from schemas.messages import Wait
from schemas.parts import to_ranges
from schemas.values import UploadOptions
from tests.support.examples import examples
from tests.unit.device_agent.device import CHUNK, Device, durable, order, report, urls

KINDS = [PutFailure.TRY_AGAIN, PutFailure.EXPIRED_OR_FORBIDDEN, PutFailure.BAD_DIGEST, PutFailure.STOPPED]


class World(RuleBasedStateMachine):
    """One upload; the owner has committed `acknowledged` responses and the etags in them."""

    @initialize(parts=st.integers(1, 40), pregranted=st.integers(0, 3))
    def command(self, parts: int, pregranted: int) -> None:
        self.parts = parts
        about = order(options=UploadOptions(give_up_after=100_000), pregranted=pregranted > 0)
        self.device = Device(size=parts * CHUNK - 1, order=about, pregranted=urls(range(1, pregranted + 1)))
        self.acknowledged = 0
        self.known: set[int] = set()
        self.read = 0
        self.stored: set[int] = set()
        self.in_flight: set[int] = set()
        self.grants: list[Granted] = []
        self.answered = 0
        self.checked = 0
        self.statuses: dict[int, str] = {}
        self.reported: dict[int, int] = {}
        self.committed: set[int] = set()

    @rule()
    def admit(self) -> None:
        if self.device.transfer.state is State.QUEUED:
            self.device.on(Admitted(now=self.device.now))

    @precondition(lambda self: self.device.work)
    @rule()
    def do_file_work(self) -> None:
        self.device.perform_one()

    @rule(data=st.data(), loses=st.booleans())
    def owner_reads(self, data: st.DataObject, *, loses: bool) -> None:
        """Commit every published response, and answer the latest one if it is a request."""
        if self.read == len(self.device.responses) or self.device.transfer.state is State.CLOSED:
            return
        for response in self.device.responses[self.read :]:
            self.acknowledged = max(self.acknowledged, response.sequence or 0)
            self.known |= set(report(response).etags)
        self.read = len(self.device.responses)
        wanted = [part.part_number for part in report(self.device.last).wanted_parts]
        if self.device.last.status == "in_progress":
            granted = wanted[: data.draw(st.integers(0, len(wanted)))]
            completed = to_ranges(self.known)
            now = self.device.now
            grant = Granted(now=now, acknowledges=self.acknowledged, completed=completed, parts=urls(granted))
            self.grants.append(grant)
            if not loses:
                self.deliver(grant)

    @rule(seconds=st.floats(1, 3_600))
    def owner_holds(self, seconds: float) -> None:
        """Grant nothing for a while, as far as the owner has read."""
        if self.device.transfer.state is not State.CLOSED:
            self.deliver(Granted(now=self.device.now, acknowledges=self.acknowledged, wait=Wait("paused", seconds)))
            hold, request = self.device.transfer.hold, self.device.transfer.request
            assert hold is None or request is None or request.answered

    @precondition(lambda self: self.grants)
    @rule(data=st.data())
    def an_old_grant_comes_late(self, data: st.DataObject) -> None:
        self.deliver(data.draw(st.sampled_from(self.grants)))

    @rule()
    def a_worker_is_free(self) -> None:
        begun = self.device.begin_parts(4)
        assert not set(begun) & self.stored, "a part that is stored is sent again"
        assert not set(begun) & self.known
        self.in_flight |= set(begun)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def a_part_is_stored(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_flight)))
        self.in_flight.discard(number)
        going = self.device.transfer.state is not State.ENDED
        self.device.on(PartStored(now=self.device.now, number=number, etag=f'"e{number}"', seen=self.device.seen()))
        if going:
            self.stored.add(number)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def a_part_fails(self, data: st.DataObject, kind: PutFailure) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_flight)))
        self.in_flight.discard(number)
        self.device.fail(number, kind)

    def survives(self, transfer: Transfer) -> Transfer:
        """The fields that survive a crash. A source that was never reported may be examined again."""
        kept = durable(transfer)
        return kept if self.device.responses or self.device.puts else replace(kept, source=None)

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.device.now += seconds
        if self.device.transfer.state is not State.CLOSED:
            self.device.on(Tick(now=self.device.now))

    @rule()
    def the_command_comes_again(self) -> None:
        self.commit(self.acknowledged)
        self.device.on(Repeated(now=self.device.now, acknowledges=self.acknowledged))

    @rule()
    def a_crash(self) -> None:
        if self.device.transfer.state is not State.CLOSED:
            before = self.survives(self.device.transfer)
            self.device.restart()
            self.in_flight.clear()
            self.answered = max(self.answered, self.device.transfer.sequence)
            assert self.survives(self.device.transfer) == before

    @precondition(lambda self: len(self.device.responses) > 12)
    @rule()
    def somebody_cancels(self) -> None:
        self.device.on(CancelRequested(now=self.device.now))

    @precondition(lambda self: self.device.transfer.state is State.ENDED)
    @rule()
    def the_owner_closes(self) -> None:
        self.device.on(CloseReceived(now=self.device.now, outcome="completed"))
        self.in_flight.clear()

    def commit(self, acknowledges: int) -> None:
        """The device learns which responses are committed: their etags must not be reported again."""
        self.committed |= {number for number, sequence in self.reported.items() if sequence <= acknowledges}

    def deliver(self, grant: Granted) -> None:
        self.answered = max(self.answered, grant.acknowledges)
        self.commit(grant.acknowledges)
        self.device.on(
            Granted(
                now=self.device.now,
                acknowledges=grant.acknowledges,
                completed=grant.completed,
                parts=grant.parts,
                lifetime=900.0,
                wait=grant.wait,
            )
        )

    @invariant()
    def sequences_rise_and_mean_one_thing(self) -> None:
        for response in self.device.responses[self.checked :]:
            sequence = response.sequence or 0
            assert sequence >= max(self.statuses, default=0)
            assert self.statuses.setdefault(sequence, response.status) == response.status

    @invariant()
    def an_acknowledged_etag_is_never_told_again(self) -> None:
        for response in self.device.responses[self.checked :]:
            reported = set(report(response).etags)
            assert not reported & self.committed
            for number in reported:
                self.reported.setdefault(number, response.sequence or 0)
        self.checked = len(self.device.responses)

    @invariant()
    def at_most_one_question_is_unanswered(self) -> None:
        requested = {r.sequence or 0 for r in self.device.responses if r.status == "in_progress"}
        assert len({sequence for sequence in requested if sequence > self.answered}) <= 1

    @invariant()
    def success_names_every_part(self) -> None:
        for response in self.device.responses:
            if response.status == "success":
                reported = {number for responses in self.device.responses for number in report(responses).etags}
                assert reported == set(range(1, self.parts + 1))

    @invariant()
    def no_part_is_under_way_twice(self) -> None:
        assert len(self.device.transfer.in_flight) <= 4
        assert not set(self.device.transfer.in_flight) & set(self.device.transfer.done) or self.grants

    @invariant()
    def a_wait_always_ends(self) -> None:
        transfer = self.device.transfer
        if transfer.state in {State.WAITING, State.ENDED} or (
            transfer.awaiting_grant and transfer.state is State.REQUESTING
        ):
            assert wake_at(transfer) is not None

    @invariant()
    def the_journal_holds_all_that_is_durable(self) -> None:
        transfer: Transfer | None = None
        for record in self.device.journal:
            transfer = replay(transfer, record)
        if transfer is not None and self.device.transfer.state is not State.CLOSED:
            assert self.survives(transfer) == self.survives(self.device.transfer)


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=examples(150), stateful_step_count=60, deadline=None)
