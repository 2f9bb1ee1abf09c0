"""The policies of `deploy/aws` against the calls that the object store adapter makes.

Rule: the calls are those that the strict S3 server received, from the probe to the removal of an object. IAM's rule is
applied here: an explicit Deny, else an Allow, else refused. Amazon's own evaluation was not run.
"""

import asyncio
import fnmatch
import io
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.services.lifecycle_rule import with_our_rule
from control_plane.services.ports.object_store import Grantable
from schemas.values import DigestName
from tests.support.s3_servers import put
from tests.support.strict_s3 import Operation, start_strict

FOLDER: Final = Path(__file__).parents[3] / "deploy" / "aws"
BUCKET: Final = "my-bucket"
ACCOUNT: Final = "123456789012"
ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/backhaul-control-plane"

ACTIONS: Final[Mapping[str, str]] = {
    Operation.HEAD_BUCKET: "s3:ListBucket",
    Operation.LIST_OBJECTS: "s3:ListBucket",
    Operation.LIST_MULTIPART_UPLOADS: "s3:ListBucketMultipartUploads",
    Operation.GET_BUCKET_RULES: "s3:GetLifecycleConfiguration",
    Operation.PUT_OBJECT: "s3:PutObject",
    Operation.CREATE_MULTIPART_UPLOAD: "s3:PutObject",
    Operation.UPLOAD_PART: "s3:PutObject",
    Operation.COMPLETE_MULTIPART_UPLOAD: "s3:PutObject",
    Operation.GET_OBJECT: "s3:GetObject",
    Operation.HEAD_OBJECT: "s3:GetObject",
    Operation.LIST_PARTS: "s3:ListMultipartUploadParts",
    Operation.ABORT_MULTIPART_UPLOAD: "s3:AbortMultipartUpload",
    Operation.DELETE_OBJECT: "s3:DeleteObject",
}
"""The permission of each operation (Amazon S3 User Guide, "Required permissions for Amazon S3 API operations")."""

SIDES: Final = {"s3:GetBucketPolicyStatus", "s3:GetBucketCORS", "s3:DeleteObjectVersion"}
"""Asked by `doctor` and by the probe of a bucket with versions; the strict server has none of them."""

Policy = dict[str, Any]
Call = tuple[str, str]
"""An action and the ARN that it is about."""


def policy(name: str) -> Policy:
    """A file as `apply` fills it in."""
    text = (FOLDER / name).read_text().replace("BUCKET", BUCKET).replace("ACCOUNT", ACCOUNT)
    read: Policy = json.loads(text)
    return read


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def holds(condition: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    """Whether every condition holds; a key that the request lacks makes a positive one false, as IAM has it."""
    for operator, keys in condition.items():
        for key, wanted in keys.items():
            have = context.get(key)
            match operator:
                case "Bool":
                    true = have == wanted
                case "NumericGreaterThan":
                    true = have is not None and float(have) > float(wanted)
                case "StringNotLike":
                    true = not any(fnmatch.fnmatchcase(have or "", one) for one in listed(wanted))
                case _:
                    pytest.fail(f"{operator} is not known here")
            if not true:
                return False
    return True


def allowed(call: Call, context: Mapping[str, str], *policies: Policy) -> bool:
    """IAM's decision."""
    action, resource = call
    effects = {
        one["Effect"]
        for each in policies
        for one in each["Statement"]
        if any(fnmatch.fnmatchcase(action, pattern) for pattern in listed(one["Action"]))
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in listed(one["Resource"]))
        and holds(one.get("Condition", {}), context)
    }
    return effects == {"Allow"}


def request(**changed: str) -> dict[str, str]:
    """What IAM knows about a request of the control plane, or of a device with its URL."""
    known = {"aws:SecureTransport": "true", "s3:signatureAge": "60000", "aws:PrincipalArn": ROLE}
    return known | {name.replace("__", ":"): value for name, value in changed.items()}


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[Call]]:
    """What the adapter asked of a bucket that exists."""
    with start_strict(tmp_path_factory.mktemp("strict")) as server:
        settings = S3Settings(
            bucket=BUCKET,
            access_key=server.s3.access_key,
            secret_key=server.s3.secret_key,
            endpoint=server.s3.endpoint,
        )
        asyncio.run(prepare(settings))
        before = len(list(server.events))
        asyncio.run(work(settings))
        events = list(server.events)[before:]
        yield {
            (ACTIONS[one.operation], f"arn:aws:s3:::{BUCKET}" + (f"/{one.key}" if one.key else ""))
            for one in events
            if one.operation != Operation.UNKNOWN
        }


async def prepare(settings: S3Settings) -> None:
    """An administrator's step: the bucket."""
    store = S3ObjectStore(settings)
    await store.ensure_bucket()
    await store.close()


