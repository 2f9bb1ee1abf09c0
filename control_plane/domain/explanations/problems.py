"""The codes of problem documents: why a request was refused.

Rule: as in `model`; the meaning is the document's `title`, the same every time.
"""

from typing import Final

from control_plane.domain.explanations.model import Explanation, Explanations, ShownIn
from control_plane.domain.reasons import ProblemCode

_AGAIN: Final = "The same request may succeed later; `Retry-After` names the pause"
_OTHER: Final = "Another request: the same one is refused again"
_LIST: Final = "Compare the id with the list: `backhaul {}`"


def _row(meaning: str, remedy: str, end: str = _OTHER) -> Explanation:
    return Explanation(meaning, remedy, end, (ShownIn.PROBLEM,))


PROBLEMS: Final[Explanations] = {
    ProblemCode.INTERNAL: _row(
        "The control plane met a fault of its own", "Read its log at this time; report the fault", _AGAIN
    ),
    ProblemCode.UNAVAILABLE: _row("Something that is needed is away", "Run `backhaul doctor`", _AGAIN),
    ProblemCode.DATABASE_UNAVAILABLE: _row(
        "The database cannot be used now", "Look at the database's disk or server, and DATABASE_URL", _AGAIN
    ),
    ProblemCode.BROKER_UNAVAILABLE: _row(
        "The broker cannot be reached now", "Start the broker; compare MQTT_URL and its account", _AGAIN
    ),
    ProblemCode.BROKER_REFUSED: _row(
        "The broker takes no message of this size", "Raise the broker's limit to 131072 bytes", _AGAIN
    ),
    ProblemCode.STORE_UNAVAILABLE: _row(
        "The object store cannot be used now", "Run `backhaul doctor`: it names what to change", _AGAIN
    ),
    ProblemCode.STORE_REFUSED: _row(
        "The object store refused", "Read `code`, which is the object store's own, and the log"
    ),
    ProblemCode.STORE_FORBIDS: _row(
        "The object store forbids it to these credentials", "Extend the policy of the credentials, or replace them"
    ),
    ProblemCode.CLIENT_SILENT: _row(
        "The client did not answer in time", "Look whether the client is online: `backhaul client show ID`", _AGAIN
    ),
    ProblemCode.CLIENT_REFUSED: _row("The client refused", "Read `code`: it is one of the device's codes"),
    ProblemCode.TOO_MANY_STREAMS: _row(
        "There are too many event streams", "Close streams that are not read", "Another stream ends"
    ),
    ProblemCode.CROWDED: _row(
        "There are too many connections", "Close connections that are not used", "Another connection ends"
    ),
    ProblemCode.UNKNOWN_BUDGET: _row("No such budget", _LIST.format("budget list")),
    ProblemCode.UNKNOWN_CLIENT: _row("No such client", _LIST.format("clients")),
    ProblemCode.UNKNOWN_DEVICE: _row("No such device", _LIST.format("device list")),
    ProblemCode.UNKNOWN_BATCH: _row("No such batch", _LIST.format("device batch list")),
    ProblemCode.UNKNOWN_ENROLLMENT: _row(
        "No device asks with this code", "Read the code on the device again; one is valid for 15 minutes"
    ),
    ProblemCode.DEVICE_STATE: _row(
        "The device's state does not allow this", "Look at the device: `backhaul device show ID`"
    ),
    ProblemCode.DEVICE_BARRED: _row(
        "Nothing is sent to this device: it is revoked, or another key was seen under its name",
        "Look at the device: `backhaul device show ID`",
        "An operator enrols the device again, or accepts its key",
    ),
    ProblemCode.UNKNOWN_DELIVERY: _row("No such delivery", _LIST.format("webhook deliveries ID")),
    ProblemCode.UNKNOWN_GROUP: _row("No such group", _LIST.format("group list")),
    ProblemCode.UNKNOWN_JOB: _row("No such job", _LIST.format("job list")),
    ProblemCode.UNKNOWN_SCHEDULE: _row("No such schedule", _LIST.format("schedule list")),
    ProblemCode.UNKNOWN_TOKEN: _row("No such token", _LIST.format("token list")),
    ProblemCode.UNKNOWN_UPLOAD: _row("No such upload", _LIST.format("uploads") + "; old ones are removed"),
    ProblemCode.UNKNOWN_WEBHOOK: _row("No such webhook", _LIST.format("webhook list")),
    ProblemCode.AMBIGUOUS_UPLOAD: _row("Several clients have an upload of this id", "Add `?client_id=`"),
    ProblemCode.NOT_OURS: _row("The upload belongs to another owner", "Act where it began: it is only observed here"),
    ProblemCode.JOB_EXISTS: _row("Another job has this id", "Choose another id, or look at that job"),
    ProblemCode.JOB_STATE: _row(
        "The job's state does not allow this", "Look at the job: `state` and `reason` of the answer explain it"
    ),
    ProblemCode.ILLEGAL_TRANSITION: _row(
        "The upload's state does not allow this", "Look at the upload: `state` of the answer is its state"
    ),
    ProblemCode.CONDITION_MISSING: _row(
        "The request must name the version that it changes (If-Match)",
        "Read the document, and send its ETag as If-Match",
    ),
    ProblemCode.CONDITION_FAILED: _row(
        "The version that the request names is no longer the newest", "Read it again, and decide anew"
    ),
    ProblemCode.VERSION_CONFLICT: _row(
        "Another request changed it first: send it again", "Send the request again", _AGAIN
    ),
    ProblemCode.SET_CHANGED: _row(
        "The clients are no longer those that were shown", "Look at both counts, and confirm the new set"
    ),
    ProblemCode.KEY_REUSED: _row("The Idempotency-Key was used for another request", "Use a new key for a new request"),
    ProblemCode.KEY_TAKEN: _row("The name is in use", "Choose another name"),
    ProblemCode.QUOTA_EXCEEDED: _row(
        "The client has as many open uploads as it may",
        "Wait, cancel some, or raise CLIENT_MAX_UPLOADS",
        "Uploads of the client end",
    ),
    ProblemCode.RATE_LIMITED: _row(
        "The caller makes more calls than it may", "Make fewer calls, or raise RATE_LIMIT of the control plane", _AGAIN
    ),
    ProblemCode.REASON_MISSING: _row(
        "This server wants a reason for what changes something", "Send `Backhaul-Reason`; or `--why TEXT`"
    ),
    ProblemCode.UNTRUSTED_KEYS: _row(
        "Agents would refuse these keys", "`detail` names what is missing: a signature, a root, or a newer version"
    ),
    ProblemCode.NEEDS_OPERATOR_SIGNATURE: _row(
        "The device takes new work from an operator's signature alone",
        "Use `backhaul trigger --sign` with OPERATOR_KEY_FILE, or change `commands_need` in the policy of the device",
    ),
    ProblemCode.BAD_INPUT: _row("The request cannot be obeyed", "`detail` names the member and what is expected"),
    ProblemCode.BAD_SELECTOR: _row("The text is no selector", "`position` is the character where the fault begins"),
    ProblemCode.MALFORMED_JSON: _row("The body is not JSON", "Correct the JSON; `detail` has the place"),
    ProblemCode.NOT_JSON: _row(
        "The body must be sent as Content-Type: application/json", "Add the header `Content-Type: application/json`"
    ),
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: _row("Unsupported Media Type", "`detail` names the types that are taken"),
    ProblemCode.BODY_TOO_LARGE: _row("The body is too large", "`detail` has the limit: send less at once"),
    ProblemCode.REQUEST_TIMEOUT: _row(
        "The request did not arrive in time", "Look at the connection of the caller", _AGAIN
    ),
    ProblemCode.UNAUTHORIZED: _row(
        "A bearer token is needed", "Send a token that is valid here: `backhaul token create` makes one"
    ),
    ProblemCode.FORBIDDEN: _row(
        "The caller may not do this",
        "`detail` names what is missing: a scope (`backhaul token create --scope`), other clients, or a second person",
    ),
    ProblemCode.FOREIGN_PAGE: _row(
        "Pages of other sites may not use this server", "Open the page of this server itself"
    ),
    ProblemCode.WRONG_HOST: _row(
        "This server does not have this name: ALLOWED_HOSTS lists its names", "Add the name to ALLOWED_HOSTS"
    ),
    ProblemCode.NOT_FOUND: _row("Not Found", "Compare the path with `/docs`"),
    ProblemCode.METHOD_NOT_ALLOWED: _row("Method Not Allowed", "The header `Allow` lists the methods of this path"),
}
