"""The policy file: its keys, and how it is read.

Rule: fail closed. A file that is there and cannot be read, has an unknown key, or can be written by other users stops
the agent with one line that names it. So does one that belongs to another user than root and the agent's.
"""

import os
import stat
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from device_agent.errors import SettingsError
from device_agent.policy.hours import Span, span_of
from device_agent.policy.patterns import PathPatterns
from schemas.errors import SchemaError
from schemas.messages import MAX_TYPES, TypeName

FILE_NAME: Final = "policy.toml"
_MAX_PATTERNS: Final = 100
_MAX_CLASSES: Final = 20
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

_Pattern = Annotated[str, Meta(min_length=1, max_length=4096)]
_Patterns = Annotated[tuple[_Pattern, ...], Meta(max_length=_MAX_PATTERNS)]
_AbsolutePath = Annotated[str, Meta(pattern="^/")]
_Bytes = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class PathClass(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files that match one of `paths`; with `consent = "ask"` a person on the device allows each upload."""

    paths: Annotated[tuple[_Pattern, ...], Meta(min_length=1, max_length=_MAX_PATTERNS)]
    consent: Literal["ask"]


class PolicyDocument(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of the file; an absent one is no rule. Sizes are in bytes.

    `roots`, `types` and `hosts` narrow ALLOWED_ROOTS, TYPES and UPLOAD_HOSTS. `deny` is added to the patterns that are
    denied by default, without `default_denies` it stands alone. `owners` are names or numbers of users.
    """

    roots: Annotated[tuple[_AbsolutePath, ...], Meta(max_length=_MAX_PATTERNS)] | None = None
    types: Annotated[tuple[TypeName, ...], Meta(max_length=MAX_TYPES)] | None = None
    deny: _Patterns = ()
    default_denies: bool = True
    max_file_size: _Bytes | None = None
    hard_links: Literal["allow", "refuse"] = "allow"
    owners: Annotated[tuple[str | int, ...], Meta(max_length=_MAX_PATTERNS)] | None = None
    hosts: Annotated[tuple[str, ...], Meta(max_length=_MAX_PATTERNS)] | None = None
    bytes_per_day: _Bytes | None = None
    hours: Annotated[tuple[str, ...], Meta(min_length=1, max_length=24)] | None = None
    classes: Annotated[dict[TypeName, PathClass], Meta(max_length=_MAX_CLASSES)] = {}
    commands_need: Literal["operator"] | None = None

    @property
    def spans(self) -> tuple[Span, ...]:
        """`hours`, as spans of a day."""
        return tuple(span_of(text) for text in self.hours or ())


def read_document(path: Path) -> PolicyDocument:
    """The policy in a file; `SettingsError` for one that cannot be read, is wrong, or is writable by other users."""
    # An agent without such a file needs no parser in its memory.
    import tomllib  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            # Of the open file: the name may lead to another one by now.
            found = os.fstat(file.fileno())
            values = tomllib.load(file)
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}; without it no policy is known, so the agent does not start"
        raise SettingsError(text) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"{path}: is no TOML: {error}"
        raise SettingsError(text) from error
    if found.st_uid not in {0, os.geteuid()}:
        text = f"{path}: it belongs to user {found.st_uid}, who can write it: chown root {path}"
        raise SettingsError(text)
    if found.st_mode & _OTHERS_WRITE:
        text = f"{path}: other users of this device can write it: chmod go-w {path}"
        raise SettingsError(text)
    try:
        document = msgspec.convert(values, PolicyDocument)
        _require_patterns(document)
        _ = document.spans
    except (msgspec.ValidationError, SchemaError) as error:
        text = f"{path}: {error}"
        raise SettingsError(text) from error
    return document


def _require_patterns(document: PolicyDocument) -> None:
    for patterns in (document.deny, *(kind.paths for kind in document.classes.values())):
        PathPatterns(patterns)
        for pattern in patterns:
            if pattern.startswith("~/"):
                text = f"{pattern!r}: ~ is no home folder here: write its path"
                raise SchemaError(text)
