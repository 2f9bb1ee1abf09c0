"""In every unit test the code of this project must not block the event loop.

Rule: only packages of this project are checked; a test or a library may block the loop.
"""

import inspect
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def loop_never_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise `BlockingError` where code of this project blocks a running event loop; a sync test has no loop."""
    if not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        yield
        return
    with blockbuster_ctx(scanned_modules=["broker", "control_plane"]):
        yield
