"""What holds for every unit test: our code never blocks the event loop.

Rule: only our packages are watched; what a test itself or a library does on the loop is not under test.
"""

import inspect
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def loop_never_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise `BlockingError` where our code blocks while an event loop runs; sync tests have no loop to block."""
    if not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        yield
        return
    with blockbuster_ctx(scanned_modules=["broker", "control_plane"]):
        yield
