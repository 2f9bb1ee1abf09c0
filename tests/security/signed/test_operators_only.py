"""A device that takes new work from an operator's signature alone: no door of the control plane makes any for it."""

from pathlib import Path

import pytest

from control_plane.domain.explanations.table import EXPLANATIONS
from control_plane.domain.uploads.model import State
from control_plane.services.errors import OperatorNeeded
from schemas.codec import encode
from schemas.messages import AgentInfo, Response, UploadReport
from schemas.topics import Channel
from tests.security.signed.rig import PLANE, SignedRig
from tests.unit.device_agent.trust.fleet import ALICE
from tests.unit.device_agent.trust.loop import SignedLoop

STRICT = AgentInfo("1.0", policy=("commands_need operator",))


async def test_rest_refuses_new_work() -> None:
    async with SignedRig(key=PLANE) as rig:
        await rig.online()
        await rig.trigger()
        await rig.online(epoch=6, agent=STRICT)
        rig.messenger.sent.clear()
        with pytest.raises(OperatorNeeded, match="operator's signature"):
            await rig.trigger()
        assert [command.action for _, command in rig.messenger.sent] == []


async def test_an_attempt_that_the_device_refuses_says_that_an_operator_has_to_sign_again() -> None:
    """The file changed: what the operator signed for is not what would be sent now, and no retry of REST can help."""
    async with SignedRig(key=PLANE) as rig:
        await rig.online()
        upload_id = (await rig.trigger()).upload.upload_id
        changed = UploadReport(upload_id=upload_id, attempt=1)
        answer = Response("m", "download_file", "error", changed, sequence=1, error="source_changed", message="changed")
        await rig.send(Channel.RESPONSE, encode(answer))
        assert (await rig.upload(upload_id)).attempt == 2
        refused = UploadReport(upload_id=upload_id, attempt=2)
        text = "attempt 2 needs a new command with an operator's signature (commands_need in the device's policy)"
        answer = Response("m", "download_file", "rejected", refused, error="bad_signature", message=text)
        await rig.send(Channel.RESPONSE, encode(answer))
        upload = await rig.upload(upload_id)
        assert (upload.state, upload.error, upload.message) == (State.REJECTED, "bad_signature", text)
        explained = EXPLANATIONS["bad_signature"]
        assert "operator's key" in explained.meaning
        assert "trigger --sign" in explained.remedy


async def test_a_stale_session_costs_the_upload_nothing() -> None:
    """The device was restarted while the command was on its way: it is no failure of the attempt."""
    async with SignedRig(key=PLANE) as rig:
        await rig.online()
        view = await rig.trigger()
        report = UploadReport(upload_id=view.upload.upload_id, attempt=1)
        answer = Response("m", "download_file", "error", report, epoch=5, error="stale_epoch")
        await rig.send(Channel.RESPONSE, encode(answer))
        upload = await rig.upload(view.upload.upload_id)
        assert (upload.state, upload.attempt, upload.error) == (State.DISPATCHED, 1, None)
        assert rig.counted("command.stale") == 1


def test_a_command_that_an_operator_signs_again_is_one_upload(tmp_path: Path) -> None:
    """As `trigger --sign --idempotency-key` does after a command that no control plane has heard."""
    agent = SignedLoop(tmp_path)
    for second in (1, 2):
        assert (
            agent.send(
                "download_file", "again", by=ALICE, file_path="/data/a", issued_at=f"2026-02-01T00:00:0{second}Z"
            )
            == []
        )
    assert [(run.upload_id, run.transfer.order.attempt) for run in agent.loop.agent.uploads] == [("again", 1)]
    assert agent.unverified == 0
