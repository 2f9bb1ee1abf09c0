"""Names, JSON types of commands, spellings and digests, as the tables of the protocol have them.

Rule: pure; what contradicts the tables is `Refused`.
"""

import base64
import hashlib
import re
import zlib
from typing import Any

MIB = 1024 * 1024
LAST = 2**53 - 1
MANY = 2**63 - 1
WINDOW = 64 * MIB
RETRIES = 8
CAPABILITIES = [
    *("download_file", "grant_parts", "cancel_upload", "close_upload", "list_files", "health_check", "wait", "rate")
]
ID = re.compile(r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")
DIGESTS = ("md5", "sha256", "crc32", "none")
REJECTED = ("path_not_allowed", "host_not_allowed", "file_too_large", "not_a_file", "bad_signature", "unsupported")
ENDS = {"completed": ("success", None), "cancelled": ("cancelled", None), "rejected": ("rejected", "upload_gone")}

Json = dict[str, Any]
BIRTH = "fleet/v1/control-plane/birth"


class Refused(Exception):
    """A command or an upload that ends with this error code."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(text or code)
        self.code = code


CONFIG = {
    "upload_id": (str, ID),
    "attempt": (int, 1, 1_000_000),
    "owner": (str, None),
    "digest": (str, DIGESTS),
    "chunk_size": (int, 5 * MIB, 5120 * MIB),
    "presigned_urls": (list, None),
    "expires_in": (float, None),
}
ABOUT = {
    "upload_config": (dict, CONFIG),
    "upload_id": (str, ID),
    "attempt": (int, 1, 1_000_000),
    "acknowledges": (int, 0, LAST),
}
OPTIONS = {
    "priority": (int, -(2**31), 2**31 - 1),
    "max_bytes_per_second": (int, 1, LAST),
    "on_change": (str, ("fail",)),
    "compression": (str, ("none",)),
}
FIELDS: dict[str, Json] = {
    "download_file": {**ABOUT, "file_path": (str, None), "options": (dict, OPTIONS), "metadata": (dict, {})},
    "grant_parts": {
        **ABOUT,
        "completed_parts": (list, None),
        "presigned_urls": (list, None),
        "expires_in": (float, None),
        "wait": (dict, {"reason": (str, None), "for_seconds": (float, None)}),
        "max_bytes_per_second": (int, 1, LAST),
    },
    "cancel_upload": ABOUT,
    "close_upload": {**ABOUT, "outcome": (str, None)},
    "list_files": {
        "pattern": (str, None, "required"),
        "limit": (int, 1, 500),
        "cursor": (str, None),
        "digest": (str, DIGESTS),
    },
    "health_check": {},
}


def fields(payload: Any, table: Json) -> None:
    """`Refused` for a member of the wrong type."""
    if not isinstance(payload, dict):
        raise Refused("bad_request", "an object is expected")
    for name, (kind, *bounds) in table.items():
        value = payload.get(name)
        if value is None:
            if "required" in bounds:
                raise Refused("bad_request", f"{name} is missing")
            continue
        right = type(value) in {int, float} if kind is float else type(value) is kind
        if not right:
            raise Refused("bad_request", f"{name} has the wrong type")
        if kind is int and not bounds[0] <= value <= bounds[1]:
            raise Refused("bad_request", f"{name} is out of bounds")
        if kind is str and isinstance(bounds[0], tuple) and value not in bounds[0]:
            raise Refused("unsupported", f"{name} {value}")
        if kind is str and isinstance(bounds[0], re.Pattern) and not bounds[0].match(value):
            raise Refused("bad_request", f"{name} has another form")
        if kind is dict:
            fields(value, bounds[0])


def digest_of(name: str, data: bytes) -> str | None:
    """Base64 of the raw digest."""
    if name == "none":
        return None
    raw = zlib.crc32(data).to_bytes(4) if name == "crc32" else hashlib.new(name, data).digest()
    return base64.b64encode(raw).decode()


def unspelled(path: str) -> bytes:
    """The name behind the spelling of the protocol."""
    return re.sub(rb"\\x([89a-f][0-9a-f]|5c)", lambda found: bytes((int(found[1], 16),)), path.encode())


def spelled(path: str) -> str:
    """The spelling of a name."""
    return "".join(f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in path)
