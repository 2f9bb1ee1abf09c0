"""The file that decides whether commands are verified: whole, verified again at each start, and seldom written."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from device_agent.errors import TrustError
from device_agent.trust import trust_file
from device_agent.trust.identity import IDENTITY_FILE, open_identity
from device_agent.trust.mode import TRUST_FILE, is_signed
from device_agent.trust.trust_file import TrustFile
from schemas.signing.documents import SignedDocument
from schemas.signing.trust import Untrusted, root_digest, sign_document
from tests.unit.device_agent.trust.fleet import (
    ALICE,
    DAY,
    MADE,
    NEXT_ROOT,
    PLANE,
    ROOT,
    ROOT_1,
    THIEF,
    TOPIC,
    entry,
    keys_of,
    operator,
    published,
    root_of,
    trusting,
)


def test_the_key_of_the_device_is_made_once_and_private(tmp_path: Path) -> None:
    first = open_identity(tmp_path)
    assert open_identity(tmp_path).verifier.text == first.verifier.text
    assert (tmp_path / IDENTITY_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("content", "mode"), [("{}", 0o600), ("{", 0o600), ("", 0o600), (None, 0o644)])
def test_a_key_that_cannot_be_used_is_no_new_one(tmp_path: Path, content: str | None, mode: int) -> None:
    open_identity(tmp_path)
    path = tmp_path / IDENTITY_FILE
    if content is not None:
        path.write_text(content)
    path.chmod(mode)
    before = path.read_bytes()
    with pytest.raises(TrustError, match=IDENTITY_FILE):
        open_identity(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("link", ["identity.json", ""], ids=["the file", "the folder"])
def test_a_link_that_leads_nowhere_is_one_error_and_no_new_key(tmp_path: Path, link: str) -> None:
    """Such as a state folder on a disk that is not mounted: a key that is made now would be another device."""
    state = tmp_path / "state"
    if link:
        state.mkdir()
    (state / link).symlink_to(tmp_path / "gone")
    with pytest.raises(TrustError, match="a link that leads nowhere") as raised:
        open_identity(state)
    assert str(state / link) in str(raised.value)
    assert not (tmp_path / "gone").exists()


def test_a_device_is_signed_exactly_while_a_root_is_stored(tmp_path: Path) -> None:
    assert not is_signed(tmp_path)
    trusting(tmp_path)
    assert is_signed(tmp_path)
    (tmp_path / TRUST_FILE).unlink()
    assert not is_signed(tmp_path)


def test_a_name_that_leads_nowhere_is_no_unsigned_device(tmp_path: Path) -> None:
    (tmp_path / TRUST_FILE).symlink_to(tmp_path / "nothing")
    assert is_signed(tmp_path)
    with pytest.raises(TrustError, match="cannot be read"):
        TrustFile.open(tmp_path, TOPIC)


def test_a_root_without_pynacl_names_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusting(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(TrustError, match=r"pip install 'backhaul\[signing\]'"):
        is_signed(tmp_path)


def test_an_unsigned_device_imports_no_pynacl() -> None:
    """The agent's own modules: what a root of trust needs is imported with it."""
    code = "import sys, device_agent.bootstrap, device_agent.__main__; print('nacl' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "False\n"


def test_what_is_trusted_is_there_after_a_restart(tmp_path: Path) -> None:
    file = trusting(tmp_path, entry(), operator())
    file.passed(MADE + 2 * DAY)
    again = TrustFile.open(tmp_path, TOPIC)
    assert again.trust == file.trust
    assert again.trust.keys_version == 1
    assert again.ratchet == MADE + 2 * DAY
    assert again.entry(ALICE.kid) is not None
    assert again.entry(THIEF.kid) is None
    assert (tmp_path / TRUST_FILE).stat().st_mode & 0o777 == 0o600


def test_the_first_root_stays(tmp_path: Path) -> None:
    trusting(tmp_path, entry())
    assert TrustFile.store_root(tmp_path, TOPIC, ROOT_1).trust.keys_version == 1
    other = sign_document(root_of(1, THIEF), TOPIC, [THIEF])
    with pytest.raises(TrustError, match="another root"):
        TrustFile.store_root(tmp_path, TOPIC, other)
    assert TrustFile.open(tmp_path, TOPIC).trust.roots == (ROOT_1,)


def test_a_root_with_another_digest_or_signature_is_not_stored(tmp_path: Path) -> None:
    for root, digest in ((ROOT_1, "0" * 64), (SignedDocument(ROOT_1.document, ()), None)):
        with pytest.raises(TrustError):
            TrustFile.store_root(tmp_path, TOPIC, root, digest)
    assert not is_signed(tmp_path)
    TrustFile.store_root(tmp_path, TOPIC, ROOT_1, root_digest(ROOT_1))
    assert is_signed(tmp_path)


def test_each_byte_of_the_file_that_is_altered_stops_the_agent_or_changes_nothing(tmp_path: Path) -> None:
    """A flipped bit of a signature, a key or a version never makes another trust of it."""
    file = trusting(tmp_path, entry())
    path = tmp_path / TRUST_FILE
    whole = path.read_bytes()
    stopped = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            found = TrustFile.open(tmp_path, TOPIC)
        except TrustError:
            stopped += 1
        else:
            assert found.trust.by_kid == file.trust.by_kid
            assert found.trust.root == file.trust.root
    assert stopped > 0.9 * len(whole)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"format":"backhaul-trust-v1","roots":[]}'])
