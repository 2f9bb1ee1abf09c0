"""The tables of docs/protocol.md: the fields of every message, and the error codes.

Rule: types, bounds and defaults come from the JSON Schemas, which come from the Structs. Only the meanings are
written here, and `test_generated.py` compares them with the fields.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas.generate.documents import documents
from schemas.values import ERRORS, ErrorCode

Json = Mapping[str, Any]

ANY_PAYLOAD: Final = "object: the payload of `action`"
MOST_VALUES: Final = 8
"""A longer list of values has its own table."""

MEANINGS: Final[dict[str, dict[str, str]]] = {
    "Command": {
        "message_id": "Identifies the command. A command that is sent again keeps it.",
        "action": "Names the payload.",
        "payload": "Absent means `{}`.",
        "issued_at": "When the command was built. For logs; an agent compares no instant with its own clock.",
        "epoch": "Not used: a signed command names a `session`. An agent accepts any value.",
        "install_id": "If present and not the agent's own, the agent answers `stale_epoch`.",
        "session": "The session of the agent that a signed command is for (section 11).",
    },
    "UploadConfig": {
        "upload_id": "The upload. Absent in a command typed by hand: the `message_id` is the upload id.",
        "attempt": "The attempt. Absent means 1.",
        "owner": "The owner. Absent means `control-plane`; with `presigned_urls` it means `cli-unknown`.",
        "digest": "Digest that binds the URLs to the bytes. Absent means `md5`.",
        "chunk_size": "Bytes in a part, before the part plan enlarges it. Absent means 5,242,880.",
        "bucket": "For information only; the agent uses the URLs.",
        "key": "Object key, for information and for the observer of a pre-granted upload.",
        "presigned_urls": "The granted URLs. In `download_file` their presence makes the upload pre-granted.",
        "expires_in": "Seconds from receipt for which these URLs are usable. Absent: until they are refused.",
    },
    "DownloadFile": {
        "upload_config": "Identity and parameters of the upload. Absent in a command typed by hand.",
        "upload_id": "Second accepted place of the upload id.",
        "attempt": "Second accepted place of the attempt.",
        "acknowledges": "Highest `sequence` of this attempt that the owner has committed.",
        "file_path": "Absolute path on the device. Absent means the agent's default file.",
        "options": "How to do the upload.",
        "metadata": "Free map, stored and echoed unchanged: at most 4 KiB as JSON, nested at most 14 deep.",
        "after": "What to do with the file once the object is proven (section 3.6).",
    },
    "UploadOptions": {
        "priority": "A higher number goes first on the device, at each part boundary.",
        "max_bytes_per_second": "Rate limit of this upload.",
        "on_change": "`fail`: a change ends the attempt. `prefix`: the file may grow; its first bytes are sent.",
        "compression": "`gzip`: the agent compresses the file first; the compressed copy is the file from then on.",
        "encrypt_to": "Recipients of age, `age1…`, for which the agent seals the file (section 3.7); empty: as it is.",
        "give_up_after": "Seconds of connection without an answer of the owner after which the agent gives up.",
    },
    "GrantParts": {
        "upload_config": "`upload_id`, `attempt`, `presigned_urls` and `expires_in` stand here.",
        "upload_id": "Second accepted place of the upload id.",
        "attempt": "Second accepted place of the attempt.",
        "acknowledges": "Highest `sequence` of this attempt that the owner has committed.",
        "completed_parts": "Inclusive ranges `[first, last]` of parts that the agent counts as sent.",
        "presigned_urls": "Second accepted place of the URLs.",
        "expires_in": "Second accepted place of their life, in seconds from receipt.",
        "wait": "The owner grants nothing yet (section 3.3).",
        "max_bytes_per_second": "Rate limit of this attempt from now on, in place of that of `options` (section 3.3).",
    },
    "Wait": {
        "reason": "Why; the agent reports it in its status.",
        "for_seconds": "Seconds from receipt.",
    },
    "PresignedPart": {
        "part_number": "The part that the URL accepts. 1 for a PutObject URL.",
        "url": "`http(s)://host[:port]/path?query`, at most 8,192 characters.",
        "headers": "Signed headers, sent exactly as given: `content-md5`, `if-none-match`, `x-amz-*`.",
    },
    "CancelUpload": {
        "upload_config": "Accepted place of `upload_id` and `attempt`.",
        "upload_id": "The upload to stop.",
        "attempt": "The attempt; the agent stops the attempt it has.",
        "acknowledges": "Accepted, not used.",
    },
    "CloseUpload": {
        "upload_config": "Accepted place of `upload_id` and `attempt`.",
        "upload_id": "The upload that is over.",
        "attempt": "The attempt; an older one than the agent's is dropped.",
        "acknowledges": "Highest `sequence` of this attempt that the owner has committed.",
        "outcome": "How the upload ended for its owner. Kept in the tombstone.",
        "proof": "How the object was proven: `checksum`, `etag`, `accepted`, `size`. For `after` (section 3.6).",
        "receipt": "The owner asks for a receipt of the object (section 3.8). Absent: it asks for none, or has it.",
    },
    "ReceiptOrder": {
        "key": "The object's key: the name of the subject.",
        "completed_at": "When the owner proved the object.",
        "job": "The job of the upload, if it has one.",
    },
    "ListFiles": {
        "pattern": "Absolute path with `*`, `?`, `[…]` and `**`. A leading dot is matched only by a dot.",
        "limit": "Files in one page at most.",
        "cursor": "`cursor` of the page before. Opaque.",
        "digest": "Digest to add to each file.",
        "folders": "Whether folders that match are listed too.",
    },
    "SelectFiles": {
        "job_id": "Repeated in the answer.",
        "paths": "Absolute paths with `*`, `?`, `[…]` and `**`, as in `list_files`. Not empty; absent with `type`.",
        "exclude": "Patterns of files and folders that are left out (section 3.5).",
        "type": "A file type of the device, in place of `paths`.",
        "newer_than": "Seconds: only files that changed at most so long ago.",
        "older_than": "Seconds: only files that changed at least so long ago.",
        "min_size": "Bytes: only files of at least this size.",
        "max_size": "Bytes: only files of at most this size.",
        "pick": "The order of the selection; equal ones are in the order of their paths.",
        "max_files": "Files that the selection keeps, from the beginning of that order.",
        "selection": "The selection to read from. Absent: this command makes one.",
        "offset": "Index of the first file of the page.",
        "limit": "Files in one page at most.",
    },
    "Response": {
        "message_id": "The `message_id` of the command that began the upload, or of the command that is answered.",
        "action": "`download_file` for everything about an upload, `hello`, or the action that is answered.",
        "status": "`in_progress` requests parts; every other value ends the upload or answers the command.",
        "payload": "Absent means `{}`.",
        "epoch": "Epoch of the agent's connection.",
        "sequence": "Counts the responses of one upload and attempt from 1. Absent in answers outside that count.",
        "error": "Error code, when `status` is `error` or `rejected`.",
        "message": "One sentence for a person.",
    },
    "UploadReport": {
        "upload_id": "The upload.",
        "attempt": "The attempt.",
        "owner": "The owner, as the command named it.",
        "file_path": "Path of the file, exactly as the command named it; the default file's if it named none.",
        "file_size": "Bytes in the file. Required in an offer.",
        "fingerprint": "File system identity of the source. Detects a change.",
        "chunk_size": "`chunk_size` of the command, for information.",
        "digest": "`digest` of the command, for information.",
        "options": "`options` of the command, for information.",
        "metadata": "`metadata` of the command, for information.",
        "etags": "ETag by part number (as text), exactly as the object store wrote it; empty text after 412.",
        "wanted_parts": "Parts for which the agent requests URLs.",
        "after": "The receipt for `after` of an upload that is closed (section 3.6).",
        "receipt": "The signed receipt of an upload that is closed (section 3.8).",
    },
    "Envelope": {
        "payloadType": "`application/vnd.in-toto+json`.",
        "payload": "The statement, in base64.",
        "signatures": "The device's signature; beside the object, the control plane's too.",
    },
    "EnvelopeSignature": {
        "keyid": "The name of the key (section 11).",
        "sig": "The Ed25519 signature of the encoded payload, in base64.",
    },
    "AfterReport": {
        "outcome": "What became of the file: `deleted`, `moved` or `kept`.",
        "code": "Why it was kept: an error code.",
        "text": "One sentence for a person; of a file that was moved, its path.",
        "at": "When, by the device's clock.",
    },
    "WantedPart": {
        "part_number": "The part.",
        "size": "Its bytes. Must agree with the part plan.",
        "digest": "Base64 of the raw digest. Required unless `digest` of the upload is `none`.",
    },
    "Fingerprint": {
        "size": "Bytes.",
        "mtime_ns": "Time of the last change of the content, in ns since 1970.",
        "ctime_ns": "Time of the last change of the inode, in ns since 1970.",
        "device": "Device number. A reboot may change it.",
        "inode": "Inode number. A reboot may change it.",
    },
    "FileList": {
        "files": "The page.",
        "cursor": "Where the next page begins. Absent on the last page.",
    },
    "Selection": {
        "job_id": "`job_id` of the command.",
        "selection": "The `message_id` of the command that made the selection. Absent in a failure.",
        "complete": "`false`: the device still walks; ask again.",
        "files": "Files that match.",
        "bytes": "Their bytes.",
        "left_out": "Files that match and are not in the selection.",
        "offset": "Index of the first of `entries`.",
        "entries": "The page, in the order of the selection.",
        "next": "Index of the next page. Absent on the last page.",
    },
    "FileEntry": {
        "path": "Absolute path.",
        "size": "Bytes; 0 for a folder.",
        "mtime_ns": "Time of the last change of the content, in ns since 1970.",
        "digest": "Base64 of the raw digest, if requested. Absent for a file of more than 256 MiB.",
        "folder": "Whether it is a folder.",
    },
    "Health": {
        "version": "Version of the agent.",
        "active_uploads": "Uploads that are not closed.",
        "system_info": "The device.",
        "counters": "Faults and dropped messages since the agent started, by name.",
    },
    "SystemInfo": {
        "hostname": "Host name.",
        "os": "Operating system, lower case.",
        "arch": "Machine type.",
        "uptime": "Seconds since the device booted. A number.",
        "load": "Load average over one minute. One number, not a list.",
        "memory_total": "Bytes.",
        "memory_available": "Bytes.",
        "disk_total": "Bytes, of the file system with the agent's state.",
        "disk_free": "Bytes, of the same file system.",
    },
    "Hello": {
        "install_id": "Identifies this installation of the agent. A new state folder has a new one.",
        "active": "Uploads that the owner has not closed.",
        "more": "Another page follows.",
    },
    "ActiveUpload": {
        "upload_id": "The upload.",
        "attempt": "The attempt.",
        "sequence": "`sequence` of the latest response of this attempt; 0 before the first.",
        "status": "`in_progress`, or the `status` of the end that was reported.",
        "owner": "The owner.",
    },
    "Status": {
        "status": "What the agent does.",
        "client_id": "The client.",
        "epoch": "Epoch of the agent's connection.",
        "current_upload": "The first of `uploads`.",
        "uploads": "Uploads in progress; those that are sending come first.",
        "system_info": "The device. At most once a minute.",
    },
    "CurrentUpload": {
        "upload_id": "The upload.",
        "attempt": "The attempt.",
        "file_path": "Absolute path of the file.",
        "progress": "Percent of the bytes.",
        "bytes_sent": "Bytes that were sent.",
        "file_size": "Bytes in the file; 0 before it is opened.",
        "completed_parts": "Parts that are stored.",
        "total_parts": "Parts in the plan; 0 before the file is opened.",
        "reason": "What a waiting upload waits for. It stops the owner's step timer.",
    },
    "Presence": {
        "client_id": "The client. Must equal the `client_id` of the topic.",
        "status": "Whether the agent is connected.",
        "install_id": "Identifies this installation of the agent.",
        "epoch": "Greater at every CONNECT of an installation than ever before.",
        "sequence": "0, 1, 2 … within an epoch; 2^53 - 1 in the will and in a graceful `offline`.",
        "since": "When the epoch began, by the device's clock. For information only.",
        "agent": "The program.",
        "labels": "Labels of the device, such as `site` → `berlin`.",
        "capabilities": "Actions that the agent supports, and `folders`, `wait`, `rate` (section 2.1).",
        "default_file": "Absolute path that is uploaded when a command names none.",
        "timezone": "IANA name of the time zone where the device is, such as `Europe/Berlin`.",
        "roots": "Folders whose files the agent may read.",
        "types": "File types that `select_files` may name.",
        "budget": "What the device may still send by its own settings. Absent where it has no such setting.",
        "key": "The public key of the device (section 11): base64url, 32 bytes.",
        "claim": "Shows, before the key is known, that the device was enrolled by this fleet (section 11).",
        "session": "What a signed command must name (section 11): base64url, 16 random bytes of this connection.",
        "keys_version": "The version of the list of keys that the agent obeys. Absent if it obeys unsigned commands.",
        "unverified": "Messages since the start of the agent that no key of the list had signed.",
    },
    "DeviceBudget": {
        "day": "Bytes of a day, over all links. Absent: no cap.",
        "month": "Bytes of a calendar month, over all links. Absent: no cap.",
        "metered_day": "Bytes of a day, over metered links only. Absent: no cap.",
        "metered_month": "Bytes of a calendar month, over metered links only. Absent: no cap.",
        "metered": "Whether the present link is metered.",
        "holds": "Why the device begins no part now: codes of section 2.4. Empty: it may send.",
    },
    "BudgetUse": {
        "cap": "Bytes that may be sent in the period.",
        "used": "Bytes of parts that were sent in it, those of failed and repeated PUTs among them.",
        "resets_at": "When the next period begins, by the device's clock and time zone.",
    },
    "AgentInfo": {
        "version": "Version of the agent.",
        "protocol": "Major versions of this protocol that the agent speaks.",
        "hostname": "Host name.",
        "os": "Operating system, lower case.",
        "arch": "Machine type.",
        "policy": "Names of the rules of the device's policy, such as `deny` or `consent camera`; no values.",
    },
    "TrustDocument": {
        "roots": "Every root since version 1, oldest first.",
        "keys": "The list of keys, signed by the latest root.",
    },
    "SignedDocument": {
        "document": "The text that was signed: JSON.",
        "signatures": "One for each key that signed it.",
    },
    "DocumentSignature": {
        "kid": "The name of the key.",
        "signature": "The signature of the kind `root` or `keys`, the topic of the keys, and the text.",
    },
    "RootDocument": {
        "version": "Rises by one with each root.",
        "threshold": "How many of the keys must sign.",
        "keys": "The public keys of the root.",
        "issued_at": "When it was made.",
        "expires": "For people; an agent takes the latest root that it has.",
    },
    "KeyList": {
        "root": "The version of the root that signed the list.",
        "version": "Lists are ordered by (`root`, `version`).",
        "issued_at": "When it was made; it moves the clock by which keys expire.",
        "entries": "The keys that agents obey.",
        "revoked": "Names of keys that are obeyed no longer, also if an entry names them.",
        "expires": "After it, by the clock of the device, nothing that its keys sign is obeyed; none by default.",
    },
    "KeyEntry": {
        "public_key": "The public key: base64url, 32 bytes.",
        "principal": "In whose name it signs.",
        "roles": "What it may sign: `command`, `transfer`.",
        "paths": "Globs of the files that it may ask for.",
        "owners": "For uploads of which owners; `*` stands for any text.",
        "expires": "Until when it is obeyed.",
    },
    "Birth": {
        "instance": "Identifies the control plane process.",
        "issued_at": "When it started.",
    },
}
"""What each field means, by Struct."""


@functools.cache
def _definitions() -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name, text in documents().items():
        if name not in {"error-codes.json", "asyncapi.json"}:
            schema = json.loads(text)
            found |= {schema["title"]: schema} | schema.get("$defs", {})
    return found


def shapes() -> dict[str, Json]:
    """The JSON Schema of every Struct that has fields, by name."""
    return {name: schema for name, schema in _definitions().items() if schema.get("properties")}


def fields(name: str) -> str:
    """The table of one Struct's fields."""
    schema = shapes()[name]
    required = set(schema.get("required", ()))
    inlined = {title: node for title, node in _definitions().items() if "enum" in node}
    rows = [
        (f"`{field}`", type_of(node, inlined), _absent(node, required=field in required), MEANINGS[name][field])
        for field, node in schema["properties"].items()
    ]
    return table(("field", "JSON type and bounds", "when absent", "meaning"), rows)


