"""When a thief counts as refused: in before, out after, and never by a server that is away."""

import pytest

from benchmarks.leaks_site import Away, measured


class Thief:
    """Refused once `out` is set; a server that is away answers nothing at the first try after that."""

    def __init__(self, *, out: bool = False) -> None:
        self.out = out
        self.away = 0

    def refused(self) -> bool:
        if self.out and self.away:
            self.away -= 1
            message = "it is being restarted"
            raise Away(message)
        return self.out


def test_the_seconds_end_when_the_thief_is_refused_and_not_while_a_server_is_away() -> None:
    thief = Thief()

    def revoke() -> None:
        thief.away = 2
        thief.out = True

    assert measured(revoke, thief.refused) > 0
    assert thief.away == 0


def test_a_thief_who_was_never_in_measures_nothing() -> None:
    with pytest.raises(RuntimeError, match="before anything was done"):
        measured(lambda: None, Thief(out=True).refused)


def test_a_command_that_fails_is_no_measurement() -> None:
    def fails() -> None:
        message = "revoke: 1"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="revoke: 1"):
        measured(fails, Thief().refused)
