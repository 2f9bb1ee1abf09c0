"""A store that takes nothing on trust and goes wrong on command.

Rule: it refuses what Amazon S3 refuses, where nanio and moto look away (reliability.md 0.10, 0.13); where S3's own
behaviour is not documented, it is the stricter of the two readings.
"""

from tests.support.strict_s3.answers import Options
from tests.support.strict_s3.events import StoreEvent, read_events
from tests.support.strict_s3.faults import Fault, Kind
from tests.support.strict_s3.requests import Operation
from tests.support.strict_s3.server import (
    KEYS,
    StrictControl,
    StrictServer,
    received,
    start_strict,
    start_strict_process,
)
from tests.support.strict_s3.signatures import Keys

__all__ = [
    "KEYS",
    "Fault",
    "Keys",
    "Kind",
    "Operation",
    "Options",
    "StoreEvent",
    "StrictControl",
    "StrictServer",
    "read_events",
    "received",
    "start_strict",
    "start_strict_process",
]
