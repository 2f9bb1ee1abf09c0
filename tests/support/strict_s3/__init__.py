"""The strict double: an object store that checks everything and fails on command.

Rule: it rejects what Amazon S3 rejects, also where nanio and moto do not check (docs/reliability.md 0.10, 0.13). Where
S3's behaviour is not documented, it follows the stricter reading.
"""

from tests.support.strict_s3.answers import Options
from tests.support.strict_s3.events import StoreEvent, read_events
from tests.support.strict_s3.faults import Fault, Kind
from tests.support.strict_s3.quirks import OTHER_REGION, Quirk
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
    "OTHER_REGION",
    "Fault",
    "Keys",
    "Kind",
    "Operation",
    "Options",
    "Quirk",
    "StoreEvent",
    "StrictControl",
    "StrictServer",
    "read_events",
    "received",
    "start_strict",
    "start_strict_process",
]
