"""The two tables of the transfer machine fit the events and the states."""

from typing import get_args

from device_agent.transfer.events import Event
from device_agent.transfer.machine import ALLOWED, HANDLERS
from device_agent.transfer.model import State


def test_every_event_has_one_handler() -> None:
    assert set(HANDLERS) == set(get_args(Event))


def test_every_state_has_a_row_of_known_events() -> None:
    assert set(ALLOWED) == set(State)
    assert all(set(row) <= set(HANDLERS) for row in ALLOWED.values())
