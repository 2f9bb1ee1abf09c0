"""What the signature of one command costs: made by the control plane, verified by the device, beside OpenSSL's Ed25519.

Rule: CPU time of this process on one core, each side best of three; the message is a real command with four part URLs.
OpenSSL signs and verifies a few bytes in a loop of C, so the ratio also has what Python and the longer message cost.
"""

import os
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from benchmarks.figures import Figure, Report
from schemas.codec import encode
from schemas.messages import Command, GrantParts
from schemas.signing.canonical import SignedKind, read_signature
from schemas.signing.ed25519 import Signer
from schemas.topics import Topics
from schemas.values import PresignedPart

CLIENT: Final = "restaurant-1"
SIGNATURES: Final = 5_000
_ROUNDS: Final = 3
_SECONDS: Final = 1
_MICROSECONDS: Final = 1e6
# Type, index, bits, name, signatures a second, verifications a second.
_OPENSSL_LINE: Final = "+F6:"


def signing(signatures: int = SIGNATURES) -> Report:
    """Microseconds for one signature and for one verification of a command."""
    signer, topic = Signer(os.urandom(32)), Topics().command(CLIENT)
    payload = encode(_command())
    properties = signer.sign(SignedKind.COMMAND, topic, payload).properties()

    def sign() -> None:
        signer.sign(SignedKind.COMMAND, topic, payload).properties()

    def verify() -> None:
        signature = read_signature(properties)
        if signature is None or not signer.verifier.verifies(signature, SignedKind.COMMAND, topic, payload):
            message = "our own signature does not verify"
            raise RuntimeError(message)

    verify()
    openssl_signs, openssl_verifies = _openssl()
    signed, verified = (min(_each(work, signatures) for _ in range(_ROUNDS)) for work in (sign, verify))
    size = f"a command of {len(payload)} bytes"
    figures = [
        Figure(f"{size} signed", signed, "us", against="us openssl speed ed25519", beside=openssl_signs, at_most=2.0),
        Figure(f"{size} verified", verified, "us", against="us openssl speed", beside=openssl_verifies, at_most=2.0),
    ]
    return Report("signing", figures, {"signatures": signatures, "bytes": len(payload)})


def _command() -> Command:
    url = f"https://bucket.s3.eu-central-1.amazonaws.com/uploads/{CLIENT}/20260101-000000-test-file.bin?{'x' * 400}"
    parts = tuple(PresignedPart(number, url) for number in range(1, 5))
    payload = GrantParts(upload_id="0" * 32, attempt=1, presigned_urls=parts)
    return Command("0" * 32, "grant_parts", payload, issued_at=datetime.now(UTC), epoch=1, session="A" * 22)


def _each(work: Callable[[], None], times: int) -> float:
    """Microseconds of CPU for one run of `work`."""
    started = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - started) / times * _MICROSECONDS


def _openssl() -> tuple[float, float]:
    """Microseconds of one signature and one verification by OpenSSL."""
    command = ["openssl", "speed", "-seconds", str(_SECONDS), "-mr", "ed25519"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in text.splitlines() if line.startswith(_OPENSSL_LINE))
    signs, verifies = map(float, line.split(":")[-2:])
    return _MICROSECONDS / signs, _MICROSECONDS / verifies
