"""The members of REST's answers, for `--fields`.

Rule: generated from the OpenAPI document by `python -m tests.docs.generated`; never edited by hand.
"""

from typing import Final

_MEMBERS: Final = {
    "AuditDocument": (
        "writer number at subject token_id address act target clients client_count client_set reason detail "
        "outcome previous hash"
    ),
    "BatchDocument": "batch_id names count taken serials auto expires_at created_at created_by revoked_at",
    "BudgetDocument": "label value bytes_per_second updated_at spent_until waiting users waiters",
    "Client": (
        "client_id connected state last_activity labels reason connected_at install_id agent supported "
        "capabilities default_file timezone roots types device_labels set_labels expected note budget "
        "keys_version unverified"
    ),
    "ClientStatus": "client_id connected connected_at last_heartbeat current_upload reason",
    "CoveredClient": "client_id cells",
    "DeliveryDocument": "number type subject state tries status error since tried_at next_try_at",
    "EnrolledDevice": (
        "client_id state fingerprint kid public_key other_fingerprint other_seen_at awaits_claim keys_version "
        "has_account created_at created_by pinned_at revoked_at revoked_by note"
    ),
    "ExecutionDocument": (
        "client_id state reason attempt approved matched_files matched_bytes left_out unchanged files bytes "
        "proven proven_bytes failed rejected began_at listed_at ended_at updated_at"
    ),
    "File": "path size mtime_ns digest folder",
    "FoundFact": "name fine text remedy",
    "GroupDocument": "name entries selector note created_at updated_at clients count set warnings",
    "GroupRow": "name entries selector note created_at updated_at",
    "HourDocument": "begins_at bytes ended",
    "JobDocument": (
        "job_id state outcome approval reason clients executions totals version schedule_id nominal_at "
        "created_at created_by deadline ended_at ending run stage reasons spec"
    ),
    "JobFileDocument": "client_id number path size mtime_ns outcome reason upload_id key",
    "JobRow": (
        "job_id state outcome approval reason clients executions totals version schedule_id nominal_at "
        "created_at created_by deadline ended_at"
    ),
    "KeyDocument": "kid public_key principal roles paths owners expires expiry",
    "ListedClient": "client_id connected state last_activity labels reason open_uploads current_upload budget",
    "ManifestClient": "client_id state approved files bytes left_out minutes",
    "NewWebhook": "webhook_id url types selector enabled note waiting created_at created_by secret",
    "ObjectUrl": "upload_id url expires_in",
    "PresenceSpan": "state begin end",
    "ReceiptDocument": "upload_id s3_key envelope keys signed_by_device refused",
    "RunDocument": "kind nominal_at status reason at job_id ended_at outcome",
    "ScheduleDocument": (
        "schedule_id cron every zone next_at paused note failures queued running version overlap catch_up "
        "jitter delay pause_after_failures skip_at paused_at created_at created_by updated_at job warnings"
    ),
    "ScheduleRow": "schedule_id cron every zone next_at paused note failures queued running version",
    "TickDocument": "at local note",
    "TokenDocument": "token_id subject scopes clients expires_at used_at address revoked_at revoked_by reason current",
    "Triggered": "success message upload_id s3_key status",
    "Upload": (
        "upload_id client_id file_path s3_key status state progress completed_parts total_parts "
        "bytes_uploaded file_size attempt proof receipt reason error message metadata after encrypt_to origin "
        "job_id deadline created_at updated_at completed_at"
    ),
    "UploadChange": "number at type was state attempt error",
    "WaitingDocument": "user_code fingerprint address asked_at proposed",
    "WebhookDocument": "webhook_id url types selector enabled note waiting created_at created_by",
}
FIELDS: Final[dict[str, tuple[str, ...]]] = {name: tuple(members.split()) for name, members in _MEMBERS.items()}
