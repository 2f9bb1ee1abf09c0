"""The claim and the requests of an enrolment: the vectors, and what the protocol says about them.

Rule: each formula is written out again here, from the text of `docs/protocol.md` 11.5.
"""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.generate.__main__ import VECTORS
from schemas.signing.canonical import from_text, to_text

VECTOR: Final = json.loads((VECTORS / "signing.json").read_bytes())["enrolment"]
PROTOCOL: Final = (Path(__file__).parents[4] / "docs" / "protocol.md").read_text()
SECTION: Final = PROTOCOL.split("### 11.5 Enrolment", 1)[1].split("\n## ", 1)[0]


def test_the_claim_is_that_of_the_formula() -> None:
    one = VECTOR["claim"]
    name = one["client_id"].encode()
    data = b"backhaul-claim-v1" + len(name).to_bytes(4, "big") + name + from_text(one["public_key"], 32)
    assert one["claim"] == to_text(hmac.digest(from_text(one["claim_secret"], 32), data, hashlib.sha256))
    assert '"backhaul-claim-v1" ‖ length of client_id, 4 bytes, big-endian ‖ client_id ‖ public key' in SECTION


def test_what_a_device_signs_is_that_of_the_text() -> None:
    texts = {
        "request": f"request {VECTOR['request']['seal_to']} {VECTOR['request']['nonce']}",
        "poll": f"poll {VECTOR['poll']['device_code']} {VECTOR['poll']['sequence']}",
    }
    for name, text in texts.items():
        one = VECTOR[name]
        signed = bytes.fromhex(one["signed_bytes"])
        assert signed == f"BACKHAULv1 6 enroll 0  {len(text)} {text}".encode()
        public = Ed25519PublicKey.from_public_bytes(from_text(one["public_key"], 32))
        public.verify(from_text(one["user_properties"]["signature"], 64), signed)
    assert "request SEAL_TO NONCE" in SECTION
    assert "poll DEVICE_CODE SEQUENCE" in SECTION


def test_the_example_of_the_protocol_is_the_vector() -> None:
    signed = {name: bytes.fromhex(VECTOR[name]["signed_bytes"]).decode() for name in ("request", "poll")}
    lines = [f"claim    {VECTOR['claim']['claim']}", f"request  {signed['request']}", f"poll     {signed['poll']}"]
    assert "```\n" + "\n".join(lines) + "\n```" in SECTION
