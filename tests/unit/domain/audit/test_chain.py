"""The chain of records, and the check of an export.

Rule: attacks are made on records as an export has them.
"""

import hashlib
import json
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from control_plane.domain.audit.model import (
    GENESIS,
    MOST_CLIENTS,
    Act,
    AuditEntry,
    AuditRecord,
    chained,
    clients_of,
    instant_text,
)
from control_plane.domain.audit.notes import BadNote, Checkpoint, NoteSigner, NoteVerifier
from control_plane.domain.audit.verification import verify
from schemas.signing.ed25519 import Signer

SIGNER = NoteSigner("backhaul/test", Signer(bytes(range(32))))
OTHER = NoteSigner("backhaul/test", Signer(bytes(32)))
KEYS = [SIGNER.verifier]


def a_chain(length: int, writer: str = "w-0") -> list[AuditRecord]:
    records: list[AuditRecord] = []
    previous = GENESIS
    for number in range(1, length + 1):
        entry = AuditEntry(at=1_000.0 + number, act=Act.UPLOAD_TRIGGER, subject="ann", detail={"number": number})
        records.append(chained(entry, writer, number, previous))
        previous = records[-1].hash
    return records


def a_note(record: AuditRecord, signer: NoteSigner = SIGNER) -> str:
    checkpoint = Checkpoint(f"backhaul/test/audit/{record.writer}", record.number, record.hash, instant_text(2_000.0))
    return signer.sign(checkpoint.text)


def test_an_unchanged_chain_is_sound() -> None:
    records = a_chain(5)
    report = verify(reversed(records), [a_note(records[1]), a_note(records[4])], KEYS)
    assert report.is_sound
    assert report.records == 5
    (chain,) = report.chains
    assert (chain.first, chain.last, chain.signed, chain.notes) == (1, 5, 5, ())


def rehashed(records: Sequence[AuditRecord]) -> list[AuditRecord]:
    """The rest of a chain made anew, as an attacker with the database would."""
    made: list[AuditRecord] = []
    previous = GENESIS
    for number, one in enumerate(records, 1):
        document = {**one.document, "number": number}
        entry = AuditEntry(at=1_000.0, act=Act(document["act"]), subject=document["subject"])
        made.append(chained(entry, one.writer, number, previous))
        previous = made[-1].hash
    return made


ATTACKS: dict[str, Callable[[list[AuditRecord]], list[AuditRecord]]] = {
    "a record's text is changed": lambda whole: [
        replace(whole[0], body=whole[0].body.replace("ann", "bob")),
        *whole[1:],
    ],
    "a record is missing": lambda whole: [whole[0], *whole[2:]],
    "the end is missing": lambda whole: whole[:-1],
    "two records are swapped": lambda whole: [
        replace(whole[1], number=1),
        replace(whole[0], number=2),
        *whole[2:],
    ],
    "the whole chain is made anew": rehashed,
    "a record is left out and the rest made anew": lambda whole: rehashed([whole[0], *whole[2:]]),
    "a record has another place": lambda whole: [*whole[:-1], replace(whole[-1], writer="w-1")],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_was_changed_is_found(attack: str) -> None:
    records = a_chain(5)
    notes = [a_note(records[4])]
    assert not verify(ATTACKS[attack](records), notes, KEYS).is_sound


def test_every_character_of_a_record_counts() -> None:
    (record,) = a_chain(1)
    for place in range(len(record.body)):
        changed = record.body[:place] + chr(ord(record.body[place]) ^ 1) + record.body[place + 1 :]
        assert not replace(record, body=changed).is_sound


def test_a_checkpoint_of_another_key_is_no_checkpoint() -> None:
    records = a_chain(2)
    report = verify(records, [a_note(records[1], OTHER)], KEYS)
    assert not report.is_sound
    assert report.chains[0].signed == 0


def test_what_is_newer_than_the_last_checkpoint_is_named() -> None:
    records = a_chain(4)
    report = verify(records, [a_note(records[1])], KEYS)
    assert report.is_sound
    assert report.chains[0].notes == ("2 records are newer than the last checkpoint",)


def test_a_pruned_chain_is_sound_from_its_checkpoint_on() -> None:
    records = a_chain(6)
    kept = records[3:]
    (chain,) = verify(kept, [a_note(records[2]), a_note(records[5])], KEYS).chains
    signed = "the records up to 3 are not there: the last of them was signed at 1970-01-01T00:33:20.000Z"
    assert (chain.problems, chain.notes) == ((), (signed,))
    assert not verify(kept, [a_note(a_chain(3, "w-0")[1]), a_note(replace(records[2], hash="00" * 32))], KEYS).is_sound


@pytest.mark.parametrize("kept", [3, 6], ids=["the beginning", "all"])
def test_what_is_too_young_to_be_pruned_must_be_there(kept: int) -> None:
    """Without its beginning up to a checkpoint the rest of a chain follows: only the time shows what was deleted."""
    records = a_chain(6)
    notes = [a_note(records[2]), a_note(records[5])]
    for since, sound in ((1_999.0, False), (2_000.0, False), (2_001.0, True)):
        report = verify(records[kept:], notes, KEYS, whole_since=instant_text(since))
        assert report.is_sound is sound
    assert verify(records, notes, KEYS, whole_since=instant_text(0.0)).is_sound


def test_the_digest_is_made_as_the_document_says() -> None:
    """As another program would: SHA-256 of the prefix, the hash before and the text, with line breaks between."""
    first, second = a_chain(2)
    text = f"backhaul-audit-v1\n{first.hash}\n{second.body}"
    assert second.hash == hashlib.sha256(text.encode()).hexdigest()
    canonical = json.dumps(json.loads(second.body), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical == second.body


def test_a_key_in_its_text_form_is_read_back_and_a_damaged_one_is_not() -> None:
    text = SIGNER.verifier.text
    assert NoteVerifier.parse(text) == SIGNER.verifier
    for bad in ("", "name", text[:-4], text.replace("backhaul", "other"), text + "A"):
        with pytest.raises(BadNote):
            NoteVerifier.parse(bad)


def test_each_byte_of_a_note_counts() -> None:
    (record,) = a_chain(1)
    note = a_note(record)
    assert Checkpoint.parse(SIGNER.verifier.verify(note)).head == record.hash
    for place in range(len(note)):
        changed = note[:place] + ("A" if note[place] != "A" else "B") + note[place + 1 :]
        with pytest.raises(BadNote):
            SIGNER.verifier.verify(changed)


def test_of_many_clients_a_record_has_their_number_and_a_digest_of_all() -> None:
    ids = [f"client-{number:05}" for number in range(MOST_CLIENTS + 1)]
    named, count, digest = clients_of(reversed(ids))
    assert (named, count) == (tuple(ids[:MOST_CLIENTS]), MOST_CLIENTS + 1)
    assert digest == hashlib.sha256("".join(f"{one}\n" for one in ids).encode()).hexdigest()
    assert clients_of(["b", "a"]) == (("a", "b"), 2, None)


def test_a_text_that_utf8_cannot_express_is_replaced() -> None:
    entry = AuditEntry(at=0.0, act=Act.FILES_LIST, subject="ann", detail={"pattern": "\ud800\0"})
    record = chained(entry, "w-0", 1, GENESIS)
    assert record.is_sound
    assert record.document["detail"] == {"pattern": "?\0"}
