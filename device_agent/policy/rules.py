"""The rules of this device about files: what is denied, which owners they may have, and which need a person's consent.

Rule: pure, but for the names of users, which are looked up at the start. Each refusal names its rule. What an opened
file is decides, not what its name was.
"""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from device_agent.errors import FileRefused, SettingsError
from device_agent.policy.document import PolicyDocument
from device_agent.policy.patterns import PathPatterns
from schemas.file_names import spelled
from schemas.values import ErrorCode

DEFAULT_DENIES: Final = (
    ".ssh",
    ".gnupg",
    ".aws",
    ".kube",
    ".netrc",
    ".git-credentials",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.kdbx",
    "/etc/shadow*",
    "/etc/gshadow*",
)
"""Keys and passwords, which no one uploads by intent. A file of the policy can add more, or take these away."""

_NARROWING: Final = ("roots", "types", "deny", "max_file_size", "owners", "hosts", "bytes_per_day", "hours")

WITHOUT_FILE: Final = "the default policy"


class RefusedByPolicy(FileRefused):
    """A file that the settings allow and the policy does not; `rule` is the key of the policy, and its value.

    The text of the error has the key alone: it leaves the device.
    """

    def __init__(self, code: ErrorCode, text: str, rule: str) -> None:
        super().__init__(code, text)
        self.rule = rule