async def work(settings: S3Settings) -> None:
    """Each call of the port, and the PUTs of a device."""
    store = S3ObjectStore(settings)
    await store.ensure_bucket()
    await store.probe()
    key = "uploads/restaurant-1/20260101-a/file.bin"
    upload_id = await store.create_multipart(key, "token", DigestName.NONE)
    part = store.presign_part(key, upload_id, Grantable(1, 5, None, 60), DigestName.NONE)
    answer = await put(part, b"hello")
    assert await store.list_parts(key, upload_id) is not None
    await store.list_multipart("uploads/")
    await store.multipart_size(key, upload_id)
    await store.complete(key, upload_id, {1: answer.headers["etag"]})
    assert await store.head(key) is not None
    assert await store.head(f"{key}.missing") is None
    async with httpx.AsyncClient() as reader:
        assert (await reader.get(store.presign_get(key, 60))).content == b"hello"
    await store.abort(key, await store.create_multipart(key, "token", DigestName.NONE))
    await store.put("uploads/reports/job.csv", io.BytesIO(b"a,b"))
    await store.delete("uploads/reports/job.csv")
    await store.lifecycle()
    await store.exposure()
    await store.close()


def test_every_call_of_the_adapter_is_allowed(calls: set[Call]) -> None:
    assert {action for action, _ in calls} == set(ACTIONS.values())
    role, bucket = policy("control-plane-policy.json"), policy("bucket-policy.json")
    assert [call for call in sorted(calls) if not allowed(call, request(), role, bucket)] == []


def test_no_permission_is_given_that_no_call_needs(calls: set[Call]) -> None:
    given = {one for each in policy("control-plane-policy.json")["Statement"] for one in listed(each["Action"])}
    assert given == {action for action, _ in calls} | SIDES


@pytest.mark.parametrize(
    ("action", "key"),
    [
        ("s3:GetObject", "/other/file"),
        ("s3:PutObject", "/other/file"),
        ("s3:PutObjectAcl", "/uploads/restaurant-1/file"),
        ("s3:DeleteObjectVersion", "/uploads/restaurant-1/file"),
        ("s3:PutBucketPolicy", ""),
        ("s3:DeleteBucket", ""),
        ("s3:PutLifecycleConfiguration", ""),
    ],
)
def test_what_uploads_do_not_need_is_refused(action: str, key: str) -> None:
    call = (action, f"arn:aws:s3:::{BUCKET}{key}")
    assert not allowed(call, request(), policy("control-plane-policy.json"), policy("bucket-policy.json"))


@pytest.mark.parametrize(
    "changed",
    [
        {"aws__SecureTransport": "false"},
        {"s3__signatureAge": "3600001"},
        {"aws__PrincipalArn": f"arn:aws:iam::{ACCOUNT}:role/another"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_request_without_tls_of_an_old_url_or_of_another_role_is_refused(changed: dict[str, str]) -> None:
    """The other role has every right of its own."""
    everything = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    # A version is read by another permission, also where the bucket keeps none.
    for action in ("s3:GetObject", "s3:GetObjectVersion", "s3:DeleteObjectVersion", "s3:PutObjectAcl"):
        call = (action, f"arn:aws:s3:::{BUCKET}/uploads/restaurant-1/file")
        assert allowed(call, request(), everything, policy("bucket-policy.json"))
        assert not allowed(call, request(**changed), everything, policy("bucket-policy.json"))


def test_the_policies_have_the_syntax_of_iam() -> None:
    for name in ("control-plane-policy.json", "bucket-policy.json"):
        read = policy(name)
        assert set(read) == {"Version", "Statement"}
        assert read["Version"] == "2012-10-17"
        for one in read["Statement"]:
            wanted = {"Sid", "Effect", "Action", "Resource"} | (
                {"Principal"} if name == "bucket-policy.json" else set()
            )
            assert wanted <= set(one) <= wanted | {"Condition"}
            assert one["Sid"].isalnum()
            assert one["Effect"] in {"Allow", "Deny"}
            assert all(text.startswith("s3:") for text in listed(one["Action"]))
            assert all(text.startswith(f"arn:aws:s3:::{BUCKET}") for text in listed(one["Resource"]))


def test_the_lifecycle_rule_is_the_one_that_doctor_asks_for() -> None:
    rules = policy("lifecycle.json")
    assert with_our_rule(rules, "uploads/") == rules


def test_apply_fills_in_every_file_and_calls_nothing_unknown(tmp_path: Path) -> None:
    """With a program in place of `aws`: the documents arrive whole."""
    stub = tmp_path / "aws"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$2 $*" >>"$LOG"\n[ "$2" != head-bucket ]\n')
    stub.chmod(0o755)
    log = tmp_path / "calls"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log)}
    command = [str(FOLDER / "apply"), BUCKET, ACCOUNT, "eu-central-1"]
    subprocess.run(command, env=environment, check=True, timeout=60)
    text = log.read_text()
    for call in ("create-bucket", "put-public-access-block", "put-bucket-encryption", "put-role-policy"):
        assert f"{call} " in text
    assert ROLE in text
    assert "BUCKET" not in text
    assert "ACCOUNT" not in text
