"""Results as text: each line can be read back, whatever a device calls its files."""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from control_plane.services.jobs.results.formats import DownloadList, ResultFormat, ResultLine, csv_row, head_of, jsonl

LINE = ResultLine(
    client_id="till-1",
    path="/data/day.csv",
    outcome="proven",
    bytes=7,
    attempts=2,
    key="uploads/j/till-1/data/day.csv",
    digest="md5:" + "ab" * 16,
    upload_id="u1",
)


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_line_of_json_is_one_line_and_is_read_back(path: str, reason: str) -> None:
    """No name of a file ends it."""
    line = ResultLine(client_id="c", path=path, outcome="failed", reason=reason)
    text = jsonl(line)
    assert text.count("\n") == 1
    assert json.loads(text) == asdict(line)


def test_the_rows_have_the_columns_of_the_head() -> None:
    """In the same order."""
    rows = list(csv.DictReader(io.StringIO(head_of(ResultFormat.CSV) + csv_row(LINE))))
    assert [(row["client_id"], row["path"], row["bytes"], row["reason"]) for row in rows] == [
        ("till-1", "/data/day.csv", "7", "")
    ]


@pytest.mark.parametrize("reason", ["=1+1", "@SUM(A1)", "-2", "+x"])
def test_no_cell_begins_a_formula(reason: str) -> None:
    """The text of a device is opened in a spreadsheet."""
    row = csv_row(ResultLine(client_id="c", path="/a", outcome="failed", reason=reason))
    assert next(csv.reader(io.StringIO(row)))[4] == f"'{reason}"


@given(st.text(max_size=30))
def test_a_row_is_one_line(path: str) -> None:
    """A line break in a name is replaced."""
    assert csv_row(ResultLine(client_id="c", path=path, outcome="proven")).count("\n") == 1


def test_two_files_of_one_place_are_stored_apart() -> None:
    """Also on a file system that does not distinguish capitals."""
    places = DownloadList(ResultFormat.CURL)
    files = [("c", "/a:b"), ("c", "/a*b"), ("c", "/A_b"), ("d", "/a_b")]
    assert [places.place(client, path) for client, path in files] == ["c/a_b", "c/a_b-2", "c/A_b-3", "d/a_b"]


def test_an_entry_of_aria2_names_the_digest() -> None:
    """aria2 checks a file of one part by itself."""
    entry = DownloadList(ResultFormat.ARIA2).entry(LINE, "https://s3.example/x?y=1")
    assert entry == f"https://s3.example/x?y=1\n  out=till-1/data/day.csv\n  checksum=md5={'ab' * 16}\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reads_its_list(tmp_path: Path) -> None:
    """Quotes and backslashes in names included."""
    source = tmp_path / "source"
    source.write_bytes(b"content")
    places = DownloadList(ResultFormat.CURL)
    line = ResultLine(client_id="c", path='/a "b" ü\\x', outcome="proven")
    config = tmp_path / "list"
    config.write_text(head_of(ResultFormat.CURL) + places.entry(line, source.as_uri()))
    ended = subprocess.run(
        ["curl", "--silent", "--show-error", "--config", str(config)], cwd=tmp_path, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert [path.read_bytes() for path in (tmp_path / "c").iterdir()] == [b"content"]
