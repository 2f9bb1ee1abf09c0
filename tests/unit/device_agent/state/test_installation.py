"""The installation: an epoch is never used twice, with any fault of the file."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from control_plane.domain.clients import Verdict, apply_presence
from device_agent.errors import JournalError
from device_agent.mqtt.presence import PresenceBuilder
from device_agent.state import atomic_file as disk_module
from device_agent.state import installation as identity_module
from device_agent.state.installation import STEP, Installation
from schemas.codec import decode, encode
from schemas.messages import Presence
from schemas.values import LAST_SEQUENCE


def test_epochs_rise_over_every_restart(tmp_path: Path) -> None:
    seen = []
    for _ in range(5):
        identity = Installation.open(tmp_path)
        seen += [identity.next_epoch() for _ in range(3)]
    assert seen == sorted(set(seen))


def test_a_connection_needs_no_write(tmp_path: Path) -> None:
    identity = Installation.open(tmp_path)
    identity.next_epoch()
    before = (tmp_path / "identity").stat().st_mtime_ns
    assert [identity.next_epoch() for _ in range(STEP - 1)][-1] == STEP
    assert (tmp_path / "identity").stat().st_mtime_ns == before
    identity.next_epoch()
    assert Installation.open(tmp_path).next_epoch() == 2 * STEP + 1


def test_an_installation_keeps_its_id(tmp_path: Path) -> None:
    first = Installation.open(tmp_path)
    first.next_epoch()
    assert Installation.open(tmp_path).install_id == first.install_id


def test_a_damaged_file_means_a_new_installation(tmp_path: Path) -> None:
    first = Installation.open(tmp_path)
    first.next_epoch()
    (tmp_path / "identity").write_bytes(b"{")
    assert Installation.open(tmp_path).install_id != first.install_id


def test_an_unreadable_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    with pytest.raises(JournalError, match="identity cannot be read: Is a directory"):
        Installation.open(tmp_path)


def test_on_a_full_disk_the_file_is_overwritten_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Installation.open(tmp_path).next_epoch()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(identity_module, "replace_file", full)
    identity = Installation.open(tmp_path)
    assert identity.next_epoch() == STEP + 1
    monkeypatch.undo()
    assert Installation.open(tmp_path).next_epoch() == 2 * STEP + 1


def test_no_epoch_is_used_before_its_ceiling_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may restore the old file: no connection starts before the new one is durable."""
    Installation.open(tmp_path).next_epoch()
    identity = Installation.open(tmp_path)
    with monkeypatch.context() as patch:
        refuse_folders(patch)
        for _ in range(2):
            with pytest.raises(JournalError, match="identity cannot be written: Too many open files"):
                identity.next_epoch()
    synced: list[Path] = []
    monkeypatch.setattr(disk_module, "sync_folder", synced.append)
    assert identity.next_epoch() == STEP + 1
    assert synced == [tmp_path]
    identity.next_epoch()
    assert synced == [tmp_path], "a connection costs no write"


def test_an_unsaved_installation_connects_and_is_saved_as_soon_as_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Installation.open(tmp_path)
    with monkeypatch.context() as patch:
        refuse_folders(patch)
        assert identity.next_epoch() == 1
    synced: list[Path] = []
    monkeypatch.setattr(disk_module, "sync_folder", synced.append)
    assert identity.next_epoch() == 2
    assert synced == [tmp_path]


