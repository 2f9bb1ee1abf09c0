"""Which close gives a file up, and what the device allows."""

import pytest
from msgspec.structs import replace

from device_agent.after.policy import AfterPolicy
from device_agent.transfer.closing import begin_after
from device_agent.transfer.events import CloseReceived
from device_agent.transfer.records import AfterStep, Ending
from schemas.messages import DownloadFile, UploadConfig
from schemas.parts import MIB
from schemas.values import DigestName, ErrorCode, PresignedPart, ResponseStatus, UploadOptions
from tests.unit.device_agent.device import Device, order


def sent(**changes: object) -> Device:
    device = Device(size=3 * MIB, order=order(after="delete", **changes))
    device.start()
    device.send_all()
    assert device.transfer.ending == Ending(ResponseStatus.SUCCESS)
    return device


def close(outcome: str = "completed", attempt: int = 1, proof: str | None = "etag") -> CloseReceived:
    return CloseReceived(now=1.0, outcome=outcome, attempt=attempt, proof=proof)


def test_only_a_proven_close_of_this_attempt_gives_a_file_up() -> None:
    transfer = sent().transfer
    due = begin_after(transfer, close())
    assert due is not None
    assert (due.step, due.source, due.sequence) == (AfterStep.DUE, transfer.source, transfer.sequence + 1)
    for wrong in (close(proof="size"), close(proof=None), close(proof="later word"), close(attempt=2)):
        kept = begin_after(transfer, wrong)
        assert kept is not None
        assert (kept.step, kept.outcome, kept.code) == (AfterStep.REPORTED, "kept", ErrorCode.AFTER_NOT_POSSIBLE)


@pytest.mark.parametrize("ending", [None, Ending(ResponseStatus.ERROR, ErrorCode.INTERNAL)])
def test_a_file_that_this_agent_did_not_send_whole_is_kept(ending: Ending | None) -> None:
    kept = begin_after(replace(sent().transfer, ending=ending), close())
    assert kept is not None
    assert kept.outcome == "kept"


def test_a_file_without_every_digest_is_kept() -> None:
    kept = begin_after(replace(sent().transfer, digests={}), close())
    assert kept is not None
    assert kept.outcome == "kept"


@pytest.mark.parametrize("outcome", ["failed", "cancelled", "expired", "rejected", "unknown", "later"])
def test_any_other_end_leaves_the_file_alone(outcome: str) -> None:
    device = sent()
    device.on(close(outcome))
    assert device.after is None


def command(after: str, *, path: str = "/data/out/a.csv", **changes: object) -> str | None:
    policy = AfterPolicy(["delete", "move"], ["/data/out/*.csv"], ["/data"])
    return policy.refusal(DownloadFile(after=after, **changes), path)  # type: ignore[arg-type]


def test_the_device_allows_what_its_settings_name_and_nothing_else() -> None:
    assert command("delete") is command("move:/data/done") is command("keep", path="/etc/passwd") is None
    assert "AFTER_PATHS" in str(command("delete", path="/data/out/a.txt"))
    assert "ALLOWED_ROOTS" in str(command("move:/srv/done"))
    assert "ALLOW_AFTER" in str(AfterPolicy(["move"], (), ["/data"]).refusal(DownloadFile(after="delete"), "/data/a"))
    assert "ALLOW_AFTER" in str(AfterPolicy().refusal(DownloadFile(after="delete"), "/data/a"))
    assert AfterPolicy(["delete"], (), ["/data"]).refusal(DownloadFile(after="delete"), "/data/a") is None
    assert AfterPolicy(["delete"], (), ["/data"]).refusal(DownloadFile(after="delete"), "/srv/a") is not None


def test_what_cannot_be_compared_later_is_refused_at_the_start() -> None:
    granted = UploadConfig(presigned_urls=(PresignedPart(1, "https://s/1"),))
    assert command("delete", upload_config=granted) is not None
    assert command("delete", upload_config=UploadConfig(digest=DigestName.NONE)) is not None
    assert command("delete", options=UploadOptions(compression="gzip")) is not None
