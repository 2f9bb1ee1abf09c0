"""`backhaul mqtt trigger --print`: a command with granted URLs in it, for a person with any MQTT client.

Rule: the upload is in the state file before anything exists in the object store, so that `backhaul mqtt resume`
completes it, or removes it.
"""

import json
import shlex
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from control_plane.bootstrap import file_database, policy_of
from control_plane.cli.errors import Failed, Misused
from control_plane.cli.mqtt.engine import PRINCIPAL, Direct, cli_errors, load_settings, new_owner, running
from control_plane.cli.mqtt.request import UploadRequest
from control_plane.cli.mqtt.run import file_of
from control_plane.cli.mqtt.state_file import held, state_path, state_step
from control_plane.cli.output import CliOutput
from control_plane.cli.program import command_line
from control_plane.cli.rest.progress import Lines
from control_plane.domain.uploads.events import MultipartCreated
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.commands import build_granted_download
from control_plane.services.errors import ClientRefused, ServiceError
from control_plane.services.policy import name_beside
from control_plane.settings import Settings
from schemas.codec import encode
from schemas.messages import ListFiles
from schemas.parts import PartPlan, plan_parts
from schemas.topics import Topics
from schemas.values import DigestName


async def granted_command(
    output: CliOutput, request: UploadRequest, state: Path | None, file_size: int | None, *, trust_first: bool = False
) -> dict[str, Any]:
    """The command, with its upload kept and its parts granted; standard error explains how to publish it."""
    settings = load_settings()
    if file_size is not None:
        # First of all: a size that S3 does not allow needs no connection to be refused.
        plan_parts(file_size, settings.s3_chunk_size)
    path = state_path(request.upload_id, state)
    if path.exists():
        text = f"{path} holds an upload already: name another file"
        raise Misused(text)
    database, policy, display = file_database(), policy_of(settings, owner=new_owner()), Lines(output)
    with held(path), cli_errors():
        async with running(
            settings, database, policy, key=request.key, note=display.note, performs=False, trust_first=trust_first
        ) as direct:
            if file_size is not None and request.file_path is not None:
                size, file_path = file_size, request.file_path
            else:
                # The path first: it waits for the presence of the client, without which the size cannot be requested.
                file_path = await file_of(direct, request, display)
                size = file_size if file_size is not None else await size_of(direct, request.client_id, file_path)
            database.path = path
            try:
                upload = await open_upload(direct, request, file_path, plan_parts(size, policy.chunk_size))
            except ServiceError:
                output.note(f"what may have been made is kept: `{state_step('cancel', request.upload_id, path)}`")
                raise
            grant = direct.engine.signer.pre_grant(upload)
            command = build_granted_download(upload, grant, direct.object_store.bucket)
    _explain(output, settings, upload, path)
    printed: dict[str, Any] = json.loads(encode(command))
    return printed


async def size_of(direct: Direct, client_id: str, file_path: str) -> int:
    """The file's size (bytes) from its client, since every URL is signed for the size of its part; `Failed`."""
    escaped = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in file_path)
    try:
        listed = await direct.engine.client_service.files(PRINCIPAL, client_id, ListFiles(pattern=escaped, limit=1))
    except ClientRefused as error:
        text = f"{client_id} does not list {file_path!r} ({error}): say its size with --size"
        raise Failed(text) from error
    sizes = [entry.size for entry in listed.files if entry.path == file_path]
    if not sizes:
        text = f"{client_id} lists no file {file_path!r} (if it may not, say --size)"
        raise Failed(text)
    return sizes[0]


async def open_upload(direct: Direct, request: UploadRequest, file_path: str, plan: PartPlan) -> Upload:
    """Commit the upload in the state after its offer, create its multipart upload, and commit the id of that.

    Two commits, since creating a multipart upload is not idempotent: after a crash between the two, what exists in the
    object store is found by the object key of the row.
    """
    planned = replace(
        request.upload(direct.policy, direct.engine.probe.capabilities, file_path, direct.engine.clock.now()),
        state=State.DISPATCHED,
        digest=DigestName.NONE,
        chunk_size=plan.part_size,
        file_size=plan.file_size,
        part_size=plan.part_size,
        client_busy=True,
    )
    adopted = await direct.engine.adopt(planned)
    name = name_beside(adopted.s3_key, adopted.file_path)
    s3_upload_id = await direct.object_store.create_multipart(
        adopted.s3_key, adopted.object_token, adopted.digest, file_name=name
    )
    created = MultipartCreated(now=direct.engine.clock.now(), attempt=adopted.attempt, s3_upload_id=s3_upload_id)
    return await direct.engine.uploads.submit(adopted.key, created)


def _explain(output: CliOutput, settings: Settings, upload: Upload, path: Path) -> None:
    topics, (host, port, _) = Topics(settings.topic_root), settings.mqtt_address
    broker = f"-V 5 -h {shlex.quote(host)} -p {port} -i"
    what = f"-q 1 -t {shlex.quote(topics.command(upload.client_id))} -f command.json"
    if settings.operator_key_file is not None:
        what = f"$({command_line('mqtt', 'sign', about=[upload.client_id, 'command.json'])})"
    for line in (
        f"Its URLs live {settings.presigned_url_expiry} s. Save it as command.json and publish it:",
        f"  mosquitto_pub {broker} cli-by-hand {what}",
        "The answers:",
        f"  mosquitto_sub {broker} cli-listener -t {shlex.quote(topics.response(upload.client_id))}",
        "When the answer says success, complete it (this also continues where it stopped):",
        f"  {state_step('resume', upload.upload_id, path)}",
        "or by hand, with the etags of that answer:",
        f"  {_completion(settings, upload)}",
    ):
        output.note(line)


def _completion(settings: Settings, upload: Upload) -> str:
    endpoint = ("--endpoint-url", settings.aws_endpoint) if settings.aws_endpoint else ()
    arguments = (
        *("aws", "s3api", "complete-multipart-upload", *endpoint),
        *("--bucket", settings.s3_bucket_name, "--key", upload.s3_key, "--upload-id", upload.s3_upload_id or ""),
        *("--multipart-upload", '{"Parts":[{"PartNumber":1,"ETag":"..."}]}'),
    )
    return shlex.join(arguments)
