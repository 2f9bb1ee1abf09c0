"""Sections 3 and 4.1: `list_files` and `health_check`.

Rule: an action that the agent does not announce is requested once: it has to be `unsupported`.
"""

import base64
import hashlib
from typing import Any, Final

from control_plane.cli.conformance.bench.findings import NotApplicable, require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.talk import Report
from control_plane.cli.conformance.catalogue import FOLDER, check

_QUERIES: Final[dict[str, dict[str, Any]]] = {
    "list_files": {"pattern": "/*"},
    "select_files": {"job_id": "kit", "paths": ["/*"]},
    "health_check": {},
}
_LIMIT = 3


async def _asked(bench: Bench, action: str, payload: dict[str, Any]) -> Report:
    answer = await bench.ask(action, payload)
    require(answer.status == "success", f"`success` of {action}", answer.brief())
    require(answer.document.get("action") == action, f"`action` `{action}`", answer.document.get("action"))
    require(answer.sequence is None, "no `sequence`: the answer is outside of the count", answer.sequence)
    return answer


@check(
    "query.unsupported",
    section="12",
    title="What is not announced is rejected as `unsupported`",
    remedy="Answer each action that `capabilities` does not list with `rejected` and `unsupported`.",
)
async def unsupported(bench: Bench) -> None:
    """The queries that the agent does not announce."""
    missing = [action for action in _QUERIES if action not in bench.capabilities]
    if not missing:
        reason = "the agent announces every query"
        raise NotApplicable(reason)
    for action in missing:
        answer = await bench.ask(action, _QUERIES[action])
        right = (answer.status, answer.error) == ("rejected", "unsupported")
        require(right, f"`rejected` `unsupported` for {action}, or `{action}` in `capabilities`", answer.brief())


@check(
    "list.files",
    section="3.1",
    title="`list_files` lists the files that match",
    remedy="List regular files below the allowed folders that match the pattern; a leading dot needs a dot in it.",
    needs=(FOLDER, "list_files"),
)
async def files(bench: Bench) -> None:
    """Three files that match, and three that do not."""
    for name, size in (("kit-l/a.log", 1), ("kit-l/b.log", 2), ("kit-l/c.log", 3)):
        bench.samples.make(name, size)
    for name in ("kit-l/d.txt", "kit-l/.e.log", "kit-l/sub/f.log"):
        bench.samples.make(name, 1)
    folder = f"{bench.samples.folder}/kit-l"
    answer = await _asked(bench, "list_files", {"pattern": f"{folder}/*.log"})
    seen = sorted((entry["path"], entry["size"]) for entry in answer.payload.get("files", []))
    right = [(f"{folder}/{name}.log", size) for name, size in (("a", 1), ("b", 2), ("c", 3))]
    require(seen == right, f"{right}", seen)
    deep = await _asked(bench, "list_files", {"pattern": f"{folder}/**/*.log"})
    names = {entry["path"] for entry in deep.payload.get("files", [])}
    require(f"{folder}/sub/f.log" in names, "`**` matches folders below", sorted(names))


@check(
    "list.pages",
    section="3.1",
    title="Pages of `list_files` have at most `limit` files, and together all of them once",
    remedy="Return at most `limit` files and a `cursor`; the last page has none.",
    needs=(FOLDER, "list_files"),
)
async def pages(bench: Bench) -> None:
    """Seven files in pages of three."""
    right = {bench.samples.make(f"kit-p/{number}.log", 1).path for number in range(7)}
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(len(right)):
        more = {} if cursor is None else {"cursor": cursor}
        request = {"pattern": f"{bench.samples.folder}/kit-p/*", "limit": _LIMIT, **more}
        answer = await _asked(bench, "list_files", request)
        page = [entry["path"] for entry in answer.payload.get("files", [])]
        require(len(page) <= _LIMIT, f"at most {_LIMIT} files in a page", len(page))
        seen += page
        cursor = answer.payload.get("cursor")
        if cursor is None:
            break
    require(sorted(seen) == sorted(right), f"{len(right)} files, each once", seen)


@check(
    "list.digest",
    section="4.1",
    title="`digest` adds the digest of each file",
    remedy="Base64 of the raw digest; leave it out for files of more than 256 MiB.",
    needs=(FOLDER, "list_files"),
)
async def digest(bench: Bench) -> None:
    """SHA-256 of a small file."""
    sample = bench.samples.make("kit-d/a.bin", 1000)
    answer = await _asked(bench, "list_files", {"pattern": sample.path, "digest": "sha256"})
    right = base64.b64encode(hashlib.sha256(sample.read(0, 1000) or b"").digest()).decode()
    seen = [entry.get("digest") for entry in answer.payload.get("files", [])]
    require(seen == [right], f"digest {right}", seen)


@check(
    "list.folders",
    section="3.1",
    title="`folders` lists folders too",
    remedy="With `folders` list folders that match, with `folder` true and size 0; without it, files only.",
    needs=(FOLDER, "list_files", "folders"),
)
async def folders(bench: Bench) -> None:
    """A folder beside a file."""
    bench.samples.make("kit-f/a.bin", 1)
    bench.samples.make("kit-f/sub/b.bin", 1)
    pattern = {"pattern": f"{bench.samples.folder}/kit-f/*"}
    for payload, right in ((pattern, [False]), ({**pattern, "folders": True}, [False, True])):
        answer = await _asked(bench, "list_files", payload)
        seen = sorted(bool(entry.get("folder", False)) for entry in answer.payload.get("files", []))
        require(seen == right, f"`folder` {right}", seen)


@check(
    "list.outside",
    section="3.5",
    title="`list_files` shows nothing outside of the allowed folders",
    remedy="Answer a pattern outside of every allowed folder with no files, or `rejected` `path_not_allowed`.",
    needs=("list_files",),
)
async def outside(bench: Bench) -> None:
    """The system's own files."""
    answer = await bench.ask("list_files", {"pattern": "/etc/*"})
    if answer.status == "success":
        seen = [entry.get("path") for entry in answer.payload.get("files", [])]
        require(not seen, "no files of /etc", seen[:5])
        return
    require((answer.status, answer.error) == ("rejected", "path_not_allowed"), "`path_not_allowed`", answer.brief())


@check(
    "health.answer",
    section="4.1",
    title="`health_check` is answered with version, counters and system information",
    remedy="Answer `success` with the payload Health; `active_uploads` counts uploads that are not closed.",
    needs=("health_check",),
)
async def health(bench: Bench) -> None:
    """With no upload, and with one."""
    before = await _asked(bench, "health_check", {})
    await bench.talk(bench.samples.any().path).offered()
    during = await _asked(bench, "health_check", {})
    counts = [one.payload.get("active_uploads", 0) for one in (before, during)]
    require(counts[1] == counts[0] + 1, f"`active_uploads` {counts[0] + 1} with one more upload", counts[1])
