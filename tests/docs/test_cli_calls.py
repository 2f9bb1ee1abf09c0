"""Every call of REST has a command, and every command of the tree is documented in its help."""

from collections.abc import Iterator
from typing import Any, Final

import typer

from control_plane.cli.commands import build
from tests.docs.cli_fields import openapi

COMMANDS: Final = {
    "triggerDownload": "upload trigger",
    "listUploads": "upload list",
    "getUpload": "upload show",
    "cancelUpload": "upload cancel",
    "cancelUploads": "upload cancel-many",
    "retryUpload": "upload retry",
    "getObjectUrl": "upload url",
    "getReceipt": "receipt",
    "verifyUpload": "verify",
    "getUploadTimeline": "upload timeline",
    "getClientStatus": "client status",
    "listClients": "client list",
    "getClient": "client show",
    "getClientHistory": "client history",
    "expectClients": "client add",
    "forgetClient": "client forget",
    "listFiles": "client files",
    "setLabels": "client label",
    "changeLabels": "client label",
    "dropLabel": "client label",
    "labelClients": "client label-many",
    "listGroups": "group list",
    "createGroup": "group create",
    "getGroup": "group show",
    "putGroup": "group set",
    "deleteGroup": "group delete",
    "listBudgets": "budget list",
    "getBudget": "budget show",
    "putBudget": "budget set",
    "deleteBudget": "budget delete",
    "createJob": "job create",
    "listJobs": "job list",
    "getJob": "job show",
    "tuneJob": "job set",
    "pauseJob": "job pause",
    "resumeJob": "job resume",
    "cancelJob": "job cancel",
    "extendJob": "job extend",
    "approveJob": "job approve",
    "rejectJob": "job reject",
    "retryJob": "job retry",
    "addClientsToJob": "job add",
    "listExecutions": "job executions",
    "listJobFiles": "job files",
    "getManifest": "job manifest",
    "getResults": "job results",
    "createSchedule": "schedule create",
    "replaceSchedule": "schedule create",
    "listSchedules": "schedule list",
    "getSchedule": "schedule show",
    "deleteSchedule": "schedule rm",
    "pauseSchedule": "schedule pause",
    "resumeSchedule": "schedule resume",
    "skipNextTick": "schedule skip-next",
    "runScheduleNow": "schedule run-now",
    "backfillSchedule": "schedule backfill",
    "previewSchedule": "schedule preview",
    "listRuns": "schedule runs",
    "getCoverage": "schedule coverage",
    "listAudit": "audit list",
    "exportAudit": "audit export",
    "createWebhook": "webhook add",
    "listWebhooks": "webhook list",
    "getWebhook": "webhook show",
    "changeWebhook": "webhook set",
    "deleteWebhook": "webhook rm",
    "listDeliveries": "webhook deliveries",
    "replayDelivery": "webhook replay",
    "replayDead": "webhook replay",
    "streamEvents": "events",
    "getHealth": "health live",
    "getReadiness": "health ready",
    "getHealthDetails": "health details",
    "getFleet": "fleet show",
    "getFleetHistory": "fleet history",
    "listTokens": "token list",
    "getToken": "token show",
    "revokeToken": "token revoke",
    "enrollDevice": "device enroll",
    "listDevices": "device list",
    "getDevice": "device show",
    "rotateDevice": "device rotate",
    "revokeDevice": "device revoke",
    "acceptDeviceKey": "device accept-key",
    "forgetDevice": "device forget",
    "listEnrollments": "device requests",
    "approveEnrollment": "device approve",
    "rejectEnrollment": "device reject",
    "createBatch": "device batch create",
    "listBatches": "device batch list",
    "revokeBatch": "device batch revoke",
    "getKeys": "keys published",
    "putKeys": "keys publish",
    "createSessionCode": "page",
    "getMetrics": "health metrics",
    "getSession": "whoami",
}
"""The command of each call of REST."""
OF_OTHERS: Final = frozenset({"signIn", "signOut", "askToEnroll", "pollEnrollment"})
"""A browser's cookie, and what a device asks: the command line has a token."""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its whole name."""
    waiting: list[tuple[str, Any]] = [("", typer.main.get_command(build()))]
    while waiting:
        name, command = waiting.pop()
        children = getattr(command, "commands", None)
        if children is None:
            yield name.strip(), command
        else:
            waiting += [(f"{name} {word}", one) for word, one in children.items()]


def test_every_call_of_rest_has_a_command() -> None:
    calls = {call["operationId"] for path in openapi()["paths"].values() for call in path.values()}
    assert calls - OF_OTHERS == set(COMMANDS)
    assert set(COMMANDS.values()) <= {name for name, _ in commands()}


def test_every_command_explains_itself_and_its_options() -> None:
    """A sentence for each, and every command has `--json`."""
    for name, command in commands():
        assert command.help, name
        assert [one.name for one in command.params if not one.help or one.hidden] == [], name
        assert any("--json" in one.opts for one in command.params), name


def test_the_short_verbs_and_their_nouns_take_the_same() -> None:
    """`uploads` and `upload list` are one command, and so are the others."""
    tree = dict(commands())
    for short, long in (
        ("trigger", "upload trigger"),
        ("cancel", "upload cancel"),
        ("retry", "upload retry"),
        ("url", "upload url"),
        ("clients", "client list"),
        ("status", "client status"),
        ("files", "client files"),
    ):
        assert [one.opts for one in tree[short].params] == [one.opts for one in tree[long].params], short
    assert {tuple(one.opts) for one in tree["upload list"].params} <= {
        tuple(one.opts) for one in tree["uploads"].params
    }
