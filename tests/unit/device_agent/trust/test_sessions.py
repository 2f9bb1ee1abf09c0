"""Sessions: the present one, and the one announced before it for an hour."""

from device_agent.trust.sessions import MAX_RECEIVED, PREVIOUS_FOR, Sessions


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_session_is_random_and_only_the_present_one_is_accepted() -> None:
    sessions = Sessions(Clock())
    first = sessions.announced()
    assert len(first) == 22
    assert sessions.accepts(first)
    assert not sessions.accepts(None)
    assert not sessions.accepts(Sessions(Clock()).present)


def test_the_session_before_is_accepted_for_an_hour() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    first = sessions.announced()
    sessions.draw()
    second = sessions.announced()
    assert second != first
    clock.now += PREVIOUS_FOR - 1
    assert sessions.accepts(first)
    assert sessions.accepts(second)
    clock.now += 1
    assert not sessions.accepts(first)
    assert sessions.accepts(second)


def test_only_one_session_before_is_accepted() -> None:
    sessions = Sessions(Clock())
    names = []
    for _ in range(3):
        names.append(sessions.announced())
        sessions.draw()
    assert [sessions.accepts(name) for name in names] == [False, False, True]


def test_a_session_that_no_presence_has_announced_replaces_none() -> None:
    """A broker that cannot be reached for ten tries does not make the commands of the last connection stale."""
    sessions = Sessions(Clock())
    announced = sessions.announced()
    for _ in range(10):
        sessions.draw()
        unheard = sessions.present
    sessions.draw()
    assert sessions.accepts(announced)
    assert not sessions.accepts(unheard)


def test_a_command_is_remembered_as_long_as_its_session() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    first = sessions.announced()
    sessions.receive(first, b"a")
    assert sessions.received(first, b"a")
    assert not sessions.received(first, b"b")
    sessions.draw()
    second = sessions.announced()
    assert sessions.received(first, b"a")
    assert not sessions.received(second, b"a")
    clock.now += PREVIOUS_FOR
    # No longer accepted: nothing of it is obeyed, so nothing has to be remembered.
    assert not sessions.received(first, b"a")


def test_a_full_session_asks_for_the_next_and_forgets_nothing() -> None:
    sessions = Sessions(Clock())
    name = sessions.announced()
    full = [sessions.receive(name, number.to_bytes(4, "big")) for number in range(MAX_RECEIVED)]
    assert full == [False] * (MAX_RECEIVED - 1) + [True]
    sessions.draw()
    assert sessions.received(name, (0).to_bytes(4, "big"))
    # The session before never asks again.
    assert not sessions.receive(name, b"more")
