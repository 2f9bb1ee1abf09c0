"""Templates: the object key of a job's file, and paths that name a tick.

Fields: `{job} {schedule} {client_id} {label.NAME} {path} {name}`, and `{tick}`, `{tick:%Y-%m-%d}`, `{tick-1d:%Y-%m-%d}`
in the zone of the schedule or of the job. `{{` and `}}` are braces.

Rule: pure. A template is checked when it is parsed; only what a device or a label adds can fail later, as `BadKey`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import Struct, field

from control_plane.domain.errors import BadKey, BadText
from schemas.file_names import plain
from schemas.names import RECEIPT_SUFFIX

MAX_KEY_BYTES: Final = 900
"""Bytes of UTF-8; S3 takes 1,024, and the start of the key, a mark and the base path need room."""

MAX_TEMPLATE: Final = 1_024
_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_PLAIN_FIELDS: Final = ("job", "schedule", "client_id", "path", "name")
_LABEL: Final = re.compile(r"label\.([A-Za-z0-9](?:[A-Za-z0-9._/-]{0,62}))", re.ASCII)
_TICK: Final = re.compile(r"tick(?:([+-])([0-9]{1,4})([mhdw]))?(?::(.{1,64}))?", re.ASCII)
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_CALENDAR: Final = "dw"
_FORMAT: Final = re.compile(r"(?:%[YymdHMSjGVuz%]|[^%{}\x00-\x1f])+", re.ASCII)
_DEFAULT_FORMAT: Final = "%Y%m%dT%H%M%S"
_KNOWN: Final = "{job} {schedule} {client_id} {label.NAME} {path} {name} {tick} {tick:%Y-%m-%d} {tick-1d:%Y-%m-%d}"


class KeyFacts(Struct, frozen=True, kw_only=True):
    """What a template is filled with. `tick_at` is the nominal time (s since the epoch), or the job's creation."""

    job: str
    client_id: str = ""
    path: str = ""
    schedule: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    tick_at: float = 0.0
    zone: str = "UTC"


class _Tick(Struct, frozen=True):
    shift: int
    unit: str
    format: str


class Template:
    """A parsed template."""

    __slots__ = ("_pieces", "text")

    def __init__(self, text: str, pieces: Sequence[tuple[str, str | _Tick]]) -> None:
        self.text = text
        self._pieces = tuple(pieces)

    @classmethod
    def parse(cls, text: str) -> "Template":
        """The template of `text`; `BadText` names the field that is not known."""
        if len(text) > MAX_TEMPLATE:
            message = f"must have at most {MAX_TEMPLATE} characters"
            raise BadText(message)
        pieces: list[tuple[str, str | _Tick]] = []
        for found in _PIECE.finditer(text):
            piece = found[0]
            if found[1] is not None:
                pieces.append(_field(found[1]))
            elif piece in {"{", "}"}:
                message = f"has a single {piece!r} at character {found.start() + 1}: write {piece * 2!r} for a brace"
                raise BadText(message)
            else:
                pieces.append(("", piece[:1] if piece in {"{{", "}}"} else piece))
        return cls(text, pieces)

    @property
    def fields(self) -> frozenset[str]:
        """The names of the fields: `job`, `tick`, …; `label.site` for a label."""
        return frozenset(name for name, _ in self._pieces if name)

    def expand(self, facts: KeyFacts) -> str:
        """The object key of one file, without the base path; `BadKey` when no object may have it.

        A key that ends as that of a receipt does gets a `_` within that end: no file takes the place of a receipt.
        """
        key = self.fill(facts)
        if key.endswith(RECEIPT_SUFFIX):
            key = key.removesuffix(RECEIPT_SUFFIX) + RECEIPT_SUFFIX.replace(".json", "_.json")
        _require_key(key)
        return key

    def fill(self, facts: KeyFacts) -> str:
        """The text with its fields filled in; `BadKey` when the client has no such label."""
        return "".join(_filled(name, value, facts) for name, value in self._pieces)


