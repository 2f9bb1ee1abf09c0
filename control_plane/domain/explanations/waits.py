"""The codes of what waits, or is at work.

Rule: as in `model`. The nearest cause is the one that is shown, so each row names one cause.
"""

from typing import Final

from control_plane.domain.explanations.model import Explanation, Explanations, ShownIn
from control_plane.domain.reasons import ReasonCode

_AWAY: Final = (ShownIn.CLIENT, ShownIn.UPLOAD, ShownIn.EXECUTION)
_WORK: Final = (ShownIn.UPLOAD, ShownIn.FILE)
_LIMITS: Final = (ShownIn.UPLOAD, ShownIn.EXECUTION, ShownIn.FILE)
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
    ReasonCode.DEVICE_REVOKED: Explanation(
        "The device is revoked: nothing of it is taken, and nothing is sent to it",
        "Enrol it again with `backhaul device rotate ID` if it is yours again",
        "An operator enrols the device again",
        _AWAY,
    ),
    ReasonCode.KEY_ALARM: Explanation(
        "Another key than the pinned one was seen under the name of the device",
        "Compare the fingerprint on the device with `backhaul device show ID`; accept the key, or revoke the device",
        "An operator accepts the key (`backhaul device accept-key`), or enrols the device again",
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
    ReasonCode.DEVICE_BUDGET: Explanation(
        "The device has sent the bytes that its own settings allow in a day or a month",
        "Wait, or raise BYTES_PER_DAY or BYTES_PER_MONTH on the device and restart its agent",
        "The next day or month begins in the device's time zone; the text has the instant",
        _LIMITS,
    ),
    ReasonCode.DEVICE_METERED: Explanation(
        "The device is on a metered link, and has sent the bytes that its settings allow over such links",
        "Wait, connect the device by another link, or raise METERED_BYTES_PER_DAY or METERED_BYTES_PER_MONTH on it",
        "The device has a link that is not metered, or the next day or month begins",
        _LIMITS,
    ),
    ReasonCode.DEVICE_DISK: Explanation(
        "Less disk is free on the device than its setting MIN_DISK_FREE",
        "Free space on the disk of the agent's STATE_DIR, or lower MIN_DISK_FREE",
        "Enough space is free; the device looks once a minute",
        _LIMITS,
    ),
    ReasonCode.DEVICE_BATTERY: Explanation(
        "The battery of the device has less charge than its setting MIN_BATTERY_PERCENT",
        "Charge the device, or lower MIN_BATTERY_PERCENT",
        "The battery is charged, or has more charge; the device looks once a minute",
        _LIMITS,
    ),
    ReasonCode.DEVICE_LOAD: Explanation(
        "The processors of the device are busier than its setting MAX_LOAD",
        "Nothing, or look at what runs on the device, or raise MAX_LOAD",
        "The load average of a minute is lower; the device looks once a minute",
        _LIMITS,
    ),
    ReasonCode.DEVICE_HOURS: Explanation(
        "The policy of the device allows uploads at other hours of its day",
        "Wait, or change hours in the policy file of the device and restart its agent",
        "The hours begin, in the device's time zone; the device looks once a minute",
        _LIMITS,
    ),
    ReasonCode.DEVICE_CONSENT: Explanation(
        "The policy of the device asks a person there before this file is uploaded",
        "Ask that person to run backhaul-agent requests on the device",
        "The person approves, and the upload begins; or denies, and it ends rejected",
        _LIMITS,
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
