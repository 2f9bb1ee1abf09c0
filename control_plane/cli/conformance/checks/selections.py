"""Section 3.5: `select_files`.

Rule: an agent may answer that it still walks; the kit then requests it again, as an owner does.
"""

import asyncio
import os
import secrets
from typing import Any

from control_plane.cli.conformance.bench.findings import Wrong, require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.talk import Report
from control_plane.cli.conformance.catalogue import FOLDER, check

_PAUSE = 0.5
_NEEDS = (FOLDER, "select_files")


async def _select(bench: Bench, payload: dict[str, Any], message_id: str | None = None) -> Report:
    """The first complete answer."""
    request = {"job_id": "kit", **payload}
    message_id = message_id or secrets.token_hex(8)
    answer = await bench.ask("select_files", request, message_id=message_id)
    deadline = bench.now() + bench.patience
    while answer.status == "success" and not answer.payload.get("complete"):
        if bench.now() > deadline:
            expected = "a complete selection"
            raise Wrong(expected, answer.brief())
        await asyncio.sleep(_PAUSE)
        answer = await bench.ask("select_files", {**request, "selection": message_id})
    require(answer.status == "success", "`success` of select_files", answer.brief())
    require(answer.payload.get("job_id") == "kit", "`job_id` repeated", answer.payload.get("job_id"))
    return answer


def _make(bench: Bench) -> str:
    """Five files of different ages and sizes; their folder."""
    for number in range(1, 6):
        sample = bench.samples.make(f"kit-s/{number}.log", number)
        assert sample.local is not None  # noqa: S101 - the checks need the folder
        at = 1_700_000_000 + number * 1000
        os.utime(sample.local, (at, at))
    return f"{bench.samples.folder}/kit-s"


def _names(answer: Report) -> list[str]:
    return [str(entry.get("path", "")).rpartition("/")[2] for entry in answer.payload.get("entries", [])]


@check(
    "select.order",
    section="3.5",
    title="A selection has the files in the order of `pick`",
    remedy="Order by `pick`, equal ones by their paths; count all that match in `files` and `bytes`.",
    needs=_NEEDS,
)
async def order(bench: Bench) -> None:
    """Each order."""
    folder = _make(bench)
    rising = [f"{number}.log" for number in range(1, 6)]
    falling = rising[::-1]
    for pick, right in (
        ("newest", falling),
        ("oldest", rising),
        ("largest", falling),
        ("smallest", rising),
        ("path", rising),
    ):
        answer = await _select(bench, {"paths": [f"{folder}/*.log"], "pick": pick})
        require(_names(answer) == right, f"{right} with `{pick}`", _names(answer))
        totals = (answer.payload.get("files"), answer.payload.get("bytes"))
        require(totals == (5, 15), "5 `files` of 15 `bytes`", totals)


@check(
    "select.filters",
    section="3.5",
    title="`exclude`, sizes, ages and `max_files` hold",
    remedy="Leave out what `exclude` matches and what is outside of the sizes and ages; keep the first `max_files`.",
    needs=_NEEDS,
)
async def filters(bench: Bench) -> None:
    """One filter at a time."""
    folder = _make(bench)
    paths = {"paths": [f"{folder}/*.log"], "pick": "path"}
    for filter_, right in (
        ({"exclude": ["[12].log"]}, ["3.log", "4.log", "5.log"]),
        ({"min_size": 4}, ["4.log", "5.log"]),
        ({"max_size": 1}, ["1.log"]),
        ({"newer_than": 3600}, []),
        ({"older_than": 3600, "max_files": 2}, ["1.log", "2.log"]),
    ):
        answer = await _select(bench, {**paths, **filter_})
        require(_names(answer) == right, f"{right} with {filter_}", _names(answer))
    left = answer.payload.get("left_out")
    require(left == 3, "`left_out` 3", left)  # noqa: PLR2004 - five match, two are kept


@check(
    "select.pages",
    section="3.5",
    title="Pages of a selection are of one content",
    remedy="Keep a selection under the `message_id` of its command; later pages read from it, whatever the files do.",
    needs=_NEEDS,
)
async def pages(bench: Bench) -> None:
    """Pages of two, while a file appears."""
    folder = _make(bench)
    message_id = secrets.token_hex(8)
    request = {"paths": [f"{folder}/*.log"], "pick": "path", "limit": 2}
    answer = await _select(bench, request, message_id)
    require(answer.payload.get("selection") == message_id, f"`selection` {message_id}", answer.payload.get("selection"))
    bench.samples.make("kit-s/0.log", 1)
    seen = _names(answer)
    while (at := answer.payload.get("next")) is not None and len(seen) < 10:  # noqa: PLR2004 - a page that repeats
        answer = await _select(bench, {**request, "selection": message_id, "offset": at})
        seen += _names(answer)
    right = [f"{number}.log" for number in range(1, 6)]
    require(seen == right, f"{right} in pages of two", seen)
    again = await _select(bench, request, message_id)
    require(_names(again) == right[:2], "the same answer to the same `message_id`", _names(again))


@check(
    "select.outside",
    section="3.5",
    title="A pattern outside of every allowed folder is `path_not_allowed`",
    remedy="Answer `rejected` with `path_not_allowed`; the text names the allowed folders. So is an unknown `type`.",
    needs=("select_files",),
)
async def outside(bench: Bench) -> None:
    """A foreign folder, and a type that no device has."""
    for payload in ({"paths": ["/etc/*"]}, {"type": "kit-no-such-type"}):
        answer = await bench.ask("select_files", {"job_id": "kit", **payload})
        right = (answer.status, answer.error) == ("rejected", "path_not_allowed")
        require(right, f"`rejected` `path_not_allowed` for {payload}", answer.brief())
