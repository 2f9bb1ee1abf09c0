"""`backhaul-agent enroll`: show a code, wait until an operator approves it, and write the bundle.

Rule: the bundle is a file of mode 0600 that is never replaced. Nothing secret is shown.
"""

import os
import re
import sys
from argparse import Namespace
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from device_agent.command_line.screen import DONE, FAILED, INTERRUPTED, USAGE, complain, show
from device_agent.errors import EnrolmentFailed, SettingsError

if TYPE_CHECKING:
    from schemas.signing.enrolment import Bundle

_DIGEST: Final = re.compile("[0-9a-fA-F]{64}")
_PRIVATE: Final = 0o600
_MAX: Final = 4096


def run_enroll(options: Namespace) -> int:
    """0 enrolled, 1 refused or not approved, 2 wrong usage, 130 Ctrl-C."""
    out: Path = options.out
    if not _DIGEST.fullmatch(options.root_sha256):
        complain("enroll: --root-sha256 has 64 hex digits: the control plane shows it: `backhaul keys published`")
        return USAGE
    if out.exists() or not os.access(out.absolute().parent, os.W_OK):
        complain(f"enroll: {out} is there already, or its folder may not be written")
        return USAGE
    try:
        from device_agent.enrolment.exchange import reached  # noqa: PLC0415
        from device_agent.enrolment.request_file import request_place  # noqa: PLC0415
    except ImportError:
        complain("enroll: PyNaCl is not installed: pip install 'backhaul[signing]'")
        return USAGE
    try:
        token = None if options.batch_token_file is None else _token(options.batch_token_file)
        bundle = _asked(options, request_place(out), token)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (EnrolmentFailed, SettingsError) as error:
        complain(f"enroll: {error}")
        return FAILED
    except OSError as error:
        complain(f"enroll: {error.filename or options.url}: {error.strerror if error.filename else reached(error)}")
        return FAILED
    try:
        _write(out, bundle)
    except OSError as error:
        text = "The control plane keeps the bundle for a day: make room, and type the same again"
        complain(f"enroll: {out}: {error.strerror}. {text}")
        return FAILED
    with suppress(OSError):
        # The bundle has what is in it.
        request_place(out).unlink()
    show(f"Enrolled as {bundle.client_id}. The bundle is in {out}; start the agent.")
    return DONE


def _asked(options: Namespace, place: Path, token: str | None) -> "Bundle":
    """The bundle; the request is in its file before the control plane knows of it. Errors as of `Exchange`."""
    from device_agent.enrolment.exchange import Exchange  # noqa: PLC0415
    from device_agent.enrolment.request_file import read_request, store_request  # noqa: PLC0415

    stored = read_request(place, options.url, options.root_sha256.lower())
    ca_file, digest = options.ca_file, options.root_sha256
    exchange = Exchange(options.url, ca_file=ca_file, root_sha256=digest, stored=stored, note=complain)
    store_request(place, exchange.stored)
    expires_in = None
    if exchange.stored.device_code is None:
        expires_in = exchange.ask(token, options.serial).expires_in
        store_request(place, exchange.stored)
    code = exchange.stored.user_code
    show(f"code         {code}")
    show(f"fingerprint  {exchange.fingerprint}")
    if token is None:
        show(f"An operator types: backhaul device approve {code} --name NAME")
    else:
        show(f"If its batch needs an approval, an operator types: backhaul device approve {code}")
    try:
        return exchange.wait(expires_in)
    except EnrolmentFailed:
        exchange.forget()
        store_request(place, exchange.stored)
        raise


def _token(file: str) -> str:
    """The token of a batch in a file, or of standard input; `EnrolmentFailed`, without a part of it. `OSError`."""
    # Late, as all that needs PyNaCl or msgspec: a missing one is reported by name.
    from schemas.signing.enrolment import BATCH_TOKEN_PATTERN  # noqa: PLC0415

    try:
        with nullcontext(sys.stdin) if file == "-" else Path(file).open(encoding="ascii") as source:
            text = source.read(_MAX).strip()
    except UnicodeError:
        text = ""
    if not re.fullmatch(BATCH_TOKEN_PATTERN, text):
        message = f"{file}: this is no token of a batch"
        raise EnrolmentFailed(message)
    return text


def _write(out: Path, bundle: object) -> None:
    import msgspec  # noqa: PLC0415

    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(bundle), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        # Half a bundle would be in the way of the whole one.
        out.unlink()
        raise
