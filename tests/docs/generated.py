"""The parts of the documents that are derived from the code. `python -m tests.docs.generated` writes them.

Rule: a part stands between `<!-- generated: NAME -->` and `<!-- end -->`; it is never edited by hand.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields as facts_of
from pathlib import Path
from typing import Any, Final, get_args

from typer.main import get_command

from control_plane.cli.conformance import checks as _checks  # noqa: F401 - fills the catalogue
from control_plane.cli.conformance.catalogue import CATALOGUE, FOLDER, LONG, PROCESS, STORE
from control_plane.cli.conformance.report import place
from control_plane.cli.main import build
from control_plane.domain.changes import Change
from control_plane.domain.explanations.model import Explanation
from control_plane.domain.explanations.table import CHAPTERS
from control_plane.domain.uploads.machine import TRANSITIONS
from control_plane.gauges import FleetGauges
from control_plane.observability import Metrics
from control_plane.settings import MIN_SECRET_SIZE, Settings
from device_agent.settings import NAMES as AGENT_NAMES
from device_agent.watching.figures import METRICS as AGENT_METRICS
from device_agent.watching.figures import PREFIX
from schemas.topics import TOPICS, Party, Topic, Topics
from tests.docs import cli_fields
from tests.docs.wire import errors, fields, shapes, table
from tests.support.fake_services import FakeServices, api_over
from tests.support.strict_s3 import Quirk

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
PROTOCOL: Final = ROOT / "docs" / "protocol.md"
EVENTS: Final = ROOT / "docs" / "events.md"
REFERENCE: Final = ROOT / "docs" / "reference"
OBJECT_STORES: Final = REFERENCE / "object-stores.md"
REST: Final = REFERENCE / "rest.md"
SETTINGS: Final = REFERENCE / "settings.md"
CONFORMANCE: Final = REFERENCE / "conformance.md"
REASONS: Final = REFERENCE / "reasons.md"
COMMANDS: Final = REFERENCE / "cli.md"
METRICS: Final = REFERENCE / "metrics.md"
DOCUMENTS: Final = (PROTOCOL, OBJECT_STORES, EVENTS, REST, SETTINGS, REASONS, COMMANDS, METRICS, CONFORMANCE)
"""The documents with generated parts."""

_SECTION: Final = re.compile(r"(<!-- generated: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)

CONTROL_PLANE_SETTINGS: Final = {
    "SERVER_HOST": "address that REST listens on",
    "SERVER_PORT": "its port",
    "ALLOWED_HOSTS": "names of this server in URLs, comma-separated, beside localhost and all addresses",
    "TRUSTED_PROXIES": "`1` where every caller passes one proxy: `X-Forwarded-For` has the caller's address",
    "MQTT_URL": "the broker: `mqtt://host:1883`, `mqtts://host:8883` or `wss://host/mqtt`",
    "MQTT_USERNAME": "account at the broker",
    "MQTT_PASSWORD": "its password",
    "MQTT_CERTIFICATE": "a PEM file with the certificate of this control plane, or of `backhaul mqtt`, for a broker "
    "that requires one",
    "MQTT_KEY": "a PEM file with its key, if that is not in the same file",
    "DATABASE_URL": "`sqlite:///file` or `postgresql://…`; else `~/.local/share/backhaul/backhaul.db`",
    "AWS_REGION": "region of the bucket",
    "AWS_ACCESS_KEY_ID": "credentials; without them boto3's usual sources are used",
    "AWS_SECRET_ACCESS_KEY": "",
    "AWS_SESSION_TOKEN": "of temporary credentials",
    "AWS_ENDPOINT": "an object store other than Amazon's",
    "S3_PUBLIC_ENDPOINT": "the object store's address as devices see it, if it is another",
    "S3_BUCKET_NAME": "created, private, if missing",
    "S3_CHUNK_SIZE": "bytes in a part, 5 to 64 MiB; larger for files of more than 10,000 parts",
    "S3_DIGEST": "binds a URL to its bytes: `auto` (the strongest that is enforced), `sha256`, `md5`, `crc32`, `none`",
    "S3_ENCRYPTION": "encryption that each object asks for: `auto`, `none`, `AES256`, `aws:kms` or `aws:kms:KEY`",
    "S3_ADDRESSING": "the bucket's place in a URL: `path`, `virtual` (in the host) or `auto` (tries both)",
    "BASE_S3_PATH": "first levels of every object key",
    "PRESIGNED_URL_EXPIRY": "life of a URL in seconds",
    "CLIENT_TIMEOUT": "seconds a connected client may be silent before the command is sent again; the third time fails",
    "CLIENT_MAX_UPLOADS": "open uploads of one client; more are refused with 429",
    "MAX_JOB_FILES": "files of one job; executions beyond it wait with the reason `job_full`",
    "CLIENT_MAX_BYTES": "bytes that one client may offer in 24 hours; an upload beyond it fails with `quota_exceeded`",
    "JWT_SECRET": "turns on bearer tokens; at least 32 bytes",
    "JWT_SECRET_PREVIOUS": "the secret before it: its tokens are accepted until they end; empty after a leak",
    "OIDC_ISSUER": "an OpenID provider whose access tokens are accepted too, as it writes itself; needs `JWT_SECRET`",
    "OIDC_AUDIENCE": "the `aud` of its tokens",
    "MAX_TOKEN_LIFETIME": "the longest life, in seconds, of a token that is accepted",
    "FOUR_EYES_BYTES": "bytes of a job above which a second person must approve it",
    "FOUR_EYES_CLIENTS": "clients of a job above which a second person must approve it",
    "FOUR_EYES_PATHS": "globs of paths, comma-separated: a job for one needs a second person, an upload is refused",
    "FOUR_EYES_SELECTOR": "clients by label, `site=berlin`: a job with one needs a second person, an upload is refused",
    "RATE_LIMIT": "calls of REST a minute that one caller with a token may make; `0` for no limit",
    "REQUIRE_REASON": "`true` refuses what changes something and has no reason (`Backhaul-Reason`, `--why`)",
    "AUTH": "`off` serves other machines without tokens",
    "SIGNING_KEY_FILE": "signs commands, made at the first start; else `signing-key.json` beside the database",
    "REQUIRE_SIGNED": "`true` drops unsigned messages also of clients whose key is not known. "
    "`backhaul mqtt` with a key does so unless this is written as `false`",
    "TRUST_ROOT": "the SHA-256 of the root of trust, as `keys init` prints it: no other root is ever published",
    "OPERATOR_KEY_FILE": "the key with which `backhaul mqtt` and `backhaul keys` sign in an operator's name",
    "DEVICE_KEYS_FILE": "keys of devices that `backhaul mqtt` knows; else `~/.config/backhaul/device-keys.json`",
    "BROKER_ACCESS": "the folder of the broker's accounts, where enrolled devices get theirs; else bundles have none",
    "BROKER_PID_FILE": "the file with the broker's process id: it gets a SIGHUP when an account changes",
    "DEVICE_MQTT_URL": "the broker as devices reach it, for their bundles; else that of `MQTT_URL`",
    "DEVICE_CA_FILE": "a PEM file of authorities, for the bundles",
    "ENROLL": "`on` lets devices ask for a bundle by a code, without a token (`POST /enroll`)",
    "AUDIT_KEY_FILE": "signs the audit, made at the first start; else `audit-key.json` beside the database",
    "AUDIT_BUCKET": "a bucket with Object Lock that gets each checkpoint of the audit; else only the log does",
    "RECEIPTS": "`bucket` stores a signed receipt beside each object too, `database` there alone, `off` makes none",
    "RECEIPT_KEYS": "earlier public keys of the control plane, comma-separated, whose receipts `verify` accepts",
    "REQUIRE_PROOF": "`false` accepts an object by size and token alone; needed for `S3_DIGEST=none`",
    "WEBHOOK_NETWORKS": "networks beside the public internet that webhooks may be sent to: `10.0.0.0/8,127.0.0.1/32`",
    "HISTORY_DAYS": "days after which ended uploads, jobs and batches, and records of the audit, are removed",
    "TOPIC_ROOT": "first levels of every topic",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "traces go to this OpenTelemetry collector, over HTTP; needs the extra `otel`",
    "LOG_LEVEL": "`DEBUG`, `INFO`, `WARNING` or `ERROR`",
}
AGENT_SETTINGS: Final = {
    "CLIENT_ID": "the device's name; required",
    "MQTT_URL": "the broker: `mqtt://host:1883`, `mqtts://host:8883`, or over WebSockets `wss://host/mqtt`",
    "MQTT_USERNAME": "the same as `CLIENT_ID`",
    "MQTT_PASSWORD": "its password",
    "MQTT_PROXY": "an HTTP proxy on the way to the broker: `http://[user:password@]host:port`",
    "MQTT_CERTIFICATE": "a PEM file with the certificate of this device, for a broker that requires one",
    "MQTT_KEY": "a PEM file with its key, if that is not in the same file",
    "BUNDLE_FILE": "the bundle of the enrolment; else that of the service manager, or `/etc/backhaul/bundle.json`",
    "CA_FILE": "a PEM file of authorities that broker and object store may have, beside those of the system",
    "FILE_PATH": "the default file; always allowed; a link is followed at each open, within its folder or the roots",
    "ALLOWED_ROOTS": "folders whose files may be read, comma-separated; none by default",
    "TYPES": "`sales=/data/sales/*.csv,logs=/var/log/**/*.log`: names of files that may be read",
    "POLICY_FILE": "rules of the device's owner that narrow its settings; else `/etc/backhaul/policy.toml`, if present",
    "TIMEZONE": "IANA name, such as `Europe/Berlin`; else that of `TZ` or the system",
    "UPLOAD_HOSTS": "`https://host[:port][/bucket/]` where parts may be sent, comma-separated; none by default",
    "UPLOAD_PROXY": "an HTTP proxy on the way to the object store, as `MQTT_PROXY`; none by default",
    "STATE_DIR": "folder of the journal and the identity",
    "LABELS": "`site=berlin,model=pi4`",
    "MAX_PARALLEL_PARTS": "parts sent in parallel",
    "MAX_BYTES_PER_SECOND": "of all uploads together",
    "BYTES_PER_DAY": "bytes of parts sent in a day, in the device's time zone; then uploads wait for the next day",
    "BYTES_PER_MONTH": "the same for a calendar month",
    "METERED_BYTES_PER_DAY": "the same for a day, over metered links only; `0` sends nothing over one",
    "METERED_BYTES_PER_MONTH": "the same for a calendar month, over metered links only",
    "METERED": "whether the link is metered: `yes`, `no`, or `auto` (asks NetworkManager; `no` without it)",
    "MIN_DISK_FREE": "bytes that must be free on the disk of `STATE_DIR`, or uploads wait",
    "MIN_BATTERY_PERCENT": "charge of a battery that is not charged, below which uploads wait",
    "MAX_LOAD": "load average of one processor, such as `1.5`, above which uploads wait",
    "SPOOL_MAX_BYTES": "bytes in `STATE_DIR` for copies of files: compressed ones, and of files like `/proc/cpuinfo`",
    "SPOOL_MAX_PERCENT": "the same, in percent of the disk space that is free without the copies",
    "ALLOW_AFTER": "`delete,move`: what may be done with a file after its upload; nothing by default",
    "AFTER_PATHS": "`/data/out/*.csv,…`: the files that this is allowed for; else all below `ALLOWED_ROOTS`",
    "AFTER_GRACE": "seconds between the proof of an upload and the deletion of its file",
    "METRICS_FILE": "a file for the textfile collector of node_exporter, replaced once a minute",
    "METRICS_PORT": "a port of 127.0.0.1 where Prometheus reads the metrics",
    "LOG_LEVEL": "`debug`, `info`, `warning` or `error`",
    "TOPIC_ROOT": "first levels of every topic",
}
_AGENT_DEFAULTS: Final = {
    "MQTT_URL": "mqtt://localhost:1883",
    "MAX_PARALLEL_PARTS": "4",
    "METERED": "auto",
    "SPOOL_MAX_BYTES": "10737418240",
    "SPOOL_MAX_PERCENT": "25",
    "AFTER_GRACE": "300",
    "LOG_LEVEL": "info",
    "TOPIC_ROOT": "fleet/v1",
}


def rest() -> str:
    """Every call, from the OpenAPI document."""
    settings = Settings.load({"JWT_SECRET": "x" * MIN_SECRET_SIZE})
    document = api_over(FakeServices(), settings, Metrics()).openapi()
    rows = [
        (f"`{method.upper()} {path}`", _sentence(call), _scopes(call))
        for path, calls in document["paths"].items()
        for method, call in calls.items()
    ]
    return table(("call", "what it does", "scope"), sorted(rows, key=lambda row: row[0].split(" ")[1]))


def _scopes(call: dict[str, Any]) -> str:
    """The scopes that a call needs; `or` between those of which one is enough."""
    needed = call.get("security", [{}])
    alternatives = [] if {} in needed else [" ".join(f"`{scope}`" for scope in one["bearer"]) for one in needed]
    return " or ".join(alternatives) or "any token" if alternatives else "-"


def reasons() -> str:
    """Every code that the program can emit, chapter by chapter."""
    return "\n\n".join(
        line
        for title, rows in CHAPTERS.items()
        for line in (f"## {title}", *(_reason(code, row) for code, row in rows.items()))
    )


def _reason(code: str, row: Explanation) -> str:
    facts = (("To do", row.remedy), ("It ends", row.end), ("Shown in", ", ".join(row.places)))
    lines = "\n".join(f"- **{name}:** {text}." for name, text in facts)
    return f"### `{code}`\n\n{row.meaning}.\n\n{lines}"


def _sentence(call: dict[str, Any]) -> str:
    return str(call.get("summary") or call.get("description", "")).split("\n", maxsplit=1)[0]


def topics() -> str:
    """The topic table."""
    rows = [
        (
            _address(one),
            f"{_who(one, one.writer)} → {_who(one, one.reader)}",
            str(one.qos),
            _yes(one.retained),
            one.message,
        )
        for one in TOPICS
    ]
    return table(("topic", "from → to", "QoS", "retained", "message"), rows)


def _who(topic: Topic, party: Party) -> str:
    """The clients at one end; only a control plane publishes to all agents (`broker.access`)."""
    if party is Party.DEVICE:
        return "agent"
    return "control plane, operator" if topic.per_client else "control plane"


def _address(topic: Topic) -> str:
    address = Topics().of("CLIENT", topic.channel) if topic.per_client else Topics().birth()
    return f"`{address.replace('CLIENT', '{client_id}')}`"


def _yes(true: bool) -> str:  # noqa: FBT001 - a text for a truth value
    return "yes" if true else "no"


def states() -> str:
    """The state diagram, from the table of transitions."""
    edges = [
        f"    {state} --> {to}: {by.value}"
        for state, row in TRANSITIONS.items()
        for by, to in row.items()
        if to is not state
    ]
    ends = [f"    {state} --> [*]" for state, row in TRANSITIONS.items() if not row]
    return "\n".join(["```mermaid", "stateDiagram-v2", "    [*] --> queued", *edges, *ends, "```"])


def settings() -> str:
    """Both tables of settings, with the defaults of the code."""
    plane = [
        (f"`{name.upper()}`", _shown(field.default), CONTROL_PLANE_SETTINGS[name.upper()])
        for name, field in Settings.model_fields.items()
    ]
    agent = [(f"`{name}`", _shown(_AGENT_DEFAULTS.get(name)), AGENT_SETTINGS[name]) for name in AGENT_NAMES]
    head = ("default", "meaning")
    return f"{table(('control plane', *head), plane)}\n\n{table(('agent', *head), agent)}"


def _shown(default: object) -> str:
    if default is None:
        return ""
    secret = getattr(default, "get_secret_value", None)
    text = secret() if secret else default
    return f"`{str(text).lower() if isinstance(text, bool) else text}`"


def object_stores() -> str:
    """Every quirk of object stores, and what becomes of it."""
    rows = [
        (quirk.name.lower().replace("_", " "), quirk.value.store, quirk.value.product, quirk.value.sign)
        for quirk in Quirk
    ]
    return table(("name", "the object store", "Backhaul", "sign or setting"), rows)


def changes() -> str:
    """Every type of a change, and its facts."""
    rows = [
        (
            f"`{kind.name}`",
            str(kind.__doc__).split("\n", maxsplit=1)[0],
            ", ".join(f"`{one.name}`" for one in facts_of(kind)),
        )
        for kind in get_args(Change)
    ]
    return table(("type", "what happened", "facts"), rows)


def commands() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    return "\n\n".join(_command("backhaul", get_command(build())))


def _command(name: str, command: Any) -> Iterator[str]:  # noqa: ANN401 - click's, or that of typer's own copy
    if children := getattr(command, "commands", None):
        for child, each in children.items():
            if not each.hidden:
                yield from _command(f"{name} {child}", each)
        return
    parameters = [one for one in command.params if one.name != "help" and not getattr(one, "hidden", False)]
    rows = [(f"`{_spelled(one)}`", _meaning(one)) for one in parameters if _spelled(one) not in _EVERYWHERE]
    text = " ".join(inspect.cleandoc(command.help or "").split())
    yield f"## `{name}`\n\n{text}"
    if rows:
        yield table(("argument or option", "meaning"), rows)


_EVERYWHERE: Final = ("--server", "--token-file", "--json")


def _spelled(parameter: Any) -> str:  # noqa: ANN401
    if parameter.param_type_name == "argument":
        name = (parameter.metavar or parameter.name.upper()).strip("[]")
        return name if parameter.required else f"[{name}]"
    return ", ".join(sorted(parameter.opts, key=len, reverse=True))


def _meaning(parameter: Any) -> str:  # noqa: ANN401
    text = " ".join((parameter.help or "").split()).replace("\\[", "[").replace("|", "\\|")
    variable = parameter.envvar
    return f"{text} Environment: `{variable}`." if variable else text


def conformance() -> str:
    """Every check of the kit, by the section of the protocol."""
    rows = [
        (f"`{one.identifier}`", place(one), one.title, one.remedy.replace("|", "\\|"), _needs(one.needs))
        for one in CATALOGUE
    ]
    return table(("check", "protocol", "what is right", "remedy", "needs"), rows)


def _needs(needs: tuple[str, ...]) -> str:
    words = {FOLDER: "`--folder`", PROCESS: "the agent's command", STORE: "an object store", LONG: "`--long`"}
    return ", ".join(words.get(need, f"capability `{need}`") for need in needs)


def metrics() -> str:
    """Every metric of the control plane."""
    rows = [
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), text)
        for name, kind, labels, text in plane_metrics()
    ]
    return table(("metric", "type", "labels", "meaning"), rows)


def plane_metrics() -> list[tuple[str, str, tuple[str, ...], str]]:
    """Name, type, labels and text of each metric of the control plane's own, by name."""
    found = {}
    registry = Metrics().registry
    gauges: Any = object.__new__(FleetGauges)
    families = [one for one in registry._collector_to_names if hasattr(one, "_documentation")]
    for metric in [*families, *gauges.describe()]:
        kind = getattr(metric, "_type", getattr(metric, "type", ""))
        name = getattr(metric, "_name", getattr(metric, "name", ""))
        text = getattr(metric, "_documentation", getattr(metric, "documentation", ""))
        full = {"counter": f"{name}_total", "info": f"{name}_info"}.get(kind, name)
        labels = ("version",) if kind == "info" else tuple(metric._labelnames)
        found[full] = (full, "gauge" if kind == "info" else kind, labels, text)
    return [found[name] for name in sorted(found)]


def agent_metrics() -> str:
    """Every metric of the agent."""
    rows = [
        (f"`{PREFIX}{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.text)
        for one in AGENT_METRICS
    ]
    return table(("metric", "type", "labels", "meaning"), rows)


SECTIONS: Final[dict[str, Callable[[], str]]] = {
    "rest": rest,
    "topics": topics,
    "states": states,
    "settings": settings,
    "errors": errors,
    "reasons": reasons,
    "commands": commands,
    "conformance": conformance,
    "object stores": object_stores,
    "changes": changes,
    "metrics": metrics,
    "agent metrics": agent_metrics,
} | {f"fields {name}": functools.partial(fields, name) for name in shapes()}


def rendered(text: str) -> str:
    """The document with every generated part written anew."""
    return _SECTION.sub(lambda found: f"{found[1]}{SECTIONS[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(rendered(document.read_text()))
    cli_fields.MODULE.write_text(cli_fields.module())
