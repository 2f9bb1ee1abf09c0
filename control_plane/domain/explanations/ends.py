"""The codes of uploads that ended without an object: by the control plane, and as a device reports them.

Rule: as in `model`. A device's code has its meaning from `schemas.values.ERRORS`, and what follows from its rule there.
"""

from typing import Final

from control_plane.domain.explanations.model import Explanation, Explanations, ShownIn
from control_plane.domain.reasons import ReasonCode
from schemas.values import ERRORS, ErrorCode, Follow

_SHOWN: Final = (ShownIn.UPLOAD, ShownIn.FILE, ShownIn.EXECUTION)
_FINAL: Final = "Final; `backhaul retry UPLOAD` begins a new upload"

ENDS: Final[Explanations] = {
    ReasonCode.NOT_PROVEN: Explanation(
        "The object that arrived could not be proven to be the file",
        "Read the message. A store that checks no digest needs `REQUIRE_PROOF=false` or another `S3_DIGEST`",
        _FINAL,
        _SHOWN,
    ),
    ReasonCode.STORE_REFUSED: Explanation(
        "The object store refused ten times in a row",
        "Compare the credentials, the policy of the bucket and the settings: `backhaul doctor`",
        _FINAL,
        _SHOWN,
    ),
    ReasonCode.DEADLINE_PASSED: Explanation(
        "The deadline passed before it was done",
        "See what it waited for, and request it again with a later deadline",
        "Final; a schedule's missing files heal when the client connects",
        (ShownIn.UPLOAD, ShownIn.FILE, ShownIn.EXECUTION, ShownIn.JOB),
    ),
    ReasonCode.NO_PROGRESS: Explanation(
        "The client was connected and sent nothing, three CLIENT_TIMEOUTs long",
        "Look at the agent's log on the device: a file or a network may not answer there",
        _FINAL,
        _SHOWN,
    ),
    ReasonCode.QUOTA_EXCEEDED: Explanation(
        "The file is beyond the bytes that this client may offer in 24 hours",
        "Raise CLIENT_MAX_BYTES, or request it on another day",
        _FINAL,
        _SHOWN,
    ),
    ReasonCode.CHANGED_SINCE_LISTING: Explanation(
        "The file is no longer the one that was listed and approved",
        "Repeat the execution: it lists again",
        _FINAL,
        _SHOWN,
    ),
}
_REMEDIES: Final = {
    ErrorCode.PATH_NOT_ALLOWED: "Add the folder to ALLOWED_ROOTS of the device, or request another path",
    ErrorCode.HOST_NOT_ALLOWED: "Add the object store's host to UPLOAD_HOSTS of the device, with its port",
    ErrorCode.FILE_TOO_LARGE: "Request a smaller file; S3 takes objects up to 5 TiB",
    ErrorCode.NOT_A_FILE: "Name a regular file",
    ErrorCode.BAD_SIGNATURE: (
        "Use `backhaul trigger --sign` with OPERATOR_KEY_FILE, or change `commands_need` in the policy of the device"
    ),
    ErrorCode.UNSUPPORTED: "Update the agent",
    ErrorCode.AFTER_NOT_ALLOWED: "Set ALLOW_AFTER and AFTER_PATHS of the device, or leave out `after`",
    ErrorCode.AFTER_NOT_POSSIBLE: "Read the text: a folder is missing, a name is taken, or the proof is too weak",
    ErrorCode.URL_EXPIRED: "Compare the clocks of the device and of the object store",
    ErrorCode.STORAGE_UNAVAILABLE: "Reach the object store from the device: DNS, proxy, firewall, its load",
    ErrorCode.BUSY: "Nothing, or send fewer requests to this client at once",
    ErrorCode.NO_SPACE: "Free space on the device's disk, or mount it writable",
    ErrorCode.STALE_EPOCH: "Nothing: the command is sent again",
    ErrorCode.INTERNAL: "Read the agent's log on the device; report the fault",
    ErrorCode.SOURCE_CHANGED: "Send a file that is no longer written, or use `on_change=prefix` for a growing log",
    ErrorCode.UPLOAD_GONE: "Look for a rule of the bucket that aborts multipart uploads early",
    ErrorCode.DIGEST_MISMATCH: "Look for a proxy between the device and the object store that changes bytes",
    ErrorCode.FILE_NOT_FOUND: "Compare the path with `backhaul files CLIENT PATTERN`",
    ErrorCode.PERMISSION_DENIED: "Let the agent's account read the file",
    ErrorCode.SOURCE_GONE: "Request another file; a log that rotates has a new name",
    ErrorCode.SOURCE_UNREADABLE: "Examine the disk or the mount on the device",
    ErrorCode.STORAGE_REFUSED: "Compare the clocks; look for a proxy before the object store; run `backhaul doctor`",
    ErrorCode.BAD_REQUEST: "Compare the command with protocol.md",
    ErrorCode.OWNER_SILENT: "Start the control plane, or the command that owns the upload",
    ErrorCode.NO_PROGRESS: "Look at the agent's log on the device",
    ErrorCode.UNKNOWN: "Read the message; update the control plane, which is older than the agent",
}
_ENDS: Final = {
    Follow.FINAL: _FINAL,
    Follow.SAME_ATTEMPT: "The same attempt continues after a pause, until the deadline",
    Follow.NEW_ATTEMPT: "A new attempt begins, at most three; then final",
}
DEVICE: Final[Explanations] = {
    code: Explanation(f"{rule.meaning[:1].upper()}{rule.meaning[1:]}", _REMEDIES[code], _ENDS[rule.follow], _SHOWN)
    for code, rule in ERRORS.items()
}
