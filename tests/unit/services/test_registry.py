"""Clients from their presence, and the parked entries that become due."""

from control_plane.domain.clients import CONFLICT_FOR
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.uploads.model import State
from control_plane.services.ports.database import PARKED, Records, Subject
from tests.support.fakes import CLIENT, OPERATOR, Rig


async def test_the_next_beat_wakes_an_entry_that_was_parked_after_a_beat() -> None:
    """Another transaction parked it before it could read the beat."""
    async with Rig() as rig:
        await rig.birth()
        view = await rig.trigger()
        rig.messenger.actions()

        def park(records: Records) -> None:
            (task,) = records.outbox.of(Subject.of_upload(view.upload.key))
            records.outbox.put(type(task)(task.subject, task.duty, PARKED))

        await rig.database.write(park)
        rig.clock.time += 30
        await rig.birth(sequence=1)
        assert rig.messenger.actions() == ["download_file"]


async def test_the_end_of_a_conflict_wakes_parked_entries() -> None:
    """A conflict ends by time alone, without a birth."""
    async with Rig() as rig:
        await rig.birth(install_id="one")
        await rig.birth(install_id="other", epoch=2)
        await rig.birth(install_id="one", epoch=3)
        view = await rig.trigger()
        assert (await rig.reason(view.upload.upload_id)).code == ReasonCode.CLIENT_CONFLICT
        for beat in range(1, int(CONFLICT_FOR / 60) + 2):
            rig.clock.time += 60
            await rig.birth(install_id="other", epoch=2, sequence=beat)
        assert (await rig.engine.client_service.client(OPERATOR, CLIENT)).dispatchable(rig.clock.time)
        assert (await rig.upload(view.upload.upload_id)).state is State.DISPATCHED


async def test_a_hello_is_not_answered_while_two_devices_share_the_id() -> None:
    """It may be from either."""
    async with Rig() as rig:
        upload = await rig.granted()
        await rig.birth(install_id="other", epoch=2)
        await rig.birth(epoch=3)
        rig.messenger.actions()
        await rig.hello()
        assert rig.messenger.actions() == []
        assert (await rig.upload(upload.upload_id)).state is State.IN_PROGRESS


async def test_a_verdict_is_logged_with_its_epoch_and_sequence() -> None:
    """So that the log shows whether it was right."""
    async with Rig() as rig:
        await rig.birth(epoch=2)
        await rig.birth(epoch=1)
        lines = [facts for event, facts in rig.events if event == "presence"]
        fields = ("client_id", "install_id", "epoch", "sequence", "verdict")
        assert [tuple(facts[name] for name in fields) for facts in lines] == [
            (CLIENT, f"install-{CLIENT}", 2, 0, "birth"),
            (CLIENT, f"install-{CLIENT}", 1, 0, "stale"),
        ]


async def test_a_beat_is_not_logged() -> None:
    """With ten thousand clients, a line for each would be three hundred lines a second."""
    async with Rig() as rig:
        await rig.birth()
        await rig.birth(sequence=1)
        assert rig.counted("presence") == 1
