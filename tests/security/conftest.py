"""Fixtures of several modules of this folder."""

import pytest

from device_agent.files import safe_open


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a path is opened beneath a root: by the system call, or by a walk of its components."""
    if request.param == "walk":
        monkeypatch.setattr(safe_open, "_has_openat2", lambda: False)
    elif not safe_open._has_openat2():
        pytest.skip("this kernel has no openat2")
    return str(request.param)
