"""A log line names the upload, the job and the client that it is about, and the trace of an upload that has one."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from control_plane.domain.changes import UploadStateChanged
from control_plane.domain.uploads.model import State
from control_plane.services import events
from control_plane.services.errors import ObjectStoreRefused
from control_plane.services.events.log import ChangeLogger
from control_plane.services.uploads.writer import Commit, Decision
from tests.support.databases import an_upload
from tests.support.fakes import Rig

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
SERVICES = Path(events.__file__).parents[1]
OF_UPLOADS = ("upload.", "duty.", "release.")


def lines(rig: Rig, *prefixes: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The events with these beginnings."""
    return [(event, facts) for event, facts in rig.events if event.startswith(prefixes)]


async def test_every_line_of_an_upload_names_it_and_its_client() -> None:
    """From its creation to its end, refusals among them."""
    async with Rig() as rig:
        await rig.birth()
        await rig.finished()
        rig.objects.fails = {"create_multipart": [ObjectStoreRefused("no", "InvalidRequest")]}
        await rig.finished()
        found = lines(rig, *OF_UPLOADS)
        assert {event for event, _ in found} >= {"upload.created", "upload.state", "duty.refused"}
        assert all(facts["client_id"] and facts["upload_id"] for _, facts in found)


def test_a_line_of_a_traced_upload_of_a_job_names_both() -> None:
    written: list[tuple[str, Mapping[str, Any]]] = []
    upload = replace(an_upload(job_id="job-1", state=State.COMPLETED), traceparent=PARENT, file_size=7)
    change = UploadStateChanged(
        at=1.0,
        client_id=upload.client_id,
        upload_id=upload.upload_id,
        attempt=1,
        was=State.COMPLETING,
        state=State.COMPLETED,
        error=None,
        job_id="job-1",
    )
    logger = ChangeLogger(lambda event, facts: written.append((event, facts)))
    logger.on_commit(Commit((Decision(upload.key, upload, (), 1),), (change,)))
    [(event, facts)] = written
    assert event == "upload.state"
    assert (facts["job_id"], facts["trace_id"], facts["bytes"]) == ("job-1", TRACE, 7)


def test_no_line_of_a_service_knows_an_upload_and_leaves_it_out() -> None:
    """Where the source names the client of a key, it names the upload too."""
    offences = [
        f"{path.name}:{line}"
        for path in sorted(SERVICES.rglob("*.py"))
        for line, names, values in _facts(ast.parse(path.read_text()))
        if "client_id" in names and ".client_id" in values and "key." in values and "upload_id" not in names
    ]
    assert offences == []


def _facts(tree: ast.AST) -> Iterator[tuple[int, list[str], str]]:
    """The facts of each call of `_log` whose dictionary is written there: line, names, source of the values."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("_log") and len(node.args) > 1:
            facts = node.args[1]
            if isinstance(facts, ast.Dict):
                names = [str(one.value) for one in facts.keys if isinstance(one, ast.Constant)]
                yield node.lineno, names, " ".join(map(ast.unparse, facts.values))
