"""What is left when a control plane dies between a commit and what follows from it."""

from control_plane.domain.uploads.model import State
from control_plane.services.policy import Policy
from tests.support.fakes import Rig


async def test_a_command_that_was_never_said_is_said_by_whoever_looks_next() -> None:
    """The row says that somebody meant to; the state says that nobody knows he did."""
    async with Rig(Policy(step_timeout=40.0)) as rig:
        await rig.birth()
        rig.engine.outbox._performs = False
        view = await rig.trigger()
        assert rig.messenger.actions() == []
        rig.engine.outbox._performs = True
        await rig.settle(41.0)
        assert rig.messenger.actions() == ["download_file"]
        upload = await rig.upload(view.upload.upload_id)
        assert (upload.state, upload.strikes) == (State.DISPATCHED, 0)
