"""Checks an export of the audit: every chain by its hashes, and each checkpoint by its signature.

Rule: pure. It trusts the keys that it is given, and nothing that the export has.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from control_plane.domain.audit.model import GENESIS, AuditRecord
from control_plane.domain.audit.notes import BadNote, Checkpoint, NoteVerifier


@dataclass(frozen=True, slots=True)
class ChainReport:
    """One chain: its records from `first` to `last`, the number up to which a checkpoint signs it, and what is wrong.

    `signed` is 0 where no checkpoint signs a record of it. `notes` is what a person should know and is no fault.
    """

    writer: str
    first: int
    last: int
    signed: int
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Every chain, and the checkpoints that could not be used."""

    chains: tuple[ChainReport, ...]
    problems: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and not any(one.problems for one in self.chains)

    @property
    def records(self) -> int:
        """How many records were checked."""
        return sum(max(0, one.last - one.first + 1) for one in self.chains)

    @property
    def signed(self) -> int:
        """How many of them a checkpoint signs."""
        return sum(max(0, one.signed - one.first + 1) for one in self.chains if one.last >= one.first)


def verify(
    records: Iterable[AuditRecord],
    notes: Iterable[str],
    keys: Sequence[NoteVerifier],
    *,
    whole_since: str | None = None,
) -> AuditReport:
    """Check records and signed checkpoints, in any order, by these keys.

    What was signed since `whole_since` (an instant in RFC 3339) must be there. The beginning of a chain that was signed
    before it may be pruned; without it that of each chain may be.
    """
    chains: dict[str, list[AuditRecord]] = {}
    for record in records:
        chains.setdefault(record.writer, []).append(record)
    signed: dict[str, list[Checkpoint]] = {}
    problems: list[str] = []
    for note in notes:
        try:
            one = Checkpoint.parse(_opened(note, keys))
        except BadNote as error:
            problems.append(f"checkpoint {note.partition(chr(10))[0]!r}: {error}")
            continue
        signed.setdefault(one.writer, []).append(one)
    found = [
        _chain(writer, chains.get(writer, []), signed.get(writer, []), whole_since)
        for writer in sorted({*chains, *signed})
    ]
    return AuditReport(tuple(found), tuple(problems))


def _opened(note: str, keys: Sequence[NoteVerifier]) -> str:
    """The text of a note that one of the keys signed."""
    error = BadNote("there is no key to check it with")
    for key in keys:
        try:
            return key.verify(note)
        except BadNote as failure:
            error = failure
    raise error


def _chain(
    writer: str, records: list[AuditRecord], checkpoints: Sequence[Checkpoint], whole_since: str | None
) -> ChainReport:
    signed: dict[int, set[str]] = {}
    for one in checkpoints:
        signed.setdefault(one.size, set()).add(one.head)
    if not records:
        last = max(signed)
        return ChainReport(writer, last + 1, last, last, *_gone(checkpoints, last, whole_since))
    records.sort(key=lambda one: one.number)
    first, last = records[0].number, records[-1].number
    heads = {record.number: record.hash for record in records}
    heads.setdefault(first - 1, records[0].previous)
    gone, pruned = _gone([one for one in checkpoints if one.size < first], first - 1, whole_since)
    problems = [*gone, *_breaks(records), *_unlike(signed, heads)]
    if first == 1 and records[0].previous != GENESIS:
        problems.append("record 1 is not the beginning")
    if missing := [size for size in signed if size > last]:
        problems.append(f"records {last + 1} to {max(missing)} are missing: a checkpoint signs them")
    notes = [*pruned]
    if first > 1 and first - 1 not in signed:
        notes.append(f"no checkpoint signs where it begins, record {first}")
    within = max((size for size in signed if size <= last), default=0)
    if within < last:
        notes.append(f"{last - max(within, first - 1)} records are newer than the last checkpoint")
    return ChainReport(writer, first, last, within, tuple(problems), tuple(notes))


def _gone(
    checkpoints: Sequence[Checkpoint], last: int, whole_since: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The problem, or the note, that the records up to `last` are not there, which these checkpoints sign."""
    if not checkpoints:
        return (), ()
    newest = max(one.time for one in checkpoints)
    text = f"the records up to {last} are not there: the last of them was signed at {newest}"
    # The form of an instant sorts as the instant does.
    return ((text,), ()) if whole_since is not None and newest >= whole_since else ((), (text,))


def _breaks(records: Sequence[AuditRecord]) -> Iterable[str]:
    """Where the records do not follow each other."""
    before = None
    for record in records:
        if not record.is_sound:
            yield f"record {record.number} was changed: its hash is not that of its text"
        if before is not None and record.number != before.number + 1:
            yield f"records {before.number + 1} to {record.number - 1} are missing"
        elif before is not None and record.previous != before.hash:
            yield f"record {record.number} does not follow record {before.number}"
        before = record


def _unlike(signed: Mapping[int, set[str]], heads: Mapping[int, str]) -> Iterable[str]:
    """The checkpoints that signed another record than the one that is there."""
    for size in sorted(signed):
        if size in heads and signed[size] != {heads[size]}:
            yield f"record {size} is not the one that a checkpoint signs"
