"""The access list and the accounts: what the text grants, and what the files may hold.

Rule: the access list is judged by its text, with a matcher written from mosquitto's manual, not by how it was made.
"""

import base64
import hashlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import access
from broker.errors import AccessError, AlreadyEnrolled
from schemas.errors import SchemaError
from schemas.topics import CLIENT_ID_PATTERN, RESERVED_PREFIXES, TOPICS, Channel, Party, Topics, valid_client_id

client_ids = st.from_regex(CLIENT_ID_PATTERN, fullmatch=True).filter(valid_client_id)
roots = st.sampled_from(["fleet/v1", "acme", "a/b/c/d"])
BAD_NAMES = ["", "+", "#", "a/b", "a b", "a:b", "a\n", "é", "-a", "control-plane", "cli-1", "operator-x", "x" * 65]


def matches(pattern: str, topic: str) -> bool:
    """Whether a topic filter covers a topic (MQTT 5.0, 4.7)."""
    levels, parts = pattern.split("/"), topic.split("/")
    for number, level in enumerate(levels):
        if level == "#":
            return True
        if number >= len(parts) or level not in {"+", parts[number]}:
            return False
    return len(levels) == len(parts)


def granted(text: str, username: str, right: str, topic: str) -> bool:
    """Whether the access list lets a user read or write a topic (mosquitto.conf(5), `acl_file`)."""
    section = ""
    for line in text.splitlines():
        match line.split():
            case ["user", name]:
                section = name
            case [kind, allowed, pattern] if kind == "pattern" or section == username:
                if right == allowed and matches(pattern.replace("%u", username), topic):
                    return True
    return False


@given(own=client_ids, other=client_ids, root=roots)
def test_a_device_has_no_right_to_anything_of_another(own: str, other: str, root: str) -> None:
    topics = Topics(root)
    text = access.render_access_list(["control-plane", "operator-ann"], topics=topics)
    for row in (row for row in TOPICS if row.per_client):
        topic = f"{root}/{other}/{row.channel}"
        rights = {right for right in ("read", "write") if granted(text, own, right, topic)}
        expected = {"write" if row.writer is Party.DEVICE else "read"}
        # A device reads what the broker has stored as its own presence.
        expected |= {"read"} if row.channel is Channel.PRESENCE else set()
        assert rights == (expected if own == other else set())


@given(own=client_ids, channel=st.text(st.characters(exclude_characters="/"), min_size=1))
def test_a_device_has_no_right_outside_the_table(own: str, channel: str) -> None:
    text = access.render_access_list()
    known = channel in {row.channel for row in TOPICS if row.per_client}
    rights = [right for right in ("read", "write") if granted(text, own, right, f"fleet/v1/{own}/{channel}")]
    assert bool(rights) is known
    assert not granted(text, own, "write", Topics().birth())
    assert not granted(text, own, "write", Topics().keys())
    assert granted(text, own, "read", Topics().keys())


@given(service=st.sampled_from(["control-plane", "control-plane-2", "operator-ann", "cli-7"]), device=client_ids)
def test_a_service_reads_all_and_commands_and_never_answers(service: str, device: str) -> None:
    topics = Topics()
    text = access.render_access_list([service])
    everything = [
        topics.birth(),
        topics.keys(),
        *(f"{topics.root}/{device}/{row.channel}" for row in TOPICS if row.per_client),
    ]
    assert all(granted(text, service, "read", topic) for topic in everything)
    assert granted(text, service, "write", topics.command(device))
    assert not granted(text, service, "write", topics.response(device))
    assert not granted(text, service, "write", topics.status(device))
    runs_the_fleet = service.startswith("control-plane")
    assert granted(text, service, "write", topics.birth()) is runs_the_fleet
    assert granted(text, service, "write", topics.keys()) is runs_the_fleet
    assert granted(text, service, "write", topics.presence(device)) is runs_the_fleet


def test_the_access_list_trusts_no_claimed_name() -> None:
    text = access.render_access_list(["control-plane"])
    assert "%c" not in text
    assert "readwrite" not in text


@pytest.mark.parametrize("name", ["restaurant-1", "operator", "operator-\ntopic write #", "+", ""])
def test_only_services_have_a_section(name: str) -> None:
    with pytest.raises(AccessError):
        access.render_access_list([name])


