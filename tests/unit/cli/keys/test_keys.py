"""`backhaul keys`: what the folder holds is what an agent with the first root takes."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from nacl.pwhash import argon2id
from typer.testing import CliRunner

from control_plane.cli.commands import build
from control_plane.cli.errors import Misused
from control_plane.cli.keys.folder import KeyFolder, list_of
from control_plane.cli.text import instant
from schemas.signing.documents import MAX_REVOKED, MAX_ROOTS
from schemas.signing.ed25519 import Signer
from schemas.signing.key_files import read_key
from schemas.signing.trust import Trust, advance, root_digest, trust_first
from schemas.topics import Topics

PASSPHRASE = "correct horse"
DAEMON = Signer(b"p" * 32).verifier.text


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    # Else each command with a passphrase costs a second of a processor, and a busy machine runs out of the limit.
    monkeypatch.setattr(argon2id, "OPSLIMIT_MODERATE", argon2id.OPSLIMIT_MIN)
    monkeypatch.setattr(argon2id, "MEMLIMIT_MODERATE", argon2id.MEMLIMIT_MIN)
    (tmp_path / "pass").write_text(PASSPHRASE + "\n")
    return tmp_path


def run(*words: str, code: int = 0) -> Any:  # noqa: ANN401 - any JSON
    """What a line of `backhaul keys` prints."""
    ended = CliRunner().invoke(build(), ["keys", *words, "--json"])
    assert ended.exit_code == code, ended.output
    assert PASSPHRASE not in ended.output
    return json.loads(ended.stdout) if not code else ended.output


def with_root(home: Path) -> tuple[str, ...]:
    return ("--passphrase-file", str(home / "pass"))


def folder_of(home: Path) -> KeyFolder:
    return KeyFolder(home / "backhaul" / "keys", Topics().keys())


def trusted(home: Path) -> Trust:
    """What an agent trusts that knows the first root alone."""
    document = folder_of(home).read()
    return advance(trust_first(document.roots[0], Topics().keys()), document)


def test_the_root_is_made_once_and_one_of_its_two_keys_signs(home: Path) -> None:
    made = run("init", *with_root(home))
    assert made["root_sha256"] == root_digest(folder_of(home).read().roots[0])
    assert len(made["root_keys"]) == 2
    for name in ("root.json", "root-for-the-safe.json", "trust.json"):
        assert (folder_of(home).path / name).stat().st_mode & 0o077 == 0
    assert "exists" in run("init", *with_root(home), code=2)
    run("add", "control-plane", "--public-key", DAEMON, *with_root(home))
    safe = str(folder_of(home).path / "root-for-the-safe.json")
    added = run("add", "ana", "--public-key", Signer(b"a" * 32).verifier.text, "--root-key", safe)
    assert added["version"] == 3
    assert [one.principal for one in trusted(home).by_kid.values()] == ["control-plane", "ana"]


def test_a_key_that_is_revoked_is_in_the_list_no_more_and_is_named(home: Path) -> None:
    run("init", *with_root(home))
    kid = run("add", "control-plane", "--public-key", DAEMON, *with_root(home))["key"]["kid"]
    assert run("show", kid)["owners"] == ["control-plane"]
    run("revoke", kid, "--yes", *with_root(home))
    listed = run("list")
    assert (listed["keys"], listed["revoked"]) == ([], [kid])
    assert trusted(home).entry(kid) is None


@pytest.mark.parametrize("name", ["control-plane", "ana"])
def test_a_key_that_was_revoked_is_listed_in_no_name_again(home: Path, name: str) -> None:
    run("init", *with_root(home))
    kid = run("add", "control-plane", "--public-key", DAEMON, *with_root(home))["key"]["kid"]
    run("revoke", kid, "--yes", *with_root(home))
    before = folder_of(home).read()
    assert f"{kid} was revoked" in run("add", name, "--public-key", DAEMON, *with_root(home), code=2)
    assert folder_of(home).read() == before
    # Also under the next root.
    run("rotate-root", "--out", str(home / "next.json"), *with_root(home))
    assert f"{kid} was revoked" in run("add", name, "--public-key", DAEMON, *with_root(home), code=2)


def test_what_the_documents_have_no_room_for_is_refused_and_changes_nothing(home: Path) -> None:
    """Else the folder could not be read any more, and agents would refuse the list."""
    run("init", *with_root(home))
    kid = run("add", "control-plane", "--public-key", DAEMON, *with_root(home))["key"]["kid"]
    keys = folder_of(home)
    signer = read_key(keys.path / "root-for-the-safe.json")
    ordinary = list_of(keys.read())
    gone = tuple(f"ed25519:{number:022}" for number in range(MAX_REVOKED))
    keys.change(replace(ordinary, revoked=gone[1:]), [signer])
    spare = run("add", "ana", "--public-key", Signer(b"a" * 32).verifier.text, *with_root(home))["key"]["kid"]
    run("revoke", kid, "--yes", *with_root(home))
    assert len(trusted(home).keys.revoked) == MAX_REVOKED  # type: ignore[union-attr]
    before = keys.document.read_bytes()
    assert "at most 512 revoked keys, not 513" in run("revoke", spare, "--yes", *with_root(home), code=2)
    assert keys.document.read_bytes() == before
    many = tuple(replace(ordinary.entries[0], public_key=Signer(bytes([n]) * 32).verifier.text) for n in range(256))
    keys.change(replace(ordinary, entries=many), [signer])
    before = keys.document.read_bytes()
    one = Signer(b"new key".ljust(32)).verifier.text
    assert "at most 256 keys, not 257" in run("add", "bo", "--public-key", one, *with_root(home), code=2)
    for count, what in ((17, "at most 16 root keys, not 17"), (1, "at most 64 roots, not 65")):
        document = keys.read()
        if count == 1:
            keys._written(replace(document, roots=document.roots * MAX_ROOTS))
        before = keys.document.read_bytes()
        with pytest.raises(Misused, match=what):
            keys.rotate([DAEMON] * count, 1, [signer])
        assert keys.document.read_bytes() == before


def test_an_operator_gets_a_key_for_paths_and_own_uploads(home: Path) -> None:
    run("init", *with_root(home))
    out = home / "ana.json"
    made = run("add-operator", "ana", "--path", "/data/**", "--out", str(out), *with_root(home))["key"]
    assert (made["owners"], made["paths"], made["principal"]) == (["cli-*"], ["/data/**"], "ana")
    assert read_key(out).kid == made["kid"]


def life_of(home: Path) -> timedelta | None:
    """How long the list of the folder is obeyed."""
    listed = list_of(folder_of(home).read())
    return None if listed.expires is None else listed.expires - listed.issued_at


def test_a_list_has_no_end_unless_it_is_given_a_life_which_each_later_list_has_anew(home: Path) -> None:
    run("init", *with_root(home))
    assert run("add", "control-plane", "--public-key", DAEMON, *with_root(home))["expires"] is None
    key = Signer(b"a" * 32).verifier.text
    added = run("add", "ana", "--public-key", key, "--list-life", "90d", *with_root(home))
    assert life_of(home) == timedelta(days=90)
    first = trusted(home).keys
    assert first is not None
    assert instant(run("list")["expires"]) == instant(added["expires"]) == first.expires
    run("add-operator", "bo", "--out", str(home / "bo.json"), *with_root(home))
    run("revoke", added["key"]["kid"], "--yes", *with_root(home))
    run("rotate-root", "--out", str(home / "next.json"), *with_root(home))
    latest = trusted(home).keys
    assert latest is not None
    assert life_of(home) == timedelta(days=90)
    assert latest.expires is not None
    assert first.expires is not None
    assert latest.expires > first.expires, "from its own making on"
    run("revoke", run("list")["keys"][0]["kid"], "--yes", "--list-life", "0", *with_root(home))
    assert life_of(home) is None


def test_a_list_is_signed_again_for_another_while_and_nothing_else_changes(home: Path) -> None:
    """With two of two the second person adds a signature to the same list."""
    run("init", "--threshold", "2", *with_root(home))
    run("add", "control-plane", "--public-key", DAEMON, *with_root(home))
    before = list_of(folder_of(home).read())
    signed = run("sign", "--list-life", "12h", *with_root(home))
    assert (signed["version"], life_of(home)) == (before.version + 1, timedelta(hours=12))
    assert "agents would refuse" in run("publish", code=2)
    run("sign", "--root-key", str(folder_of(home).path / "root-for-the-safe.json"))
    after = trusted(home).keys
    assert after is not None
    assert (after.version, after.entries, after.revoked) == (before.version + 1, before.entries, before.revoked)
    for life in ("soon", "99999999d"):
        assert "--list-life" in run("sign", "--list-life", life, *with_root(home), code=2)
        assert "--life" in run("add", "x", "--public-key", DAEMON, "--life", life, *with_root(home), code=2)


def test_a_root_follows_another_and_the_old_key_signs_no_list(home: Path) -> None:
    old = run("init", *with_root(home))["root_keys"]
    run("add", "control-plane", "--public-key", DAEMON, *with_root(home))
    out = home / "new-root.json"
    run("rotate-root", "--drop", old[0], "--drop", old[1], "--out", str(out), *with_root(home))
    assert (trusted(home).root.version, len(trusted(home).roots)) == (2, 2)
    run("add", "ana", "--public-key", Signer(b"a" * 32).verifier.text, *with_root(home))
    assert folder_of(home).missing(folder_of(home).read()) is not None
    run("sign", "--root-key", str(out), *with_root(home))
    assert len(trusted(home).by_kid) == 2


def test_two_of_two_need_both_signatures(home: Path) -> None:
    run("init", "--threshold", "2", *with_root(home))
    run("add", "control-plane", "--public-key", DAEMON, *with_root(home))
    assert "agents would refuse" in run("publish", code=2)
    run("sign", "--root-key", str(folder_of(home).path / "root-for-the-safe.json"))
    assert len(trusted(home).by_kid) == 1


@pytest.mark.parametrize(
    "words",
    [("add", "x"), ("add", "x", "--public-key", "short"), ("show", "ed25519:x"), ("list",)],
    ids=["no key", "bad key", "no such key", "no folder"],
)
def test_what_is_misused_is_said(home: Path, words: tuple[str, ...]) -> None:
    if words != ("list",):
        run("init", *with_root(home))
    said = run(*words, *(with_root(home) if words[0] == "add" else ()), code=2)
    assert "Error" in said or "error" in said or ":" in said
