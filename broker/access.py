"""The rights of accounts at the broker: its access list, rendered from the topic table, and its password file.

Rule: a right that is not derived from `schemas.topics.TOPICS` does not exist. Devices get theirs by patterns of `%u`,
the username that the password proved, never of `%c`, the client id that any connection may claim.

Both files lie in one directory, which the broker's user should own (`install -d -o mosquitto -m 0700 DIRECTORY`):
they are mode 0600 and belong to the owner of the directory. The broker reads them again at SIGHUP.
"""

import base64
import fcntl
import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.atomic_file import replace_file
from broker.errors import AccessError, AlreadyEnrolled, NoAccount
from schemas.topics import (
    CLIENT_ID_PATTERN,
    CONTROL_PLANE,
    RESERVED_PREFIXES,
    TOPICS,
    Channel,
    Party,
    Topic,
    Topics,
    require_client_id,
)

PASSWORDS: Final = "passwords"
ACCESS_LIST: Final = "acl"

SECRET_BYTES: Final = 24
SALT_BYTES: Final = 12
"""Mosquitto 2.0.11 accepts no other length."""

ITERATIONS: Final = 1000
"""PBKDF2 rounds. 192 random bits need no more; and the broker computes them in its only thread at every CONNECT, so
that more rounds would delay a fleet that reconnects."""

_NAME: Final = re.compile(CLIENT_ID_PATTERN)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The account of a device or a service; the plain password is stored nowhere."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password=...)"


def render_access_list(services: Iterable[str] = (), *, topics: Topics | None = None) -> str:
    """The text of mosquitto's `acl_file`: a section for each service account, then the patterns of all devices.

    >>> print(render_access_list(["operator-ann"]).split("pattern")[0])
    user operator-ann
    topic read fleet/v1/#
    topic write fleet/v1/+/command
    <BLANKLINE>
    <BLANKLINE>
    """
    topics = topics or Topics()
    sections = [_service_section(name, topics) for name in sorted(services)]
    patterns = "".join(_device_pattern(row, topics) for row in TOPICS)
    return "\n".join((*sections, patterns))


def password_entry(credentials: Credentials) -> str:
    """A line of mosquitto's `password_file`: `$7$`, PBKDF2 with SHA-512."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", credentials.password.encode(), salt, ITERATIONS)
    salt_text, digest_text = (base64.b64encode(data).decode() for data in (salt, digest))
    return f"{credentials.username}:$7${ITERATIONS}${salt_text}${digest_text}"


def prepare(directory: Path, *, topics: Topics | None = None) -> None:
    """Write the access list of the present accounts, and the password file if there is none.

    Mosquitto needs both files to start.
    """
    with _accounts(directory) as entries:
        _write(directory / PASSWORDS, entries.values())
        _write_access_list(directory, entries, topics)


def enroll(directory: Path, client_id: str, *, replace: bool = False) -> Credentials:
    """Create the account of a device: its name and a new random password.

    `SchemaError` for an invalid or reserved client id: a name with a wildcard or a slash would change the meaning of
    the patterns. `AlreadyEnrolled` unless `replace`, which locks out the user of the former password.
    """
    return _enroll(directory, require_client_id(client_id), replace=replace, topics=None)


def enroll_service(
    directory: Path, username: str, *, replace: bool = False, topics: Topics | None = None
) -> Credentials:
    """Create the account of a control plane (`control-plane…`) or of an operator (`operator-…`, `cli-…`)."""
    if not is_service(username):
        raise _no_service(username)
    return _enroll(directory, username, replace=replace, topics=topics or Topics())


def revoke(directory: Path, username: str, *, topics: Topics | None = None) -> None:
    """Remove an account; at its next SIGHUP the broker ends the connections that use it."""
    with _accounts(directory) as entries:
        if entries.pop(username, None) is None:
            message = f"there is no account {username!r} in {directory / PASSWORDS}"
            raise NoAccount(message)
        _write(directory / PASSWORDS, entries.values())
        if is_service(username):
            _write_access_list(directory, entries, topics)


def accounts(directory: Path) -> tuple[str, ...]:
    """The names that have a password, devices and services, sorted."""
    return tuple(sorted(_read(directory / PASSWORDS)))


def is_service(username: str) -> bool:
    """Whether the name is one of a control plane or an operator, and so never of a device."""
    return _NAME.fullmatch(username) is not None and username.startswith(RESERVED_PREFIXES)


def _no_service(username: str) -> AccessError:
    prefixes = ", ".join(RESERVED_PREFIXES)
    return AccessError(
        f"{username!r} is no service account: begin with one of {prefixes}, go on with A-Z a-z 0-9 . _ -"
    )


def _service_section(username: str, topics: Topics) -> str:
    if not is_service(username):
        raise _no_service(username)
    writes = [Channel.COMMAND]
    if username.startswith(CONTROL_PLANE):
        # It clears the retained presence of a client that is deleted.
        writes = [row.channel for row in TOPICS if row.writer is Party.SERVICE] + [Channel.PRESENCE]
    lines = [f"user {username}", f"topic read {topics.root}/#"]
    lines += [f"topic write {topics.every(channel)}" for channel in writes]
    return "\n".join(lines) + "\n"


def _device_pattern(row: Topic, topics: Topics) -> str:
    rights = ["write" if row.writer is Party.DEVICE else "read"]
    if row.channel is Channel.PRESENCE:
        # What the broker has stored shows a device whether its state folder went back to an older copy.
        rights.append("read")
    topic = topics.every(row.channel).replace("/+/", "/%u/")
    return "".join(f"pattern {right} {topic}\n" for right in rights)


def _enroll(directory: Path, username: str, *, replace: bool, topics: Topics | None) -> Credentials:
    credentials = Credentials(username, secrets.token_urlsafe(SECRET_BYTES))
    with _accounts(directory) as entries:
        if username in entries and not replace:
            message = f"{username!r} has credentials already; replacing them locks out the programs that use them"
            raise AlreadyEnrolled(message)
        entries[username] = password_entry(credentials)
        # First the rights, then the password: an account must never exist without its limits.
        if topics is not None:
            _write_access_list(directory, entries, topics)
        _write(directory / PASSWORDS, entries.values())
    return credentials


@contextmanager
def _accounts(directory: Path) -> Iterator[dict[str, str]]:
    """The entries by name, under a lock that every change takes."""
    with (directory / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _read(directory / PASSWORDS)


def _read(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {line.partition(":")[0]: line for line in lines if line}


def _write_access_list(directory: Path, usernames: Iterable[str], topics: Topics | None) -> None:
    text = render_access_list(filter(is_service, usernames), topics=topics)
    _write(directory / ACCESS_LIST, text.splitlines())


def _write(path: Path, lines: Iterable[str]) -> None:
    replace_file(path, "".join(f"{line}\n" for line in lines).encode(), owner_of_folder=True)
