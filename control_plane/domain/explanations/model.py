"""One row of the table of codes.

Rule: the four parts are full sentences without a final full stop, in plain language.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ShownIn(StrEnum):
    """Where a code is shown: the value is the plural that a reader knows it by."""

    CLIENT = "clients"
    UPLOAD = "uploads"
    JOB = "jobs"
    EXECUTION = "executions"
    FILE = "files of a job"
    RUN = "runs of a schedule"
    PROBLEM = "refused requests"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a code means, what a person does about it, what ends it, and where it is shown."""

    meaning: str
    remedy: str
    end: str
    places: tuple[ShownIn, ...]


Explanations = Mapping[str, Explanation]
