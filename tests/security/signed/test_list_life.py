"""A list of keys that has an end: a broker that withholds what comes after it keeps no revoked key in use for ever.

Rule: the broker and the thief work together. The thief dates what he signs as he likes, and the broker withholds the
rest.
"""

from datetime import datetime
from pathlib import Path

import pytest

from schemas.signing.canonical import SignedKind
from schemas.signing.ed25519 import Signer
from tests.unit.device_agent.trust.fleet import ALICE, DAY, MADE, PLANE, entry, keys_of, operator, published
from tests.unit.device_agent.trust.loop import TOPICS, SignedLoop, signed

END = MADE + 30 * DAY
NOTHING: tuple[bool, bool] = (False, False)
BOTH = (True, True)


class Device(SignedLoop):
    """It obeys a list that ends at `END`; ALICE's key has leaked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.keys(published(keys_of(entry(), operator(), version=2, expires=END)))
        self._sent = 0

    def at(self, moment: datetime) -> None:
        """The clock of the device."""
        self.signing._wall = moment.timestamp

    def obeys(self, by: Signer, issued_at: datetime) -> bool:
        self._sent += 1
        self.loop.now += 2.0
        return self.send("health_check", f"h{self._sent}", by=by, issued_at=issued_at.isoformat()) != []

    def obeyed(self, issued_at: datetime) -> tuple[bool, bool]:
        """Whether the control plane and the thief are."""
        return self.obeys(PLANE, issued_at), self.obeys(ALICE, issued_at)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_after_the_end_of_the_list_nobody_is_obeyed_however_he_dates_his_commands(device: Device) -> None:
    device.at(END)
    assert device.obeyed(MADE + DAY) == BOTH
    device.at(END + DAY / 86_400)
    counted = device.unverified
    assert device.obeyed(MADE + DAY) == NOTHING
    assert device.obeyed(END + DAY) == NOTHING
    assert device.unverified == counted + 4
    # Also after a restart.
    device.restart()
    device.at(END + DAY)
    assert device.obeyed(MADE + DAY) == NOTHING


def test_a_birth_of_a_list_that_has_ended_is_not_heard(device: Device) -> None:
    device.at(END + DAY)
    counted, birth = device.unverified, b'{"instance":"i"}'
    device.birth(birth, signed(birth, PLANE, SignedKind.BIRTH, TOPICS.birth()))
    assert device.unverified == counted + 1


def test_a_list_that_was_signed_again_is_taken_after_the_end_and_frees_no_revoked_key(device: Device) -> None:
    device.at(END + DAY)
    later = keys_of(entry(), operator(), version=3, revoked=(ALICE.kid,), issued_at=END + DAY, expires=END + 30 * DAY)
    device.keys(published(later))
    assert device.signing.keys_version == 3
    assert device.obeyed(END + DAY) == (True, False)


def test_without_a_clock_what_is_dated_after_the_end_is_refused_and_moves_nothing(device: Device) -> None:
    """So the control plane is refused; a thief who dates his commands back is not: docs/limits.md says so."""
    device.at(MADE - 365 * DAY)
    before = device.signing.trust_file.ratchet
    assert device.obeyed(END + DAY) == NOTHING
    assert device.signing.trust_file.ratchet == before
    assert device.obeys(ALICE, MADE + DAY)


def test_a_clock_that_was_ahead_ends_no_list_for_ever(device: Device) -> None:
    device.at(END + 3_650 * DAY)
    assert device.obeyed(MADE + DAY) == NOTHING
    device.at(MADE + DAY)
    assert device.obeyed(MADE + DAY) == BOTH
