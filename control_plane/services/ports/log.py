"""The log of events.

Rule: an event has a name and facts; no program has to parse its text.
"""

from collections.abc import Callable, Mapping
from typing import Any

EventLog = Callable[[str, Mapping[str, Any]], None]
"""Takes an event's name and its facts: for structured logging and counters."""
