"""What completes an argument."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from control_plane.cli.shell import candidates


class Plane:
    """A control plane whose one client lists these paths."""

    def __init__(self, *paths: str) -> None:
        self._paths = paths

    def call(self, _method: str, path: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401 - as the client of REST
        return {"files": [{"path": one} for one in self._paths]} if path.endswith("/files") else {"roots": ["/data"]}


def test_a_path_with_a_line_break_adds_no_second_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shells read one candidate a line, and a device names its files."""
    typed: Any = SimpleNamespace(params={"client": "till-1"}, parent=None)
    plane = Plane("/data/a.log", "/data/b\n--token-file=/data/x", "/data/c\x1b[2J")
    monkeypatch.setattr(candidates, "_connected", lambda _: nullcontext(plane))
    assert candidates.device_paths(typed, "/data/") == ["/data/a.log"]
