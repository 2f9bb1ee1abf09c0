"""The commands of jobs: what is sent for what was typed, what a person sees, and the exit codes.

Rule: the calls of REST are replaced; no socket.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from control_plane.api.jobs import examples
from control_plane.cli import commands
from control_plane.cli.errors import Unreachable
from control_plane.cli.rest.client import ControlPlane

Call = tuple[str, str, Mapping[str, Any]]


class Answers:
    """What REST answers: the documents of `queued`, one after the other, then an act. `calls` are the requests."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.queued: list[object] = []

    def call(self, _plane: ControlPlane, method: str, path: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        self.calls.append((method, path, request))
        answer = self.queued.pop(0) if self.queued else examples.ACT
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, dict)
        return answer


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """REST without a control plane; nothing pauses."""
    answers = Answers()

    def call(plane: ControlPlane, method: str, path: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401
        return answers.call(plane, method, path, **request)

    monkeypatch.setattr(ControlPlane, "call", call)
    monkeypatch.setattr("control_plane.cli.rest.jobs.progress.time.sleep", lambda _: None)
    return answers


def run(*words: str, text: str | None = None, code: int = 0) -> str:
    """The output of one command of jobs."""
    ended = CliRunner().invoke(commands.build(), ["job", *words], input=text)
    assert ended.exit_code == code, ended.output
    return ended.output


def job(state: str = "running", outcome: str | None = None, **counts: int) -> dict[str, Any]:
    """A job's document."""
    return {**examples.JOB, "state": state, "outcome": outcome, "executions": counts, "ended_at": None}


def test_a_job_is_made_of_options(rest: Answers) -> None:
    """The id is chosen here, so a repeat of a lost request means the same job."""
    rest.queued.append(examples.JOB)
    output = run("create", "-c", "till-*", "-l", "site=berlin", "-p", "/data/*", "--reason", "r", "--deadline", "36h")
    [(method, path, request)] = rest.calls
    body = request["json"]
    assert (method, path, request["repeatable"]) == ("POST", "/jobs", True)
    assert body["targets"] == {"clients": ["till-*"], "selector": "site=berlin"}
    assert (body["files"]["paths"], body["reason"], body["deadline"]) == (["/data/*"], "r", "36h")
    assert len(body["job_id"]) == 16
    assert "job watch sales-2026-11-26" in output


def test_an_option_replaces_what_the_file_has(rest: Answers, tmp_path: Path) -> None:
    """The rest of the file stays."""
    rest.queued.append(examples.JOB)
    file = tmp_path / "job.json"
    file.write_text(json.dumps({**examples.NEW_JOB, "zone": "UTC"}))
    run("create", "-f", str(file), "-p", "/other/*", "--id", "mine")
    body = rest.calls[0][2]["json"]
    assert (body["files"]["paths"], body["files"]["max_size"]) == (["/other/*"], "50MiB")
    assert (body["job_id"], body["zone"], body["targets"]) == ("mine", "UTC", examples.NEW_JOB["targets"])


def test_a_job_that_names_nothing_is_a_misuse(rest: Answers) -> None:
    """Nothing is sent."""
    assert "names no targets" in run("create", "-p", "/a", code=2)
    assert "names no files" in run("create", "-c", "a", code=2)
    assert "is no JSON object" in run("create", "-f", "-", text="[]", code=2)
    assert "standard input" in run("create", "-f", "-", text="{", code=2)
    assert "is no time" in run("create", "-c", "a", "-p", "/a", "--wait", "--timeout", "soon", code=2)
    assert "cannot be set" in run("set", "j", "colour=red", code=2)
    assert "name the clients" in run("reject", "j", code=2)
    assert rest.calls == []


@pytest.mark.parametrize(("outcome", "code"), [("all", 0), ("partial", 5), ("none", 1)])
def test_the_exit_code_of_a_job_that_is_followed_is_its_outcome(rest: Answers, outcome: str, code: int) -> None:
    """A control plane that is away for a while does not end the command."""
    rest.queued += [job(queued=2), Unreachable("away"), job(uploading=1, queued=1), job("completed", outcome, failed=2)]
    output = run("watch", "j", code=code)
    assert "trying again: away" in output
    assert f"completed ({outcome})" in output


def test_a_job_that_takes_too_long_goes_on(rest: Answers) -> None:
    """124, as `timeout` exits."""
    rest.queued += [job(queued=2)] * 3
    assert "it continues" in run("watch", "j", "--timeout", "0s", code=124)


def test_a_retry_names_the_set_that_was_shown_and_the_version(rest: Answers) -> None:
    """Three calls: the set, the version, the act."""
    rest.queued += [examples.EXECUTION_PAGE, examples.JOB, examples.ACT]
    output = run("retry", "j", "--state", "failed", "--deadline", "2h")
    method, path, request = rest.calls[2]
    assert (method, path, request["headers"]) == ("POST", "/jobs/j/retry", {"If-Match": '"1"'})
    assert request["json"]["where"] == {"state": ["failed"], "clients": [], "count": 1, "set": "9f86d081884c7d65"}
    assert request["json"]["deadline"] == "2h"
    assert "12 executions queued again" in output


def test_an_approval_names_when_the_manifest_was_read(rest: Answers) -> None:
    """Of all but some."""
    rest.queued += [examples.MANIFEST]
    run("approve", "j", "--except", "till-2", "--later")
    assert rest.calls[1][2]["json"] == {
        "as_of": "2026-11-26T03:00:00.000Z",
        "later": "approve",
        "except": ["till-2"],
    }


def test_what_is_set_is_sent_in_the_form_of_rest(rest: Answers) -> None:
    """Limits stand below `rollout`."""
    rest.queued += [examples.JOB, examples.JOB]
    run("set", "j", "per_minute=1/20m", "max_running=null", "priority=5", "windows=[]")
    assert rest.calls[1][2]["json"] == {
        "rollout": {"per_minute": "1/20m", "max_running": None},
        "priority": 5,
        "windows": [],
    }


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_a_verb_shows_the_job_after_it(rest: Answers, verb: str) -> None:
    """And needs no version."""
    output = run(verb, "sales-2026-11-26")
    assert rest.calls[0][:2] == ("POST", f"/jobs/sales-2026-11-26/{verb}")
    assert rest.calls[0][2]["headers"] == {}
    assert "sales-2026-11-26" in output
