"""Where services report what happened.

Rule: an event has a name and facts; it carries no prose that a program must parse.
"""

from collections.abc import Callable, Mapping
from typing import Any

EventLog = Callable[[str, Mapping[str, Any]], None]
"""Takes an event's name and its facts: structured logging, counters, live streams."""
