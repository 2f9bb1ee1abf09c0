"""`backhaul-agent requests`: the uploads that wait for a person's consent, and the person's decision.

Rule: the running agent decides what waits, and answers once an approval is durable. 0 done, 1 one was not decided, 2 no
answer.
"""

import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from device_agent.command_line.screen import DONE, FAILED, USAGE, complain, show, wrapped
from device_agent.errors import SettingsError
from device_agent.local.model import LocalStatus
from device_agent.local.reader import NoAnswer, NotAllowed, NotRunning, read_status, send_decision
from device_agent.local.requests import MOST, ConsentRequest, Decided, Decision
from device_agent.local.socket_path import SYSTEM_FOLDER, local_folders
from device_agent.settings import load_settings

_INDENT: Final = " " * 4
_DONE: Final = {"approve": "approved", "deny": "denied"}


def run_requests(options: Namespace, folders: Sequence[Path]) -> int:
    """Show what waits, or decide about it."""
    if options.verdict is not None and bool(options.uploads) == options.all:
        complain(f"{options.verdict} takes the ids of uploads, or --all")
        return USAGE
    try:
        places: tuple[Path, ...] = local_folders(
            load_settings(os.environ, options.env_file, folders).state_dir, os.environ
        )
    except SettingsError:
        places = ()
    places = (*places, SYSTEM_FOLDER)
    try:
        return _show(read_status(places), options) if options.verdict is None else _decide(places, options)
    except NotRunning:
        complain("no agent runs on this device, or its policy asks for no consent: see backhaul-agent status")
    except NotAllowed as error:
        complain(f"{error} belongs to the agent's user: try sudo backhaul-agent requests")
    except NoAnswer as error:
        complain(str(error))
    return USAGE


def _show(found: LocalStatus, options: Namespace) -> int:
    document = msgspec.json.encode(found.requests).decode()
    show(document if options.json else "\n".join(_lines(found.requests)))
    return DONE


def _decide(places: Sequence[Path], options: Namespace) -> int:
    # What waits now, and not what a person has not seen yet.
    named = tuple(one.upload_id for one in read_status(places).requests) if options.all else tuple(options.uploads)
    if len(named) > MOST:
        complain(f"at most {MOST} uploads at once")
        return USAGE
    decided = send_decision(places, Decision(options.verdict, named)) if named else Decided()
    if options.json:
        show(msgspec.json.encode(decided).decode())
    else:
        for one in decided.done:
            show(wrapped(f"{_DONE[options.verdict]}: {one.path} ({one.upload_id})"))
        for problem in decided.problems:
            complain(problem)
        if not named:
            show("no upload waits for consent")
    return FAILED if decided.problems else DONE


def _lines(requests: Sequence[ConsentRequest]) -> Iterator[str]:
    if not requests:
        yield "no upload waits for consent"
        return
    for one in requests:
        yield wrapped(one.path)
        yield wrapped(f"class {one.path_class}, asked by {one.owner}, upload {one.upload_id}", _INDENT, _INDENT)
    yield ""
    yield wrapped("backhaul-agent requests approve UPLOAD…, or deny UPLOAD…; --all for each of these")
