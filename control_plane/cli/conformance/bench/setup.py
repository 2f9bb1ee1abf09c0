"""Puts a bench up: broker, tap, object stores, files, and the agent's process where the kit has its command.

Rule: what the settings name is used; what they do not name is started on this machine, and ends with the command.
"""

import importlib.util
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from broker.errors import BrokerError
from broker.server import start_broker
from control_plane.adapters.folder_store import start_folder_store
from control_plane.cli.conformance.bench.owner import Owner
from control_plane.cli.conformance.bench.samples import Samples
from control_plane.cli.conformance.bench.site import AgentProgram, Bench
from control_plane.cli.conformance.bench.store import Elsewhere, PutStore
from control_plane.cli.conformance.bench.tap import Tap
from control_plane.cli.conformance.bench.transcript import Transcript
from control_plane.cli.conformance.catalogue import FOLDER, LONG, PROCESS, STORE
from control_plane.cli.errors import Failed, Misused
from control_plane.cli.site.stack import BUCKET, BrokerKind
from control_plane.services.errors import ServiceError
from control_plane.settings import Settings
from schemas.broker_url import BrokerUrl
from schemas.topics import Topics

_CONNECT = 10.0
DEFAULT_FILE = "default.bin"
_DEFAULT_SIZE = 100_000


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What a person requests. Ports 0 are free ones; `command` is the agent's, empty when it is started by hand."""

    client_id: str
    directory: Path
    folder: Path | None = None
    device_file: str | None = None
    listen: str = "127.0.0.1"
    mqtt_port: int = 0
    store_port: int = 0
    broker_kind: BrokerKind = "auto"
    patience: float = 15.0
    long: bool = False
    command: tuple[str, ...] = ()


@asynccontextmanager
async def bench_of(options: BenchOptions, settings: Settings, *, real_store: bool) -> AsyncIterator[Bench]:
    """A bench. Without `real_store` no object store is used or started beside the kit's own.

    `Failed` when something does not start, `Misused` for an option that cannot be used, `Unreachable` without a broker.
    """
    async with AsyncExitStack() as stack:
        broker = _broker(options, settings, stack)
        store_settings = _store(options, settings, broker, stack) if real_store else None
        transcript = Transcript()
        bench = Bench(
            client_id=options.client_id,
            topics=Topics(settings.topic_root),
            patience=options.patience,
            transcript=transcript,
            tap=Tap(broker, transcript),
            store=PutStore(transcript),
            elsewhere=Elsewhere(transcript.touch),
            owner=Owner(broker, settings.mqtt_username, _plain(settings.mqtt_password)),
            samples=_samples(options),
            real_store=store_settings,
        )
        stack.push_async_callback(bench.stop)
        try:
            await bench.tap.start(options.listen, options.mqtt_port)
            await bench.store.start(options.listen, options.store_port, options.listen)
            await bench.elsewhere.start(options.listen)
        except OSError as error:
            text = f"--listen {options.listen}: {error.strerror or error}"
            raise Misused(text) from error
        await bench.owner.connect(_CONNECT)
        bench.parts = frozenset(
            part
            for part, given in (
                (FOLDER, bench.samples.folder is not None),
                (PROCESS, options.command),
                (STORE, store_settings is not None),
                (LONG, options.long),
            )
            if given
        )
        if options.command:
            bench.program = _program(options, agent_settings(bench))
            bench.program.start()
        yield bench


def agent_settings(bench: Bench) -> dict[str, str]:
    """The settings with which an agent comes to this bench."""
    host = bench.store.origin.removeprefix("http://").rpartition(":")[0]
    hosts = [f"{bench.store.origin}/"]
    if bench.real_store is not None:
        hosts.append(_origin(bench.real_store))
    roots = {} if bench.samples.folder is None else {"ALLOWED_ROOTS": str(bench.samples.folder)}
    return {
        "CLIENT_ID": bench.client_id,
        "MQTT_URL": f"mqtt://{host}:{bench.tap.port}",
        "UPLOAD_HOSTS": ",".join(hosts),
        **roots,
    }


def _origin(settings: Settings) -> str:
    """Where the URLs of the real object store lead."""
    endpoint = settings.s3_public_endpoint or settings.aws_endpoint
    if endpoint:
        return f"{endpoint.rstrip('/')}/"
    return f"https://{settings.s3_bucket_name}.s3.{settings.aws_region}.amazonaws.com/"


def _broker(options: BenchOptions, settings: Settings, stack: AsyncExitStack) -> BrokerUrl:
    if "mqtt_url" in settings.model_fields_set:
        broker_url = BrokerUrl.parse(settings.mqtt_url)
        if broker_url.path is not None:
            text = "the bench stands between agent and broker, and speaks no WebSockets: give mqtt:// or mqtts://"
            raise Failed(text)
        return broker_url
    try:
        broker = stack.enter_context(start_broker(options.directory / "broker", kind=options.broker_kind))
    except BrokerError as error:
        raise Failed(str(error)) from error
    return BrokerUrl.parse(broker.address.url)


def _store(options: BenchOptions, settings: Settings, broker: BrokerUrl, stack: AsyncExitStack) -> Settings | None:
    """The settings of the engine: the object store that is named, or one that is started."""
    at_broker = {"mqtt_url": broker.url}
    if "s3_bucket_name" in settings.model_fields_set:
        return settings.model_copy(update=at_broker)
    if importlib.util.find_spec("nanio") is None:
        return None
    try:
        store = stack.enter_context(start_folder_store(options.directory / "store", address=options.listen))
    except ServiceError as error:
        raise Failed(str(error)) from error
    return settings.model_copy(
        update={
            **at_broker,
            "aws_endpoint": store.endpoint,
            "aws_access_key_id": store.credentials.access_key,
            "aws_secret_access_key": SecretStr(store.credentials.secret_key),
            "s3_bucket_name": BUCKET,
        }
    )


def _samples(options: BenchOptions) -> Samples:
    if options.device_file is not None:
        return Samples(None, options.device_file)
    folder = (options.folder or options.directory / "files").resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"--folder {folder}: {error.strerror}"
        raise Misused(text) from error
    return Samples(folder, None)


def _program(options: BenchOptions, settings: dict[str, str]) -> AgentProgram:
    program = shutil.which(options.command[0])
    if program is None:
        text = f"{options.command[0]}: no such program"
        raise Misused(text)
    state = options.directory / "state"
    state.mkdir(parents=True, exist_ok=True)
    more = {"STATE_DIR": str(state)}
    if roots := settings.get("ALLOWED_ROOTS"):
        default = Path(roots) / DEFAULT_FILE
        default.write_bytes(bytes(_DEFAULT_SIZE))
        more["FILE_PATH"] = str(default)
    # In the folder in which the command was typed: its arguments may be relative paths.
    command = ("/bin/sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", str(Path.cwd()), program, *options.command[1:])
    return AgentProgram(command, {**settings, **more}, options.directory)


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
