"""What remains when a control plane ends between a commit and the duties that follow from it."""

from control_plane.domain.uploads.model import State
from control_plane.services.policy import Policy
from tests.support.fakes import Rig


async def test_a_command_that_was_not_published_is_published_when_its_lease_ends() -> None:
    """The entry is leased, and the upload is still queued: so the command may not be published."""
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
