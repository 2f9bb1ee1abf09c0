"""The composition root: what of the settings reaches the services and the adapters, and which extras it needs."""

import subprocess
import sys

import pytest

from control_plane.bootstrap import policy_of, s3_settings_of
from control_plane.services.policy import DAY, Policy
from control_plane.settings import Settings
from schemas.values import DigestName

ONLY_IN_THE_SERVER_EXTRA = ("alembic", "fastapi", "jwt", "prometheus_client", "sqlalchemy", "sqlmodel", "uvicorn")


def test_without_settings_the_policy_has_its_defaults() -> None:
    assert policy_of(Settings.load({})) == Policy(receipts=True)


def test_the_policy_follows_the_settings() -> None:
    settings = {"TOPIC_ROOT": "site", "BASE_S3_PATH": "a/b", "S3_DIGEST": "sha256", "CLIENT_TIMEOUT": "7"}
    policy = policy_of(Settings.load({**settings, "PRESIGNED_URL_EXPIRY": "60", "HISTORY_DAYS": "2"}), owner="cli-7")
    assert (policy.owner, policy.topic_root, policy.base_path) == ("cli-7", "site", "a/b")
    assert (policy.digest, policy.step_timeout, policy.url_expiry) == (DigestName.SHA256, 7.0, 60.0)
    assert policy.history == 2 * DAY


@pytest.mark.parametrize(
    ("setting", "argument", "required"), [("true", True, True), ("true", False, False), ("false", True, False)]
)
def test_proof_is_required_when_settings_and_caller_require_it(setting: str, argument: bool, required: bool) -> None:  # noqa: FBT001
    policy = policy_of(Settings.load({"REQUIRE_PROOF": setting}), require_proof=argument)
    assert policy.require_proof is required


def test_the_bucket_gets_its_credentials_in_plain() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_SESSION_TOKEN": "session"}
    s3 = s3_settings_of(Settings.load({**keys, "S3_BUCKET_NAME": "bucket", "AWS_ENDPOINT": "http://127.0.0.1:9000/"}))
    assert (s3.bucket, s3.access_key, s3.secret_key, s3.session_token) == ("bucket", "id", "key", "session")
    assert (s3.endpoint, s3.public_endpoint) == ("http://127.0.0.1:9000", None)


def test_the_direct_command_line_runs_without_the_server_extra() -> None:
    program = f"""
import sys
for name in {ONLY_IN_THE_SERVER_EXTRA}:
    sys.modules[name] = None
from control_plane.cli.mqtt import print_command, publish, run, watch
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