def test_a_damaged_file_stops_the_agent_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / TRUST_FILE
    path.write_bytes(content)
    with pytest.raises(TrustError, match=r"trust\.json is damaged"):
        TrustFile.open(tmp_path, TOPIC)
    assert path.read_bytes() == content


def test_a_newer_list_and_root_are_taken_and_kept(tmp_path: Path) -> None:
    file = trusting(tmp_path, entry())
    second = sign_document(root_of(2, NEXT_ROOT), TOPIC, [ROOT, NEXT_ROOT])
    newer = published(keys_of(operator(), root=2), (ROOT_1, second), NEXT_ROOT)
    assert file.advance(newer)
    assert not file.advance(newer)
    again = TrustFile.open(tmp_path, TOPIC)
    assert (again.trust.root.version, again.entry(PLANE.kid)) == (2, None)
    assert again.entry(ALICE.kid) is not None


@pytest.mark.parametrize(
    "documents",
    [
        published(keys_of(operator(), version=1)),
        published(keys_of(operator(THIEF), version=3), signer=THIEF),
        published(keys_of(operator(THIEF), version=3, root=2)),
        published(keys_of(version=1, issued_at=MADE - DAY)),
    ],
    ids=["an older list", "signed by a thief", "of a root that is not there", "an older instant"],
)
def test_what_breaks_a_rule_changes_nothing(tmp_path: Path, documents: object) -> None:
    file = trusting(tmp_path, entry(), version=2)
    before, written = file.trust, (tmp_path / TRUST_FILE).read_bytes()
    with pytest.raises(Untrusted):
        file.advance(documents)  # type: ignore[arg-type]
    assert file.trust is before
    assert (tmp_path / TRUST_FILE).read_bytes() == written


def test_a_revoked_key_is_none_and_stays_none_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revocation counts at once; that the disk does not take it is known, and tried again."""
    file = trusting(tmp_path, entry(), operator())

    def full(*_arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(trust_file, "replace_file", full)
        file.advance(published(keys_of(entry(), operator(), version=2, revoked=(ALICE.kid,))))
        assert (file.entry(ALICE.kid), file.unsaved) == (None, True)
        assert TrustFile.open(tmp_path, TOPIC).trust.keys_version == 1
    file.advance(file.trust.published())
    assert not file.unsaved
    assert TrustFile.open(tmp_path, TOPIC).entry(ALICE.kid) is None


def test_the_ratchet_expires_a_key_without_a_clock(tmp_path: Path) -> None:
    file = trusting(tmp_path, entry(), operator(expires=MADE + 10 * DAY))
    file.passed(MADE + 10 * DAY)
    assert file.entry(ALICE.kid) is not None
    file.passed(MADE + 10 * DAY + DAY / 86_400)
    assert (file.entry(ALICE.kid), file.entry(PLANE.kid) is not None) == (None, True)
    # It never goes back, and a restart does not forget it.
    file.passed(MADE)
    assert file.entry(ALICE.kid) is None
    assert TrustFile.open(tmp_path, TOPIC).entry(ALICE.kid) is None


def test_a_newer_list_moves_the_ratchet_and_an_expired_list_has_no_key(tmp_path: Path) -> None:
    file = trusting(tmp_path, entry(expires=MADE + DAY))
    file.advance(published(keys_of(entry(expires=MADE + DAY), version=2, issued_at=MADE + 2 * DAY)))
    assert file.entry(PLANE.kid) is None
    file.advance(published(keys_of(entry(), version=3, issued_at=MADE + 2 * DAY, expires=MADE + 3 * DAY)))
    assert file.entry(PLANE.kid) is not None
    file.passed(MADE + 4 * DAY)
    assert file.entry(PLANE.kid) is None


def test_the_ratchet_is_written_once_a_day_and_when_it_expires_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = trusting(tmp_path, entry(), operator(expires=MADE + 3 * DAY + DAY / 2))
    writes: list[int] = []
    monkeypatch.setattr(trust_file, "replace_file", lambda _path, chunks: writes.append(len(b"".join(chunks))))
    moments = [MADE + DAY * minute / 1_440 for minute in range(5 * 1_440)]
    for moment in moments:
        file.passed(moment)
        file.passed(moment)
    # One for each whole day, and one for the expiry, after which the days are counted anew.
    assert len(writes) == 5
    assert msgspec.json.decode((tmp_path / TRUST_FILE).read_bytes())["format"] == "backhaul-trust-v1"


class PowerCutError(BaseException):
    """The end of the process, at one call."""


@pytest.mark.parametrize("call", range(5))
def test_a_power_cut_at_any_call_leaves_the_list_before_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Write, fsync, rename, fsync of the folder: after each the file is whole, and the broker's list is taken again."""
    file = trusting(tmp_path, entry())
    newer = published(keys_of(entry(), operator(), version=2))
    calls = count()

    def cut(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:  # noqa: ANN401
            if next(calls) == call:
                raise PowerCutError
            return real(*arguments)

        return called

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", cut(os.write))
        patch.setattr(os, "fsync", cut(os.fsync))
        patch.setattr(Path, "replace", cut(Path.replace))
        if call < 4:
            with pytest.raises(PowerCutError):
                file.advance(newer)
        else:
            assert file.advance(newer)
    again = TrustFile.open(tmp_path, TOPIC)
    assert again.trust.keys_version == (1 if call < 3 else 2)
    again.advance(newer)
    assert TrustFile.open(tmp_path, TOPIC).trust.keys_version == 2