def test_enrolment_hands_out_a_password_and_keeps_its_hash(tmp_path: Path) -> None:
    credentials = access.enroll(tmp_path, "restaurant-1")
    text = (tmp_path / access.PASSWORDS).read_text()
    assert credentials.password not in text
    assert credentials.password not in repr(credentials)
    username, _, rest = text.strip().partition(":")
    _, scheme, rounds, salt, digest = rest.split("$")
    assert (username, scheme) == ("restaurant-1", "7")
    secret = credentials.password.encode()
    expected = hashlib.pbkdf2_hmac("sha512", secret, base64.b64decode(salt), int(rounds))
    assert base64.b64decode(digest) == expected


def test_passwords_are_long_and_never_the_same(tmp_path: Path) -> None:
    passwords = {access.enroll(tmp_path, f"device-{number}").password for number in range(50)}
    assert len(passwords) == 50
    assert {len(base64.urlsafe_b64decode(password)) for password in passwords} == {access.SECRET_BYTES}
    assert access.SECRET_BYTES * 8 >= 128


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_invalid_client_id_is_not_enrolled(name: str, tmp_path: Path) -> None:
    with pytest.raises(SchemaError):
        access.enroll(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["restaurant-1", "operator", "operator-a/b", "operator-\n", "", "control-plane x"])
def test_an_invalid_service_name_gets_no_account(name: str, tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="begin with one of control-plane, cli-, operator-"):
        access.enroll_service(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


@given(name=st.text())
def test_no_name_is_valid_for_both_a_device_and_a_service(name: str) -> None:
    assert not (access.is_service(name) and valid_client_id(name))
    assert all(access.is_service(prefix + "1") for prefix in RESERVED_PREFIXES)


def test_a_second_enrolment_needs_replace(tmp_path: Path) -> None:
    first = access.enroll(tmp_path, "restaurant-1")
    with pytest.raises(AlreadyEnrolled, match="replacing them locks out"):
        access.enroll(tmp_path, "restaurant-1")
    second = access.enroll(tmp_path, "restaurant-1", replace=True)
    assert first.password != second.password
    assert access.accounts(tmp_path) == ("restaurant-1",)


def test_accounts_come_and_go_with_their_rights(tmp_path: Path) -> None:
    access.enroll(tmp_path, "restaurant-1")
    access.enroll_service(tmp_path, "control-plane")
    access.enroll_service(tmp_path, "operator-ann")
    assert access.accounts(tmp_path) == ("control-plane", "operator-ann", "restaurant-1")
    assert "user operator-ann\n" in (tmp_path / access.ACCESS_LIST).read_text()
    access.revoke(tmp_path, "operator-ann")
    assert (tmp_path / access.ACCESS_LIST).read_text() == access.render_access_list(["control-plane"])
    access.revoke(tmp_path, "restaurant-1")
    assert access.accounts(tmp_path) == ("control-plane",)
    with pytest.raises(AccessError, match="no account 'restaurant-1'"):
        access.revoke(tmp_path, "restaurant-1")


def test_preparing_twice_keeps_the_accounts(tmp_path: Path) -> None:
    access.prepare(tmp_path)
    assert (tmp_path / access.PASSWORDS).read_text() == ""
    access.enroll_service(tmp_path, "control-plane")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    access.prepare(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("act", [lambda path: access.enroll(path, "a"), access.prepare])
def test_the_files_are_for_the_owner_of_their_directory_alone(act: Callable[[Path], object], tmp_path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 12345)
    act(tmp_path)
    access.prepare(tmp_path)
    for name in (access.PASSWORDS, access.ACCESS_LIST):
        status = (tmp_path / name).stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_uid == tmp_path.stat().st_uid


def test_no_enrolment_is_lost_among_concurrent_ones(tmp_path: Path) -> None:
    names = [f"device-{number}" for number in range(20)]
    threads = [threading.Thread(target=access.enroll, args=(tmp_path, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert access.accounts(tmp_path) == tuple(sorted(names))


def test_a_failed_write_keeps_the_former_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access.enroll(tmp_path, "one")
    before = sorted(path.name for path in tmp_path.iterdir())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("broker.atomic_file.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        access.enroll(tmp_path, "two")
    assert access.accounts(tmp_path) == ("one",)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
