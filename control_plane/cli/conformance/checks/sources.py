"""Section 5: the file changes while it is uploaded.

Rule: the kit changes the file between the offer and the grant, and waits until the file's times can show it.
"""

import os
from pathlib import Path

from control_plane.cli.conformance.bench.findings import require
from control_plane.cli.conformance.bench.samples import THREE_PARTS
from control_plane.cli.conformance.bench.site import Bench
from control_plane.cli.conformance.bench.talk import Talk
from control_plane.cli.conformance.catalogue import FOLDER, check
from schemas.parts import MIB

_SETTLED = 60
"""Seconds since the last change of a file, by its times: it did not just change."""


async def _offered(bench: Bench) -> tuple[Talk, Path]:
    sample = bench.samples.make("kit-source.bin", THREE_PARTS)
    path = sample.local
    assert path is not None  # noqa: S101 - the checks need the folder
    then = path.stat().st_mtime - _SETTLED
    os.utime(path, (then, then))
    return bench.talk(sample.path), path


async def _ends(talk: Talk, bench: Bench, path: Path, change: bytes | int) -> None:
    offer = await talk.offered()
    if isinstance(change, int):
        os.truncate(path, change)
    else:
        with path.open("r+b") as file:
            file.write(change)
    await talk.grant_wanted(offer)
    report = await talk.report(bench.patience * 2)
    while report.status == "in_progress":
        await talk.grant_wanted(report)
        report = await talk.report(bench.patience * 2)
    require(
        (report.status, report.error) == ("error", "source_changed"), "`error` with `source_changed`", report.brief()
    )


@check(
    "source.changed",
    section="5",
    title="A file that changed since the offer is `source_changed`",
    remedy="Compare the fingerprint before `success`, and a part's bytes with its digest; end with `error`"
    " `source_changed`.",
    needs=(FOLDER,),
)
async def changed(bench: Bench) -> None:
    """The first bytes are overwritten."""
    talk, path = await _offered(bench)
    await _ends(talk, bench, path, b"changed by the conformance kit")


@check(
    "source.truncated",
    section="5",
    title="A file that became shorter is `source_changed`",
    remedy="A read that returns fewer bytes than the part has is a change: send nothing in their place.",
    needs=(FOLDER,),
)
async def truncated(bench: Bench) -> None:
    """The file is cut in its second part."""
    talk, path = await _offered(bench)
    await _ends(talk, bench, path, 6 * MIB)
    for url in talk.grants:
        padded = [put for put in url.puts if put.status < 300 and url.part_number > 1]  # noqa: PLR2004 - 2xx
        require(not padded, "no part beyond the end of the file", f"part {url.part_number}")
