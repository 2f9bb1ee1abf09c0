"""The floor of the writes: one synchronisation for each part, after the line of that part.

Rule: the program's own functions, without a tracer.
"""

import io
import json
import os
from pathlib import Path

import pytest

from benchmarks.bare_journal import main


@pytest.mark.parametrize("parts", [1, 52])
def test_each_part_is_synced_once_after_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    path, lines_at_sync = tmp_path / "bare", []
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr(os, "fdatasync", lambda _: lines_at_sync.append(len(path.read_text().splitlines())))
    main(str(path), parts)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines_at_sync == list(range(2, parts + 2))
    assert [one.get("part") for one in found] == [None, *range(1, parts + 1)]
