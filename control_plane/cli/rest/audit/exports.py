"""An export of the audit, read back, and its check.

Rule: what is not in the form of an export is an error with its line: a check never skips a line.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from control_plane.cli.errors import Failed, Misused
from control_plane.domain.audit.model import AuditRecord, body_text
from control_plane.domain.audit.notes import BadNote, NoteVerifier
from control_plane.domain.audit.verification import AuditReport
from control_plane.domain.audit.verification import verify as verify_chains


@dataclass(slots=True)
class Export:
    """Records, signed checkpoints, and the keys that the export names."""

    records: list[AuditRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, lines: Iterable[str]) -> Self:
        """From lines of CloudEvents; `Failed` with the number of a line that is none."""
        export = cls()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                export._take(json.loads(line)["data"])
            except (ValueError, KeyError, TypeError) as error:
                raise Failed(f"line {number} is no line of an export") from error  # noqa: EM102, TRY003
        return export

    def _take(self, data: dict[str, Any]) -> None:
        if "note" in data:
            self.notes.append(str(data["note"]))
            self.keys.add(str(data["key"]))
            return
        record = data["record"]
        # The text that was hashed: the form of a record is canonical.
        place = (str(record["writer"]), int(record["number"]))
        self.records.append(AuditRecord(*place, str(data["previous"]), str(data["hash"]), body_text(record)))


def checked(
    export: Export, keys: Sequence[str], notes: Sequence[str], *, whole_since: str | None = None
) -> AuditReport:
    """The report of an export and of further checkpoints, by these keys, else by those of the export; `Misused`.

    `whole_since` as in `control_plane.domain.audit.verification.verify`.
    """
    try:
        verifiers = [NoteVerifier.parse(one) for one in (keys or sorted(export.keys))]
    except BadNote as error:
        raise Misused(str(error)) from error
    return verify_chains(export.records, [*export.notes, *notes], verifiers, whole_since=whole_since)
