"""`backhaul-agent enroll`: show a code, wait until an operator approves it, and write the bundle.

Rule: the bundle is a file of mode 0600 that is never replaced. Nothing secret is shown.
"""

import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Final

from device_agent.command_line.screen import DONE, FAILED, INTERRUPTED, USAGE, complain, show
from device_agent.errors import EnrolmentFailed, SettingsError

_DIGEST: Final = re.compile("[0-9a-fA-F]{64}")
_PRIVATE: Final = 0o600


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
        from device_agent.enrolment.exchange import Exchange, reached  # noqa: PLC0415
    except ImportError:
        complain("enroll: PyNaCl is not installed: pip install 'backhaul[signing]'")
        return USAGE
    try:
        exchange = Exchange(options.url, ca_file=options.ca_file, root_sha256=options.root_sha256)
        answer = exchange.ask()
        show(f"code         {answer.user_code}")
        show(f"fingerprint  {exchange.fingerprint}")
        show(f"An operator types: backhaul device approve {answer.user_code} --name NAME")
        bundle = exchange.wait(answer)
        _write(out, bundle)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (EnrolmentFailed, SettingsError) as error:
        complain(f"enroll: {error}")
        return FAILED
    except OSError as error:
        complain(f"enroll: {error.filename or options.url}: {error.strerror if error.filename else reached(error)}")
        return FAILED
    show(f"Enrolled as {bundle.client_id}. The bundle is in {out}; start the agent.")
    return DONE


def _write(out: Path, bundle: object) -> None:
    import msgspec  # noqa: PLC0415

    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(bundle), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
