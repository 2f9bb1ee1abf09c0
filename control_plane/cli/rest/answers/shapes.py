"""How each answer of REST is rows: the member that has them, and the one that names a row.

Rule: one entry for each kind of row; the members come from `cli.rest.answers.fields`, which is generated.
"""

from typing import Final

from control_plane.cli.formats import Shape
from control_plane.cli.rest.answers.fields import FIELDS

AUDIT: Final = Shape("number", FIELDS["AuditDocument"], "records")
UPLOADS: Final = Shape("upload_id", FIELDS["Upload"], "uploads")
UPLOAD: Final = UPLOADS.one()
TRIGGERED: Final = Shape("upload_id", FIELDS["Triggered"])
OBJECT_URL: Final = Shape("url", FIELDS["ObjectUrl"])
RECEIPT: Final = Shape("upload_id", FIELDS["ReceiptDocument"])
CLIENTS: Final = Shape("client_id", FIELDS["ListedClient"], "clients")
CLIENT: Final = Shape("client_id", FIELDS["Client"])
CLIENT_STATUS: Final = Shape("client_id", FIELDS["ClientStatus"])
TIMELINE: Final = Shape("number", FIELDS["UploadChange"], "changes")
HISTORY: Final = Shape("begin", FIELDS["PresenceSpan"], "spans")
FILES: Final = Shape("path", FIELDS["File"], "files")
GROUPS: Final = Shape("name", FIELDS["GroupRow"], "groups")
GROUP: Final = Shape("name", FIELDS["GroupDocument"])
BUDGETS: Final = Shape("label=value", FIELDS["BudgetDocument"], "budgets")
BUDGET: Final = BUDGETS.one()
JOBS: Final = Shape("job_id", FIELDS["JobRow"], "jobs")
JOB: Final = Shape("job_id", FIELDS["JobDocument"])
EXECUTIONS: Final = Shape("client_id", FIELDS["ExecutionDocument"], "executions")
JOB_FILES: Final = Shape("path", FIELDS["JobFileDocument"], "files")
MANIFEST: Final = Shape("client_id", FIELDS["ManifestClient"], "clients")
SCHEDULES: Final = Shape("schedule_id", FIELDS["ScheduleRow"], "schedules")
SCHEDULE: Final = Shape("schedule_id", FIELDS["ScheduleDocument"])
TICKS: Final = Shape("at", FIELDS["TickDocument"], "ticks")
RUNS: Final = Shape("nominal_at", FIELDS["RunDocument"], "runs")
RUN: Final = RUNS.one()
COVERAGE: Final = Shape("client_id", FIELDS["CoveredClient"], "clients")
WEBHOOKS: Final = Shape("webhook_id", FIELDS["WebhookDocument"], "webhooks")
WEBHOOK: Final = WEBHOOKS.one()
NEW_WEBHOOK: Final = Shape("webhook_id", FIELDS["NewWebhook"])
DELIVERIES: Final = Shape("number", FIELDS["DeliveryDocument"], "deliveries")
DELIVERY: Final = DELIVERIES.one()
TOKENS: Final = Shape("token_id", FIELDS["TokenDocument"], "tokens")
TOKEN: Final = TOKENS.one()
KEYS: Final = Shape("kid", FIELDS["KeyDocument"], "keys")
FINDINGS: Final = Shape("name", FIELDS["FoundFact"], "findings")
HOURS: Final = Shape("begins_at", FIELDS["HourDocument"], "hours")
DEVICES: Final = Shape("client_id", FIELDS["EnrolledDevice"], "devices")
DEVICE: Final = DEVICES.one()
BATCHES: Final = Shape("batch_id", FIELDS["BatchDocument"], "batches")
DEVICE_REQUESTS: Final = Shape("user_code", FIELDS["WaitingDocument"], "requests")