class DevicePolicy:
    """The policy of `document`, which was read from `file`; without one, only the default denies.

    `SettingsError` for an owner that is no user of this device.
    """

    def __init__(self, document: PolicyDocument | None = None, file: Path | None = None) -> None:
        self.document = document or PolicyDocument()
        self.file = file
        defaults = DEFAULT_DENIES if self.document.default_denies else ()
        self.denies = PathPatterns((*defaults, *self.document.deny))
        roots = self.document.roots
        self.roots = None if roots is None else tuple(sorted({os.path.normpath(root) for root in roots}))
        self._shown = None if self.roots is None else tuple(map(spelled, self.roots))
        self._owners = None if self.document.owners is None else frozenset(map(self._user, self.document.owners))
        self._classes = {name: PathPatterns(kind.paths) for name, kind in self.document.classes.items()}

    def resolved(self, real: Callable[[str], str]) -> "DevicePolicy":
        """The same policy; its patterns know the other name of a folder that a link leads to, as `real` finds it."""
        found = copy.copy(self)
        found.denies = self.denies.resolved(real)
        classes = {name: kind.resolved(real) for name, kind in self._classes.items()}
        found._classes = classes  # noqa: SLF001 - the copy is of this class
        return found

    @property
    def name(self) -> str:
        """Where the rules are written, for a person."""
        return str(self.file) if self.file is not None else WITHOUT_FILE

    def require_path(self, path: str, real: str) -> None:
        """`RefusedByPolicy` for a path that a pattern denies, as it was requested or as it is without links."""
        for one in (path, real):
            pattern = self.denies.first_for(one) if self.denies.covers(one) else None
            if pattern is not None:
                rule = f"deny {pattern!r}"
                raise self._refused(path, "may not be uploaded", rule)

    @property
    def judges_files(self) -> bool:
        """Whether `require_file` refuses any file."""
        document = self.document
        return self._owners is not None or document.max_file_size is not None or document.hard_links == "refuse"

    def require_file(self, path: str, found: os.stat_result) -> None:
        """`RefusedByPolicy` for what an opened file is: too large, another user's, or known by a second name."""
        rule = self._rule_against(found)
        if rule is not None:
            code = ErrorCode.FILE_TOO_LARGE if rule.startswith("max_file_size") else ErrorCode.PATH_NOT_ALLOWED
            raise self._refused(path, _what_is_wrong(rule, found), rule, code)

    def hides(self, found: os.stat_result) -> bool:
        """Whether a listing leaves out this regular file."""
        return self._rule_against(found) is not None

    def reaches(self, path: str) -> bool:
        """Whether `roots` has a folder that holds this path, or that lies below it."""
        if self._shown is None:
            return True
        here = f"{path.rstrip('/')}/"
        return any(here.startswith(root) or root.startswith(here) for root in map(_as_folder, self._shown))

    def asks_for(self, paths: Sequence[str]) -> str | None:
        """The first class that needs consent for one of these paths; None without one."""
        matching = (name for name, kind in self._classes.items() if any(map(kind.covers, paths)))
        return next(matching, None)

    def outside(self, path: str) -> RefusedByPolicy:
        """The refusal of a path outside of `roots`."""
        named = ", ".join(self._shown or ()) or "none"
        return self._refused(path, "may not be uploaded", f"roots {named}")

    def unasked(self, path: str, name: str) -> RefusedByPolicy:
        """The refusal of a link that leads to a file of a class, without consent for it."""
        return self._refused(path, "is a link that was changed, and may not be uploaded", f"consent ask for {name}")

    def lines(self) -> Iterator[str]:
        """The rules that are in force, `KEY VALUE`, for a person."""
        document = self.document
        for key in self._keys():
            value = getattr(document, key)
            yield f"{key} {', '.join(map(str, value)) if isinstance(value, tuple) else value}"
        if document.default_denies:
            yield f"default_denies {', '.join(DEFAULT_DENIES)}"
        if document.hard_links != "allow":
            yield f"hard_links {document.hard_links}"
        for name, kind in document.classes.items():
            yield f"consent {kind.consent} for {name}: {', '.join(kind.paths)}"
        if document.commands_need is not None:
            yield f"commands_need {document.commands_need}"

    @property
    def named(self) -> tuple[str, ...]:
        """The rules of the file by name, without values, for the presence: `deny`, `consent camera` and the like."""
        document = self.document
        return (
            *self._keys(),
            *(() if document.default_denies else ("default_denies off",)),
            *(("hard_links refuse",) if document.hard_links == "refuse" else ()),
            *(f"consent {name}" for name in document.classes),
            *((f"commands_need {document.commands_need}",) if document.commands_need else ()),
        )

    def _keys(self) -> Iterator[str]:
        """The keys of the file with a value that narrows; an empty list is one, but for `deny`."""
        for key in _NARROWING:
            value = getattr(self.document, key)
            if value is not None and (value != () or key != "deny"):
                yield key

    def _rule_against(self, found: os.stat_result) -> str | None:
        most = self.document.max_file_size
        if most is not None and found.st_size > most:
            return f"max_file_size {most}"
        if self.document.hard_links == "refuse" and found.st_nlink > 1:
            return "hard_links refuse"
        if self._owners is not None and found.st_uid not in self._owners:
            return f"owners {', '.join(map(str, self.document.owners or ()))}"
        return None

    def _refused(
        self, path: str, what: str, rule: str, code: ErrorCode = ErrorCode.PATH_NOT_ALLOWED
    ) -> RefusedByPolicy:
        # The text goes to the control plane. It names the key alone: a value may show what is to be hidden.
        return RefusedByPolicy(code, f"{path!r} {what}: {rule.partition(' ')[0]} in {self.name}", rule)

    def _user(self, owner: str | int) -> int:
        if isinstance(owner, int):
            return owner
        # Only such a rule needs the database of users.
        import pwd  # noqa: PLC0415

        try:
            return pwd.getpwnam(owner).pw_uid
        except KeyError as error:
            text = f"{self.name}: owners: {owner!r} is no user of this device"
            raise SettingsError(text) from error


def _as_folder(root: str) -> str:
    return f"{root.rstrip('/')}/"


def _what_is_wrong(rule: str, found: os.stat_result) -> str:
    match rule.partition(" ")[0]:
        case "max_file_size":
            return f"has {found.st_size:,} bytes"
        case "hard_links":
            return f"has {found.st_nlink} names (hard links)"
        case _:
            return f"belongs to user {found.st_uid}"


DEFAULT_POLICY: Final = DevicePolicy()
NO_RULES: Final = DevicePolicy(PolicyDocument(default_denies=False))
