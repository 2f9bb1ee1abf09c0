"""The questions of `setup`: what each setting is for, its default, and how an answer is checked.

Rule: no question is about what a check finds out by itself; a check is one of the doctor's.
"""

import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from device_agent.diagnosis.doctor import (
    is_locked,
    look_at_address,
    look_at_broker,
    look_at_clock,
    look_at_files,
    look_at_stores,
)
from device_agent.diagnosis.findings import Finding
from device_agent.settings import Settings
from schemas.topics import valid_client_id

_LONGEST_ID: Final = 64


class Question(Struct, frozen=True, kw_only=True):
    """One setting that a person types, as text. `optional`: Enter leaves it out."""

    name: str
    text: str
    check: Callable[[Settings], Iterator[Finding]]
    default: Callable[[], str] = str
    secret: bool = False
    optional: bool = False


def id_of_this_device() -> str:
    """A name for this device, made of its host name; empty when that has no usable letter.

    >>> isinstance(id_of_this_device(), str)
    True
    """
    name = socket.gethostname().partition(".")[0]
    name = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")[:_LONGEST_ID]
    return name if valid_client_id(name) and name != "localhost" else ""


def _nothing(_settings: Settings) -> Iterator[Finding]:
    return iter(())


def _address(settings: Settings) -> Iterator[Finding]:
    return look_at_address(settings, "the login is checked next")


def _login(settings: Settings) -> Iterator[Finding]:
    # A login as the agent that runs would take its session over.
    running = is_locked(settings.state_dir / "lock")
    found = look_at_broker(settings, running=running)
    return (one for one in found if one.name != "DNS" or not one.fine)


def _stores(settings: Settings) -> Iterator[Finding]:
    dates: list[tuple[float, float]] = []
    yield from look_at_stores(settings, dates, time.time)
    yield look_at_clock(dates, time.time())


QUESTIONS: Final = (
    Question(
        name="CLIENT_ID",
        text="The name of this device. Operators command it by this name; no other device may have the same.",
        default=id_of_this_device,
        check=_nothing,
    ),
    Question(
        name="MQTT_URL",
        text="The broker: mqtts://host encrypts, mqtt://host does not. The agent only connects out; no port is opened.",
        check=_address,
    ),
    Question(
        name="MQTT_PASSWORD",
        text="The password of this device at the broker. It is not shown. Enter for none.",
        check=_login,
        secret=True,
        optional=True,
    ),
    Question(
        name="ALLOWED_ROOTS",
        text="The folders whose files may be uploaded, with commas between them. No other file is ever read.",
        check=look_at_files,
    ),
    Question(
        name="UPLOAD_HOSTS",
        text=(
            "The object store that files may be sent to, such as https://s3.eu-central-1.amazonaws.com/my-bucket/. "
            "Files go nowhere else."
        ),
        check=_stores,
    ),
)
"""In the order of the dialogue; a check may use every earlier answer."""
