"""`backhaul mqtt sign`: a command of a file, signed by the operator for the present session of its device.

Rule: what is printed has no secret. The payload may have presigned URLs, so it goes to a file of its owner alone, never
to a screen or an argument.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from broker.atomic_file import replace_file
from control_plane.cli.errors import Misused
from control_plane.cli.mqtt.engine import load_settings
from control_plane.cli.mqtt.publish import Addressed, obeys_unsigned, presence_of, require_operator_key
from control_plane.cli.rest.progress import Document
from schemas.codec import MAX_MESSAGE_SIZE, decode_command
from schemas.errors import SchemaError
from schemas.signing.canonical import KID, SIGNATURE, SignedKind
from schemas.topics import Topics

STDIN: Final = Path("-")


@dataclass(frozen=True, slots=True)
class SignedFile:
    """A signed command: its payload is in `path`, the rest is what `mosquitto_pub` gets."""

    topic: str
    session: str
    properties: Sequence[tuple[str, str]]
    path: Path

    @property
    def arguments(self) -> list[str]:
        """The arguments of `mosquitto_pub`, but for the broker and the account."""
        user = [word for pair in self.properties for word in ("-D", "publish", "user-property", *pair)]
        return ["-V", "5", "-q", "1", "-t", self.topic, *user, "-f", str(self.path)]

    @property
    def line(self) -> str:
        """The arguments as a line of a shell."""
        return shlex.join(self.arguments)

    def document(self) -> Document:
        """The members of the result."""
        named = dict(self.properties)
        return {
            "topic": self.topic,
            "session": self.session,
            "kid": named[KID],
            "signature": named[SIGNATURE],
            "file": str(self.path),
            "arguments": self.arguments,
        }


async def signed_file(to: Addressed, source: Path, out: Path | None) -> SignedFile:
    """Sign the command in the file `source` (`-` is standard input), and write the payload to `out`.

    `Misused` without a key, for what is no command, and for a device that obeys unsigned ones; `Failed` for a device
    without a presence, or with a key that is not known.
    """
    settings = load_settings()
    key, content = require_operator_key(settings), _read(source)
    path = _beside(source) if out is None else out
    presence = await presence_of(settings, to)
    if presence.session is None:
        raise Misused(obeys_unsigned(to.client_id))
    command = {**content, "session": presence.session, "issued_at": datetime.now(UTC).isoformat()}
    payload = json.dumps(command, ensure_ascii=False, separators=(",", ":")).encode()
    if len(payload) > MAX_MESSAGE_SIZE:
        text = f"{source}: the command has {len(payload)} bytes, more than {MAX_MESSAGE_SIZE}"
        raise Misused(text)
    topic = Topics(settings.topic_root).command(to.client_id)
    try:
        replace_file(path, payload)
    except OSError as error:
        text = f"{error.filename or path}: {error.strerror}: name another file with --out"
        raise Misused(text) from error
    return SignedFile(topic, presence.session, key.sign(SignedKind.COMMAND, topic, payload), path)


def _read(source: Path) -> dict[str, Any]:
    """The command as it is written: members that this program does not know stay."""
    try:
        data = sys.stdin.buffer.read(MAX_MESSAGE_SIZE + 1) if source == STDIN else source.read_bytes()
        decode_command(data)
        content: dict[str, Any] = json.loads(data)
    except OSError as error:
        text = f"{source}: {error.strerror}"
        raise Misused(text) from error
    except (SchemaError, ValueError) as error:
        text = f"{source} holds no command: {error}"
        raise Misused(text) from error
    return content


def _beside(source: Path) -> Path:
    if source == STDIN:
        text = "a command of standard input needs a place for what is signed: --out"
        raise Misused(text)
    return source.with_name(f"{source.stem}.signed.json")
