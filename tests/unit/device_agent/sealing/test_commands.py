"""Which commands with `encrypt_to` an agent refuses, and why."""

import pytest
from msgspec.structs import replace

from device_agent.sealing import seal
from device_agent.sealing.seal import draw_seal, seal_refusal
from schemas.errors import SchemaError
from schemas.messages import DownloadFile, UploadConfig
from schemas.sealing.recipients import public_key
from schemas.values import DigestName, PresignedPart, UploadOptions

RECIPIENT = "age1e6fuqyd8ewafkjk77x7xdv8vczsvd0azluvl2a0k4n5p9jwt59vqgjc9e2"
SEALED = UploadOptions(encrypt_to=(RECIPIENT,))
COMMAND = DownloadFile(file_path="/data/a", options=SEALED)


def test_a_command_that_can_be_sealed_is_not_refused() -> None:
    assert seal_refusal(COMMAND) is None
    assert seal_refusal(DownloadFile(file_path="/data/a")) is None


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (replace(COMMAND, options=replace(SEALED, compression="gzip")), "compression"),
        (replace(COMMAND, options=replace(SEALED, on_change="prefix")), "on_change"),
        (replace(COMMAND, options=replace(SEALED, encrypt_to=(RECIPIENT, RECIPIENT))), "twice"),
        (replace(COMMAND, options=replace(SEALED, encrypt_to=(RECIPIENT[:-1] + "3",))), "recipient"),
        (replace(COMMAND, after="delete"), "after"),
        (replace(COMMAND, upload_config=UploadConfig(digest=DigestName.NONE)), "digest"),
        (replace(COMMAND, upload_config=UploadConfig(presigned_urls=(PresignedPart(1, "https://s/1"),))), "digest"),
    ],
)
def test_what_cannot_be_sealed_is_refused_with_the_reason(command: DownloadFile, word: str) -> None:
    assert word in (seal_refusal(command) or "")


def test_without_pynacl_the_refusal_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "can_seal", lambda: False)
    assert "backhaul[signing]" in (seal_refusal(COMMAND) or "")
    assert seal_refusal(DownloadFile(file_path="/data/a")) is None


def test_a_recipient_has_a_checksum_and_must_not_be_a_point_of_low_order() -> None:
    assert len(public_key(RECIPIENT)) == 32
    with pytest.raises(SchemaError):
        public_key(RECIPIENT.replace("qgjc", "qgcj"))
    with pytest.raises(SchemaError, match="low order"):
        draw_seal(["age1" + "q" * 52 + "5cu47z"])
