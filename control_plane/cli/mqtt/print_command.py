"""`backhaul mqtt trigger --print`: a command whose URLs are granted already, for anyone with an MQTT client.

Rule: the upload is kept as our own from the first moment, so that `backhaul mqtt resume` completes it, or removes it.
"""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from control_plane.bootstrap import file_database, policy_of
from control_plane.cli.errors import Failed, Misused
from control_plane.cli.mqtt.direct_commands import cli_errors
from control_plane.cli.mqtt.engine import PRINCIPAL, Direct, load_settings, new_owner, running
from control_plane.cli.mqtt.run import Wanted, known_client, new_upload
from control_plane.cli.mqtt.state_file import held, state_path
from control_plane.cli.output import CliOutput
from control_plane.cli.rest.progress import Lines
from control_plane.cli.site.operator_env import program
from control_plane.domain.uploads.model import State, Upload
from control_plane.services.errors import ClientRefused, ServiceError
from control_plane.services.ports.object_store import Grantable
from control_plane.settings import Settings
from schemas.codec import GRANT_FILL_SIZE, encode
from schemas.messages import Command, DownloadFile, ListFiles, UploadConfig
from schemas.parts import PartPlan, plan_parts
from schemas.topics import Topics
from schemas.values import Action, DigestName, PresignedPart

_JSON_AROUND_URL: Final = 128


async def pre_granted(output: CliOutput, wanted: Wanted, state: Path | None, file_size: int | None) -> dict[str, Any]:
    """The command, kept and granted; how to publish and complete it is said on standard error."""
    settings = load_settings()
    if file_size is not None:
        # Here already: nothing has to be reached to say that S3 takes no such file.
        plan_parts(file_size, settings.s3_chunk_size)
    path = state_path(wanted.upload_id, state)
    if path.exists():
        text = f"{path} holds an upload already: name another file"
        raise Misused(text)
    store, policy, display = file_database(), policy_of(settings, owner=new_owner()), Lines(output)
    with held(path), cli_errors():
        async with running(settings, store, policy, about=wanted.key, note=display.note) as direct:
            file_path = wanted.file_path or await _default_file(direct, wanted.client_id, display)
            size = file_size if file_size is not None else await size_of(direct, wanted.client_id, file_path)
            try:
                upload = await opened(direct, wanted, file_path, plan_parts(size, policy.chunk_size), path)
            except ServiceError:
                output.note(f"what may have been made is kept in {path}: `{program()} mqtt cancel {wanted.upload_id}`")
                raise
            command = _command(direct, upload)
    _explain(output, settings, upload)
    printed: dict[str, Any] = json.loads(encode(command))
    return printed


async def _default_file(direct: Direct, client_id: str, display: Lines) -> str:
    client = await known_client(direct, client_id, display)
    if client.default_file is None:
        text = f"client {client_id!r} has no default file: name a path"
        raise Misused(text)
    return client.default_file


async def size_of(direct: Direct, client_id: str, file_path: str) -> int:
    """The file's size, as its client tells it: every URL is signed for the length of its part; `Failed`."""
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


async def opened(direct: Direct, wanted: Wanted, file_path: str, plan: PartPlan, path: Path) -> Upload:
    """The upload as if its offer had come and its multipart upload were made, told to nobody yet, and kept in `path`.

    Its row is kept before the multipart upload is made, and again with that one's id: to make it is not idempotent, and
    what a crash leaves between the two is found by the row's key.
    """
    planned = replace(
        new_upload(wanted, direct.policy, file_path, direct.engine.clock.now()),
        state=State.DISPATCHED,
        digest=DigestName.NONE,
        chunk_size=plan.part_size,
        file_size=plan.file_size,
        part_size=plan.part_size,
        client_busy=True,
    )
    direct.store.path = path
    await direct.store.write(lambda records: records.uploads.add(planned))
    s3_upload_id = await direct.objects.create_multipart(planned.s3_key, planned.object_token, planned.digest)
    made = replace(planned, s3_upload_id=s3_upload_id)
    return await direct.store.write(lambda records: records.uploads.save(planned, made))


def _command(direct: Direct, upload: Upload) -> Command:
    config = UploadConfig(
        upload_id=upload.upload_id,
        attempt=upload.attempt,
        owner=upload.owner,
        digest=upload.digest,
        chunk_size=upload.chunk_size,
        bucket=direct.objects.bucket,
        key=upload.s3_key,
        presigned_urls=_signed(direct, upload),
    )
    payload = DownloadFile(
        upload_config=config, file_path=upload.file_path, options=upload.options, metadata=dict(upload.metadata)
    )
    return Command(message_id=upload.message_id, action=Action.DOWNLOAD_FILE, payload=payload)


def _signed(direct: Direct, upload: Upload) -> tuple[PresignedPart, ...]:
    """URLs for the first parts, as many as a message holds; the agent asks for more, and `resume` answers."""
    plan, s3_upload_id = upload.plan, upload.s3_upload_id
    assert plan is not None and s3_upload_id is not None  # noqa: PT018, S101 - for the type checker: just opened
    signed: list[PresignedPart] = []
    size = 0
    lifetime = direct.objects.url_lifetime(direct.policy.url_expiry)
    for part in plan:
        grantable = Grantable(part.number, part.size, None, lifetime)
        signed.append(direct.objects.presign_part(upload.s3_key, s3_upload_id, grantable, upload.digest))
        size += len(signed[-1].url) + _JSON_AROUND_URL
        if size > GRANT_FILL_SIZE:
            break
    return tuple(signed)


def _explain(output: CliOutput, settings: Settings, upload: Upload) -> None:
    topics, (host, port, _) = Topics(settings.topic_root), settings.mqtt_address
    broker = f"-V 5 -h {host} -p {port} -i"
    for line in (
        f"Its URLs live {settings.presigned_url_expiry} s. Save it as command.json and publish it:",
        f"  mosquitto_pub {broker} cli-by-hand -q 1 -t {topics.command(upload.client_id)} -f command.json",
        "The answers:",
        f"  mosquitto_sub {broker} cli-listener -t {topics.response(upload.client_id)}",
        "When the answer says success, complete it (this also goes on where it stopped):",
        f"  {program()} mqtt resume {upload.upload_id}",
        "or by hand, with the etags of that answer:",
        f"  {_completion(settings, upload)}",
    ):
        output.note(line)


def _completion(settings: Settings, upload: Upload) -> str:
    endpoint = ("--endpoint-url", settings.aws_endpoint) if settings.aws_endpoint else ()
    words = (
        *("aws", "s3api", "complete-multipart-upload", *endpoint),
        *("--bucket", settings.s3_bucket_name, "--key", upload.s3_key, "--upload-id", upload.s3_upload_id or ""),
        *("--multipart-upload", '{"Parts":[{"PartNumber":1,"ETag":"..."}]}'),
    )
    return shlex.join(words)
