"""The codes of what waits, or is at work.

Rule: as in `model`. The nearest cause is the one that is shown, so each row names one cause.
"""

from typing import Final

from control_plane.domain.explanations.model import Explanation, Explanations, ShownIn
from control_plane.domain.reasons import ReasonCode

_AWAY: Final = (ShownIn.CLIENT, ShownIn.UPLOAD, ShownIn.EXECUTION)
_WORK: Final = (ShownIn.UPLOAD, ShownIn.FILE)
_SERVICE: Final = (ShownIn.UPLOAD,)
_GATE: Final = (ShownIn.UPLOAD, ShownIn.EXECUTION)
_NOTHING: Final = "Nothing: this is the normal course"

WAITS: Final[Explanations] = {
    ReasonCode.CLIENT_UNKNOWN: Explanation(
        "No agent has connected under this client id, or the client was forgotten",
        "Compare the id with the device's CLIENT_ID; start the agent there",
        "The agent connects, or an operator names the client with `backhaul client add`",
        _AWAY,
    ),
    ReasonCode.CLIENT_NEVER_SEEN: Explanation(
        "An operator expects the client, and its agent has not connected yet",
        "Start the agent on the device, with this CLIENT_ID and the address of the broker in MQTT_URL",
        "The agent connects",
        _AWAY,
    ),
    ReasonCode.CLIENT_OFFLINE: Explanation(
        "The client is not connected to the broker",
        "Nothing if the device is off or has no network: commands wait. Else look at the agent's log on the device",
        "The agent connects again; what waits begins within seconds, or expires at its deadline",
        _AWAY,
    ),
    ReasonCode.CLIENT_UNSUPPORTED: Explanation(
        "Agent and control plane have no protocol version in common",
        "Update the older of the two",
        "The agent connects with a version that both know",
        _AWAY,
    ),
    ReasonCode.CLIENT_CONFLICT: Explanation(
        "Two devices use one client id, or the state folder of the device went back to an older copy",
        "Give each device its own CLIENT_ID. If a disk image was copied, delete STATE_DIR on the copy",
        "One agent alone connects under the id",
        _AWAY,
    ),
    ReasonCode.CLIENT_NOISY: Explanation(
        "The client sends more messages than an agent may; the rest is dropped, and commands reach it still",
        "Look at the device: a program may send in a loop, or two programs share the id",
        "The client stays within its budget of messages for a minute",
        (ShownIn.CLIENT,),
    ),
    ReasonCode.CLIENT_REPORTED: Explanation(
        "The client reported what it waits for; the text is the device's own",
        "Read the text: the device names what it lacks, such as disk space or an answer of the object store",
        "The device continues, and reports progress",
        _WORK,
    ),
    ReasonCode.DISPATCHING: Explanation(
        "The command is about to be published",
        _NOTHING,
        "The broker acknowledges the command",
        _WORK,
    ),
    ReasonCode.AWAITING_RESPONSE: Explanation(
        "The command was published, and the client has not responded yet",
        "Nothing for CLIENT_TIMEOUT seconds. If it lasts, look at the agent's log on the device",
        "The client responds; after three silent CLIENT_TIMEOUTs of a connected client the upload fails",
        _WORK,
    ),
    ReasonCode.UPLOADING: Explanation(
        "The client is sending",
        _NOTHING,
        "Every part is stored; the object is completed then",
        (ShownIn.UPLOAD, ShownIn.EXECUTION),
    ),
    ReasonCode.COMPLETING: Explanation(
        "The object is being completed and proven",
        _NOTHING,
        "The object store shows the object with this attempt's token, its size and its checksum",
        _WORK,
    ),
    ReasonCode.BROKER_UNAVAILABLE: Explanation(
        "The broker cannot be reached",
        "Start the broker; compare MQTT_URL, MQTT_USERNAME and MQTT_PASSWORD; run `backhaul doctor`",
        "The control plane is connected to the broker again",
        _SERVICE,
    ),
    ReasonCode.BROKER_REFUSED: Explanation(
        "The broker takes no message of this size; the text has its limit",
        "Raise the broker's limit (Mosquitto: `max_packet_size`) to 131072 bytes",
        "The broker takes the message",
        _SERVICE,
    ),
    ReasonCode.DATABASE_UNAVAILABLE: Explanation(
        "The database cannot be used",
        "SQLite: look at the disk and its free space. PostgreSQL: start it, and compare DATABASE_URL",
        "A transaction commits again",
        _SERVICE,
    ),
    ReasonCode.OBJECT_STORE_UNAVAILABLE: Explanation(
        "The object store cannot be reached, or answers that it is busy",
        "Look at the object store; compare AWS_ENDPOINT; run `backhaul doctor`",
        "The object store answers again",
        _SERVICE,
    ),
    ReasonCode.OBJECT_STORE_REFUSED: Explanation(
        "The object store refused a request",
        "Compare the credentials, the policy of the bucket and AWS_REGION; `backhaul doctor` sends a test object",
        "A later try is taken; ten refusals in a row end the attempt",
        _SERVICE,
    ),
    ReasonCode.OBJECT_NOT_VISIBLE: Explanation(
        "Every part is stored, and the object store does not show the object yet",
        "Nothing for a few minutes. If it lasts, look for a rule that deletes new objects",
        "The object is shown; after ten looks in a row the attempt ends",
        _SERVICE,
    ),
    ReasonCode.UNMARKED_OBJECT: Explanation(
        "The object has no token: something between here and the object store drops `x-amz-meta-*`",
        "Let the proxy or the object store keep `x-amz-meta-*` headers",
        "An object that carries the token; the tenth in a row without one ends the upload",
        _WORK,
    ),
    ReasonCode.JOB_PAUSED: Explanation(
        "An operator paused the job",
        "Resume it when it may continue: `backhaul job resume ID`",
        "An operator resumes or cancels the job, or its deadline passes",
        _GATE,
    ),
    ReasonCode.APPROVAL_PENDING: Explanation(
        "An operator has not approved yet what the job sends",
        "Look at its manifest and approve it: `backhaul job approve ID`",
        "An operator approves or refuses, or the deadline passes",
        _GATE,
    ),
    ReasonCode.OUTSIDE_WINDOW: Explanation(
        "None of the job's windows is open",
        "Nothing, or change the windows with `backhaul job set ID`",
        "The next window opens, at `next_wake_at`",
        _GATE,
    ),
    ReasonCode.STAGE_NOT_REACHED: Explanation(
        "The stage of the rollout to which the client belongs has not begun",
        "Nothing, or change the stages with `backhaul job set ID`",
        "The stages before it are done as well as the rollout requires",
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.DISPATCH_RATE: Explanation(
        "The job begins no more executions in this minute",
        "Nothing, or raise `rollout.per_minute` with `backhaul job set ID`",
        "The rate allows the next execution, at `next_wake_at`",
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.RUNNING_CAP: Explanation(
        "As many executions of the job run as may",
        "Nothing, or raise `rollout.max_running` with `backhaul job set ID`",
        "One of them ends",
        (ShownIn.EXECUTION,),
    ),
    ReasonCode.BUDGET_SPENT: Explanation(
        "A budget of bytes a second is spent; the text names it",
        "Nothing, or raise the budget with `backhaul budget set`",
        "The uploads before it leave room; `next_wake_at` is an estimate",
        _GATE,
    ),
    ReasonCode.CLIENT_QUOTA: Explanation(
        "The client has too many open uploads, or offered too many bytes in a day",
        "Wait, cancel uploads that are not needed, or raise CLIENT_MAX_UPLOADS or CLIENT_MAX_BYTES",
        "Uploads of the client end, or a day passes",
        _GATE,
    ),
    ReasonCode.DEVICE_BUDGET: Explanation(
        "The device has used up its bytes of the day or month, or what is left is less than one part",
        "Nothing, or raise BYTES_PER_DAY or BYTES_PER_MONTH on the device",
        "The next day or month of the device begins; the text names the instant if the device reports it",
        _GATE,
    ),
    ReasonCode.DEVICE_METERED: Explanation(
        "The link of the device is metered, and its bytes for such links are used up",
        "Connect it by another link, or raise METERED_BYTES_PER_DAY or METERED_BYTES_PER_MONTH on the device",
        "The device has another link, or its next day or month begins",
        _GATE,
    ),
    ReasonCode.DEVICE_DISK: Explanation(
        "Less disk is free on the device than its MIN_DISK_FREE",
        "Make room on the device",
        "The device reports that enough is free",
        _GATE,
    ),
    ReasonCode.DEVICE_BATTERY: Explanation(
        "The battery of the device has less charge than its MIN_BATTERY_PERCENT, and does not charge",
        "Charge the device",
        "The device reports that it has enough charge, or charges",
        _GATE,
    ),
    ReasonCode.DEVICE_LOAD: Explanation(
        "The load of the device is above its MAX_LOAD",
        "Nothing, or look at what runs on the device",
        "The device reports a lower load",
        _GATE,
    ),
    ReasonCode.JOB_ENDED: Explanation(
        "The job is over or is being ended: its uploads get no more URLs",
        "Nothing: its open uploads are being cancelled",
        "The client acknowledges, or the upload expires",
        _GATE,
    ),
    ReasonCode.INTERNAL: Explanation(
        "A fault of the control plane or of the agent; its log has the details",
        "Read the log of the control plane, or of the agent, at this time; report the fault",
        "The next try succeeds; it follows by itself",
        (ShownIn.UPLOAD, ShownIn.FILE, ShownIn.EXECUTION),
    ),
}
