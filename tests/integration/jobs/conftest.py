"""What the tests of jobs share.

Rule: fixtures only.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.job_rig import Device, JobRig, Started


@pytest.fixture
async def started() -> AsyncIterator[Started]:
    """Starts a rig with these devices, all of them connected."""
    async with AsyncExitStack() as stack:

        async def start(*devices: Device, connect: bool = True, **more: Any) -> JobRig:  # noqa: ANN401
            rig = await stack.enter_async_context(JobRig(devices, **more))
            rig.check_at_every_commit()
            if connect:
                await rig.connect()
            return rig

        yield start