def refuse_folders(patch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise OSError(24, "Too many open files")

    for module in (disk_module, identity_module):
        patch.setattr(module, "sync_folder", fail)


class TestPresence:
    @pytest.fixture
    def presence(self, tmp_path: Path) -> PresenceBuilder:
        return PresenceBuilder(
            "till-1", Installation.open(tmp_path), labels={"site": "berlin"}, default_file="/data/a.bin"
        )

    def test_births_and_beats_count_from_zero_in_each_epoch(self, presence: PresenceBuilder) -> None:
        births = []
        for _ in range(2):
            presence.will()
            births += [decode(Presence, presence.online()) for _ in range(3)]
        assert [(one.epoch, one.sequence) for one in births] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
        assert {one.status for one in births} == {"online"}

    def test_the_will_comes_last_in_its_epoch_and_before_the_next_birth(self, presence: PresenceBuilder) -> None:
        will = decode(Presence, presence.will())
        birth = decode(Presence, presence.online())
        offline = decode(Presence, presence.offline())
        presence.will()
        later = decode(Presence, presence.online())
        assert (will.status, will.epoch, will.sequence) == ("offline", 1, LAST_SEQUENCE)
        assert (offline.epoch, offline.sequence) == (1, LAST_SEQUENCE)
        assert (birth.epoch, birth.sequence) < (will.epoch, will.sequence) < (later.epoch, later.sequence)

    def test_a_birth_has_labels_capabilities_and_the_default_file(self, presence: PresenceBuilder) -> None:
        presence.will()
        birth = decode(Presence, presence.online())
        assert (birth.labels, birth.default_file) == ({"site": "berlin"}, "/data/a.bin")
        assert {"download_file", "grant_parts", "list_files", "health_check"} <= set(birth.capabilities)
        assert "hello" not in birth.capabilities

    def test_a_birth_names_the_place_of_the_device(self, tmp_path: Path) -> None:
        roots = [f"/{number}/" + "x" * 4_000 for number in range(100)]
        presence = PresenceBuilder(
            "till-1",
            Installation.open(tmp_path),
            labels={},
            default_file=None,
            timezone="Europe/Berlin",
            roots=roots,
            types=("sales", "logs"),
        )
        presence.will()
        birth = decode(Presence, presence.online())
        assert (birth.timezone, birth.types) == ("Europe/Berlin", ("logs", "sales"))
        assert birth.roots == tuple(roots[:4])

    def test_a_stored_presence_below_the_present_epoch_changes_nothing(self, presence: PresenceBuilder) -> None:
        """The will or the last beat of the connection before."""
        presence.will()
        before = presence.online()
        presence.will()
        assert not presence.read_retained(before)
        assert decode(Presence, presence.online()).epoch == 2

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
    def test_a_stored_presence_that_cannot_be_read_changes_nothing(
        self, presence: PresenceBuilder, data: bytes
    ) -> None:
        presence.will()
        assert not presence.read_retained(data)

    def test_a_stored_presence_of_another_installation_or_without_room_above_it_changes_nothing(
        self, presence: PresenceBuilder
    ) -> None:
        presence.will()
        own = decode(Presence, presence.online())
        assert not presence.read_retained(encode(replace(own, install_id="other", epoch=7)))
        assert not presence.read_retained(encode(replace(own, epoch=2**53 - 1)))

    def test_epochs_continue_above_a_stored_presence_of_a_later_state(self, tmp_path: Path) -> None:
        """A counter that lives on a medium can go back; the same state, started again and again, rises each time."""
        stored = 3 * STEP + 7
        for boot in range(3):
            folder = tmp_path / str(boot)
            folder.mkdir()
            (folder / "identity").write_bytes(b'{"install_id":"i1","ceiling":1000}')
            presence = PresenceBuilder("till-1", Installation.open(folder), labels={}, default_file=None)
            will = decode(Presence, presence.will())
            assert presence.read_retained(encode(replace(will, epoch=stored)))
            assert decode(Presence, presence.will()).epoch > stored
            birth = decode(Presence, presence.online())
            assert (birth.install_id, birth.epoch > stored) == ("i1", True)
            stored = birth.epoch

    def test_two_devices_with_one_state_become_two_installations(self, tmp_path: Path) -> None:
        """A card that was cloned after its first start: one of the two takes a new id, and the owner sees both."""
        twins = []
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "identity").write_bytes(b'{"install_id":"i1","ceiling":1000}')
            twins.append(PresenceBuilder("till-1", Installation.open(tmp_path / name), labels={}, default_file=None))
        stored, client, verdicts = b"", None, []
        # Each connection takes over that of the other device.
        for second, presence in enumerate(twins * 4):
            presence.will()
            if presence.read_retained(stored):
                presence.will()
            stored = presence.online()
            client, verdict = apply_presence(client, decode(Presence, stored), float(second))
            verdicts.append(verdict)
        assert Verdict.STALE not in verdicts
        assert Verdict.CONFLICT in verdicts
        assert client is not None
        assert client.in_conflict(float(len(verdicts)))
        assert Installation.open(tmp_path / "one").install_id != Installation.open(tmp_path / "other").install_id

    def test_a_new_install_id_that_cannot_be_kept_is_not_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a restart the device would be the old installation again."""
        identity = Installation.open(tmp_path)
        identity.next_epoch()
        before = identity.install_id
        monkeypatch.setattr(identity, "_save", refuse_to_save)
        identity.renew()
        assert identity.install_id == before


def refuse_to_save(_data: bytes) -> None:
    raise OSError(28, "No space left on device")
