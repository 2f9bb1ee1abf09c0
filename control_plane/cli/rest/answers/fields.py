"""The members of REST's answers, for `--fields`.

Rule: generated from the OpenAPI document by `python -m tests.docs.generated`; never edited by hand.
"""

from typing import Final

_MEMBERS: Final = {
    "ActDocument": "acted_on job",
    "AskDocument": "device_code user_code interval expires_in",
    "AuditDocument": (
        "writer number at subject token_id address act target clients client_count client_set reason detail "
        "outcome previous hash"
    ),
    "AuditPage": "records unreadable cursor key",
    "BackfilledDocument": "queued left_out",
    "BudgetDocument": "label value bytes_per_second updated_at spent_until waiting users waiters",
    "BudgetPage": "budgets cursor",
    "BudgetUse": "client_id upload_id job_id bytes until",
    "BudgetWaiter": "client_id upload_id job_id priority since absent",
    "BundleDocument": (
        "format client_id mqtt_url mqtt_password topic_root ca root claim_secret allowed_roots upload_hosts "
        "file_path labels"
    ),
    "CancelledUploads": "clients cancelled refused more",
    "Client": (
        "client_id connected state last_activity labels reason connected_at install_id agent supported "
        "capabilities default_file timezone roots types device_labels set_labels expected note budget "
        "keys_version unverified"
    ),
    "ClientHistory": "client_id spans cut",
    "ClientPage": "clients count set cursor",
    "ClientStatus": "client_id connected connected_at last_heartbeat current_upload reason",
    "CodeNumber": "code count",
    "CoverageDocument": "schedule_id from to ticks clients cursor",
    "CoveredClient": "client_id cells",
    "CoveredTickDocument": "nominal_at local status job_id clients pending proven unchanged empty missing healed",
    "DeliveryDocument": "number type subject state tries status error since tried_at next_try_at",
    "DeliveryPage": "deliveries cursor",
    "DevicePage": "devices cursor",
    "DryRunDocument": "dry_run clients set first warnings spec forecast",
    "EnlistedClients": "clients created changed",
    "EnrolledDevice": (
        "client_id state fingerprint kid public_key other_fingerprint other_seen_at awaits_claim has_account "
        "created_at created_by pinned_at revoked_at revoked_by note"
    ),
    "ExecutionDocument": (
        "client_id state reason attempt approved matched_files matched_bytes left_out unchanged files bytes "
        "proven proven_bytes failed rejected began_at listed_at ended_at updated_at"
    ),
    "ExecutionPageDocument": "executions count set cursor",
    "File": "path size mtime_ns digest folder",
    "FilePage": "files cursor live as_of reason",
    "FleetDocument": "as_of since clients open waiting counted ended bytes failures failures_since",
    "FleetHistory": "hours",
    "FoundFact": "name fine text remedy",
    "GroupDocument": "name entries selector note created_at updated_at clients count set warnings",
    "GroupList": "groups",
    "GroupRow": "name entries selector note created_at updated_at",
    "Health": "status timestamp",
    "HealthDetails": "as_of ready checks probe findings replicas",
    "HourDocument": "begins_at bytes ended",
    "JobDocument": (
        "job_id state outcome approval reason clients executions totals version schedule_id nominal_at "
        "created_at created_by deadline ended_at ending run stage reasons spec"
    ),
    "JobFileDocument": "client_id number path size mtime_ns outcome reason upload_id key",
    "JobFilePageDocument": "files cursor",
    "JobPageDocument": "jobs cursor",
    "JobRow": (
        "job_id state outcome approval reason clients executions totals version schedule_id nominal_at "
        "created_at created_by deadline ended_at"
    ),
    "KeyDocument": "kid public_key principal roles paths owners expires",
    "KeysDocument": "root version root_sha256 published_at published_by kid public_key keys revoked document",
    "LabelledClients": "clients changed",
    "ListedClient": "client_id connected state last_activity labels reason open_uploads current_upload budget",
    "ManifestClient": "client_id state approved files bytes left_out minutes",
    "ManifestDocument": "as_of approval totals waiting largest largest_files clients cursor",
    "NewCode": "code expires_in",
    "NewWebhook": "webhook_id url types selector enabled note waiting created_at created_by secret",
    "ObjectUrl": "upload_id url expires_in",
    "PollDocument": "interval sealed",
    "PresenceSpan": "state begin end",
    "Preview": "ticks",
    "Readiness": "status checks probe",
    "ReasonCount": "state reason_code executions",
    "Replayed": "replayed",
    "ReplicaRow": "replica_id host version started_at seen_at this",
    "RunDocument": "kind nominal_at status reason at job_id ended_at outcome",
    "RunPageDocument": "runs cursor",
    "ScheduleDocument": (
        "schedule_id cron every zone next_at paused note failures queued running version overlap catch_up "
        "jitter delay pause_after_failures skip_at paused_at created_at created_by updated_at job warnings"
    ),
    "ScheduleDryRun": (
        "schedule_id cron every zone next_at paused note failures queued running version overlap catch_up "
        "jitter delay pause_after_failures skip_at paused_at created_at created_by updated_at job warnings "
        "dry_run clients first ticks forecast"
    ),
    "SchedulePageDocument": "schedules cursor",
    "ScheduleRow": "schedule_id cron every zone next_at paused note failures queued running version",
    "SessionDocument": "auth caller valid_until scopes clients",
    "TickDocument": "at local note",
    "TokenDocument": "token_id subject scopes clients expires_at used_at address revoked_at revoked_by reason current",
    "TokenPage": "tokens cursor",
    "Triggered": "success message upload_id s3_key status",
    "Upload": (
        "upload_id client_id file_path s3_key status state progress completed_parts total_parts "
        "bytes_uploaded file_size attempt proof reason error message metadata after encrypt_to origin job_id "
        "deadline created_at updated_at completed_at"
    ),
    "UploadChange": "number at type was state attempt error",
    "UploadPage": "uploads cursor",
    "UploadTimeline": "upload_id changes complete",
    "WaitingDocument": "user_code fingerprint address asked_at",
    "WaitingList": "requests",
    "WebhookDocument": "webhook_id url types selector enabled note waiting created_at created_by",
    "WebhookList": "webhooks",
}
FIELDS: Final[dict[str, tuple[str, ...]]] = {name: tuple(members.split()) for name, members in _MEMBERS.items()}
