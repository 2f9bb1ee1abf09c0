"""Pauses per object store host, shared by all uploads that send to it.

Rule: used by the agent's loop only. A pause that a host requests applies to every upload, and a host that fails again
and again gets requests less and less often; the effect of a pause on one upload is decided in `device_agent.transfer`.
"""

from typing import Final

from device_agent.backoff import full_jitter
from device_agent.errors import PutFailure
from device_agent.transfer.events import Event, PartFailed, PartStored

ENOUGH: Final = 8
"""Failures in a row, of any uploads, after which a host is paused without a Retry-After."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0


class HostBackoff:
    """For each host: its failures since it last stored a part, and the end of its pause."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def until(self, url: str) -> float:
        """When the host of this URL may get a request; 0 when it is not paused."""
        return self._until.get(_host_of(url), 0.0)

    def record_result(self, url: str, event: Event) -> None:
        """Count the result of a PUT to this URL."""
        host = _host_of(url)
        if isinstance(event, PartStored):
            self._failures.pop(host, None)
        elif isinstance(event, PartFailed) and event.kind is PutFailure.TRY_AGAIN:
            failures = self._failures[host] = self._failures.get(host, 0) + 1
            pause = event.retry_after or 0.0
            if failures >= ENOUGH:
                pause = max(pause, full_jitter(failures - ENOUGH, FIRST_PAUSE, LONGEST_PAUSE, event.jitter))
            self._until[host] = max(self.until(url), event.now + pause)


def _host_of(url: str) -> str:
    """The scheme and the host of a URL, as they are written.

    >>> _host_of("https://s3.example.com:9000/bucket/key?partNumber=1")
    'https://s3.example.com:9000'
    """
    return "/".join(url.partition("?")[0].split("/", 3)[:3])