def read_key_template(text: str) -> Template:
    """The template of an object key; `BadText` unless two clients, and two files of one, get different keys."""
    template = Template.parse(text)
    if "client_id" not in template.fields or not template.fields & {"path", "name"}:
        message = "must hold {client_id} and one of {path}, {name}: otherwise two files would have one key"
        raise BadText(message)
    sample = KeyFacts(job="j", client_id="c", path="/p", schedule="s", labels=dict.fromkeys(_labels(template), "l"))
    if template.fill(sample).endswith(RECEIPT_SUFFIX):
        message = f"must not end with {RECEIPT_SUFFIX}: that is the key of a receipt"
        raise BadText(message)
    try:
        template.expand(sample)
    except BadKey as error:
        raise BadText(str(error)) from error
    return template


def read_path_template(text: str) -> Template:
    """The template of a path on a device: it may hold `{tick}` only; `BadText`."""
    template = Template.parse(text)
    if foreign := sorted(template.fields - {"tick"}):
        message = f"may hold {{tick}}, but not {{{foreign[0]}}}: it is sent to every client"
        raise BadText(message)
    return template


def uses_tick(text: str) -> bool:
    """Whether the template names the tick; False for a text that is no template."""
    try:
        return "tick" in Template.parse(text).fields
    except BadText:
        return False


def _field(text: str) -> tuple[str, str | _Tick]:
    if text in _PLAIN_FIELDS:
        return text, ""
    if found := _LABEL.fullmatch(text):
        return text, found[1]
    if found := _TICK.fullmatch(text):
        form = found[4] or _DEFAULT_FORMAT
        if _FORMAT.fullmatch(form) is None:
            message = f"has {{{text}}}: a format holds %Y %y %m %d %H %M %S %j %G %V %u %z only"
            raise BadText(message)
        shift = int(found[2] or 0) * (-1 if found[1] == "-" else 1)
        return "tick", _Tick(shift, found[3] or "h", form)
    message = f"has the unknown field {{{text}}}; the fields are {_KNOWN}"
    raise BadText(message)


def _filled(name: str, value: str | _Tick, facts: KeyFacts) -> str:
    if isinstance(value, _Tick):
        return _shown(value, facts)
    match name:
        case "":
            return value
        case "path":
            return plain(facts.path).lstrip("/")
        case "name":
            return plain(facts.path).rstrip("/").rpartition("/")[2]
        case "job" | "schedule" | "client_id":
            return str(getattr(facts, name))
        case _:
            if value not in facts.labels:
                message = f"the client has no label {value!r}"
                raise BadKey(message)
            return facts.labels[value].replace("/", "_")


def _shown(tick: _Tick, facts: KeyFacts) -> str:
    """Days are days of the calendar, of any length; hours are hours."""
    zone = ZoneInfo(facts.zone)
    shift = tick.shift * _UNITS[tick.unit]
    at = datetime.fromtimestamp(facts.tick_at, UTC)
    moved = at.astimezone(zone) + shift if tick.unit in _CALENDAR else (at + shift).astimezone(zone)
    return moved.strftime(tick.format)


def _labels(template: Template) -> list[str]:
    return [name.removeprefix("label.") for name in template.fields if name.startswith("label.")]


def _require_key(key: str) -> None:
    """`BadKey` for a key that is too long, or that some object store or file system would read as another one."""
    if not key.isprintable():
        message = "the key holds a control character, or one that is not printable"
        raise BadKey(message)
    if len(key.encode()) > MAX_KEY_BYTES:
        message = f"the key has more than {MAX_KEY_BYTES} bytes"
        raise BadKey(message)
    if any(segment in {"", ".", ".."} for segment in key.split("/")):
        message = "the key has an empty segment, or one that is . or .."
        raise BadKey(message)
