"""The names that are nearly those of settings: a misspelt name stops the program instead of being ignored.

Rule: pure functions over names. What a name is read for is known to the side that reads it.
"""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from msgspec import Struct, field

_TOOLS: Final = ("BACKHAUL_", "COMPOSE_", "DOCKER_")
_OTHER_PROGRAMS: Final = frozenset({"LOGLEVEL"})
_SHORT: Final = 4
"""A name of so few letters has many similar ones of other programs."""


class SettingNames(Struct, frozen=True):
    """The settings `own` of one side. One `.env` may serve both sides, so the names `other` are allowed in it.

    `closeness` is the ratio of `difflib` from which on a name is taken for a setting's; it finds one missing or one
    extra letter in any name, and one replaced letter only in a long one. `synonyms` are names of other programs.
    """

    own: Sequence[str]
    other: frozenset[str]
    closeness: float
    synonyms: Mapping[str, str] = field(default_factory=dict)

    def unknown(self, names: Collection[str]) -> list[str]:
        """One line for each name of a file that no part of Backhaul reads."""
        unread = [name for name in names if name not in {*self.own, *self.other} and not name.startswith(_TOOLS)]
        return [hint(name, get_close_matches(name.upper(), self.own, 1)) for name in unread]

    def misspelt(self, given: Mapping[str, str]) -> list[str]:
        """One line for each variable with a name that is nearly that of a setting that is not given.

        The environment belongs to every program, so only a very similar name counts: the same letters, the beginning of
        a setting, one letter wrong, or `…_FILE`, which nothing read into its setting. Links that Kubernetes and Docker
        set (`SERVERS_PORT=tcp://…`) do not count.
        """
        names = sorted(set(given) - {*self.own, *self.other} - _OTHER_PROGRAMS)
        meant = {name: self._meant(name) for name in names if not given[name].startswith(("tcp:", "udp:"))}
        return [hint(name, [setting]) for name, setting in meant.items() if setting and not given.get(setting)]

    def _meant(self, name: str) -> str | None:
        swapped = [setting for setting in self.own if sorted(setting) == sorted(name)]
        begun = [setting for setting in self.own if "_" in name and setting.startswith(name)]
        replaced = [setting for setting in self.own if len(name) > _SHORT and _one_letter_differs(name, setting)]
        close = [one for one in get_close_matches(name, self.own, 3, self.closeness) if one[0] == name[0]]
        file = [setting for setting in self.own if name == f"{setting}_FILE"]
        return self.synonyms.get(name) or next(iter([*swapped, *begun, *replaced, *close, *file]), None)


def hint(name: str, near: Sequence[str]) -> str:
    """The line about a name that is no setting, with the first of those that are near it."""
    return f"{name} is not a setting" + (f": did you mean {near[0]}?" if near else "")


def _one_letter_differs(name: str, setting: str) -> bool:
    comparable = len(name) == len(setting) and name[0] == setting[0]
    return comparable and sum(one != other for one, other in zip(name, setting, strict=True)) == 1
