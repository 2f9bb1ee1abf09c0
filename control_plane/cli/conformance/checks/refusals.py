"""Sections 3.4 and 4.5: files that cannot be uploaded.

Rule: each refusal has its own code, and the status that belongs to the code.
"""

from control_plane.cli.conformance.bench.findings import require
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.catalogue import FOLDER, check

_OUTSIDE = "/etc/hostname"


async def _refused(bench: Bench, path: str, status: str, *codes: str) -> None:
    talk = bench.talk(path)
    mark = bench.transcript.mark
    await talk.start()
    answer = await bench.answer(talk.message_id, since=mark)
    words = " or ".join(f"`{code}`" for code in codes)
    right = answer.status == status and answer.error in codes
    require(right, f"`{status}` with {words} for `{path}`", answer.brief())
    if answer.sequence is not None:
        require(answer.sequence == 1, "`sequence` 1 in the first response", answer.sequence)
    named = answer.payload.get("upload_id")
    require(named == talk.upload_id, f"`upload_id` {talk.upload_id}", named)


@check(
    "refuse.file-not-found",
    section="4.5",
    title="A file that does not exist is `error` `file_not_found`",
    remedy="Answer `error` with `file_not_found` when the path is allowed and nothing is there.",
    needs=(FOLDER,),
)
async def file_not_found(bench: Bench) -> None:
    """A name without a file."""
    await _refused(bench, f"{bench.samples.folder}/kit-missing.bin", "error", "file_not_found")


@check(
    "refuse.path-not-allowed",
    section="4.5",
    title="A path outside of what the device allows is `rejected` `path_not_allowed`",
    remedy="Compare the path with the allowed folders before the file is opened, and after links are followed.",
)
async def path_not_allowed(bench: Bench) -> None:
    """Absolute, and by `..`."""
    await _refused(bench, _OUTSIDE, "rejected", "path_not_allowed")
    if bench.samples.folder is not None:
        await _refused(bench, f"{bench.samples.folder}/../../../../../../..{_OUTSIDE}", "rejected", "path_not_allowed")


@check(
    "refuse.link-outside",
    section="4.5",
    title="A link that leads outside of the allowed folders is `path_not_allowed`",
    remedy="Open the file without following links, or compare the resolved path.",
    needs=(FOLDER,),
)
async def link_outside(bench: Bench) -> None:
    """A symbolic link to a file of the system."""
    await _refused(bench, bench.samples.link("kit-link.bin", _OUTSIDE).path, "rejected", "path_not_allowed")


@check(
    "refuse.not-a-file",
    section="4.5",
    title="A folder is `rejected` `not_a_file`",
    remedy="Accept regular files only; open without blocking, so that a pipe does not hold the agent.",
    needs=(FOLDER,),
)
async def not_a_file(bench: Bench) -> None:
    """A folder that is allowed."""
    bench.samples.make("kit-folder/file.bin", 1)
    await _refused(bench, f"{bench.samples.folder}/kit-folder", "rejected", "not_a_file")


@check(
    "refuse.then-works",
    section="4.5",
    title="After a refusal the next upload works",
    remedy="Keep nothing of a refused upload but its tombstone.",
)
async def then_works(bench: Bench) -> None:
    """A refusal, its close, and an upload."""
    talk = bench.talk(_OUTSIDE)
    mark = bench.transcript.mark
    await talk.start()
    await bench.answer(talk.message_id, since=mark)
    await talk.close("rejected")
    good = bench.talk(bench.samples.any().path)
    end = await good.finish(await good.offered())
    require(end.status == "success", "`success`", end.brief())