def errors() -> str:
    """The table of error codes."""
    rows = [
        (f"`{code}`", f"`{rule.travels_as}`", str(rule.follow), rule.meaning)
        for code, rule in ERRORS.items()
        if code is not ErrorCode.UNKNOWN
    ]
    unknown = ERRORS[ErrorCode.UNKNOWN]
    rows.append(("any other", f"`{unknown.travels_as}`", str(unknown.follow), unknown.meaning))
    return table(("code", "`status`", "what the owner does", "meaning"), rows)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; a vertical bar inside a cell is escaped."""
    lines = [[cell.replace("|", r"\|") for cell in row] for row in (head, tuple("---" for _ in head), *rows)]
    return "\n".join(("| " + " | ".join(line) + " |").replace("|  |", "| |") for line in lines)


def type_of(node: Json, inlined: Mapping[str, Json]) -> str:
    """One schema node as a phrase: JSON type, then bounds. Definitions in `inlined` are not linked."""
    if "anyOf" in node:
        kinds = [kind for kind in node["anyOf"] if kind.get("type") != "null"]
        extensible = len(kinds) > 1 and "enum" in kinds[0]
        phrases = [type_of(kind, inlined) for kind in kinds]
        return f"{phrases[0]}, or a later value" if extensible else " or ".join(phrases)
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return type_of(inlined[name], inlined) if name in inlined else f"object [`{name}`](#{name.lower()})"
    if "enum" in node:
        values = node["enum"]
        listed = ", ".join(f"`{value}`" for value in values)
        return f"string: {listed}" if len(values) <= MOST_VALUES else "string: a value of the table in this section"
    kind = node.get("type")
    if kind == "array":
        return _array(node, inlined)
    if kind == "object":
        return _map(node, inlined)
    return f"{kind}{_bounds(node)}" if kind else ANY_PAYLOAD


def _array(node: Json, inlined: Mapping[str, Json]) -> str:
    items = type_of(node["items"], inlined)
    if node.get("minItems") == node.get("maxItems") is not None:
        return f"array ({node['maxItems']} x {items})"
    most = f", at most {_number(node['maxItems'])}" if "maxItems" in node else ""
    return f"array of {items}{most}"


def _map(node: Json, inlined: Mapping[str, Json]) -> str:
    value = node.get("additionalProperties")
    if not value:
        return "object with any members"
    names = "part number" if "pattern" in node.get("propertyNames", {}) else "string"
    most = f"; at most {_number(node['maxProperties'])} members" if "maxProperties" in node else ""
    return f"object ({names} → {type_of(value, inlined)}{most})"


def _bounds(node: Json) -> str:
    if node.get("format") == "date-time":
        return ", RFC 3339 with a time zone"
    if "pattern" in node:
        return f", `{node['pattern']}`"
    low, high = node.get("minimum", node.get("minLength")), node.get("maximum", node.get("maxLength"))
    unit = " characters" if node["type"] == "string" else ""
    if "exclusiveMinimum" in node:
        return f", more than {node['exclusiveMinimum']}, at most {_number(high)}"
    if low is not None and high is not None:
        return f", {_number(low)} to {_number(high)}{unit}"
    if low is not None:
        return f", at least {_number(low)}{unit}"
    return "" if high is None else f", at most {_number(high)}{unit}"


def _number(value: float) -> str:
    powers = {2**bits - 1: f"2^{bits} - 1" for bits in (31, 53, 63)} | {-(2**bits): f"-2^{bits}" for bits in (31, 63)}
    return powers.get(int(value), f"{int(value):,}")


def _absent(node: Json, *, required: bool) -> str:
    if required:
        return "**required**"
    default = node.get("default")
    if default is None:
        return "absent" if "default" not in node else "`null`"
    return f"`{json.dumps(default)}`"
