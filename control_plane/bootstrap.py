"""The composition root of every program: the server, the doctor and the direct command line.

Rule: the only module that names adapters. The server's lifespan owns one TaskGroup: when one of its loops ends with an
error, the program ends with that error.
"""

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from control_plane.adapters.clocks import SystemClock
from control_plane.adapters.memory.database import FileDatabase
from control_plane.adapters.mqtt.messenger import MqttMessenger, MqttSettings
from control_plane.adapters.object_store import ProbeMemory, S3ObjectStore, S3Settings
from control_plane.domain.jobs.four_eyes import OFF
from control_plane.services.commands import CommandPublisher
from control_plane.services.diagnosis.doctor import Doctor
from control_plane.services.diagnosis.findings import Finding
from control_plane.services.diagnosis.store import StoreDoctor
from control_plane.services.engine import Engine, Ports, build_engine
from control_plane.services.events.streams import EventStreams
from control_plane.services.inbox import UploadScope
from control_plane.services.jobs.results.reader import JobResults
from control_plane.services.jobs.results.report import ReportWriter
from control_plane.services.jobs.service import JobService
from control_plane.services.policy import DAY, Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Messenger
from control_plane.services.ports.tracing import Tracer
from control_plane.services.tracing import NO_TRACES
from control_plane.services.trust.keyring import ControlPlaneKey
from control_plane.services.trust.sessions import ClientSessions
from control_plane.settings import DATABASE_NAME, Settings, SettingsError, data_directory
from schemas.messages import Presence
from schemas.topics import CONTROL_PLANE, Topics
from schemas.values import DigestName

if TYPE_CHECKING:
    from fastapi import FastAPI

    from control_plane.api.auth import TokenIssuer
    from control_plane.domain.audit.notes import NoteSigner
    from control_plane.services.audit.keeper import CheckpointBucket
    from control_plane.services.devices.requests import EnrollmentRequests
    from control_plane.services.devices.service import DeviceService
    from control_plane.services.trust.service import TrustService
    from schemas.signing.ed25519 import Signer

AUDIT_KEY_NAME = "audit-key.json"
"""The name of the key that signs the audit, beside the database."""

SIGNING_KEY_NAME = "signing-key.json"
"""The name of the key that signs commands, beside the database."""

_RECEIPTS = {"bucket": True, "database": False, "off": None}

Loop = Callable[[], Coroutine[Any, Any, None]]
"""Runs until it is cancelled."""


def policy_of(settings: Settings, *, owner: str = CONTROL_PLANE, require_proof: bool = True) -> Policy:
    """How the settings want the services to behave; `require_proof` False overrides REQUIRE_PROOF."""
    return Policy(
        owner=owner,
        topic_root=settings.topic_root,
        base_path=settings.base_s3_path,
        chunk_size=settings.s3_chunk_size,
        digest=None if settings.s3_digest == "auto" else DigestName(settings.s3_digest),
        url_expiry=float(settings.presigned_url_expiry),
        step_timeout=float(settings.client_timeout),
        require_proof=settings.require_proof and require_proof,
        history=settings.history_days * DAY,
        max_uploads=settings.client_max_uploads,
        # A person who runs the direct command line chose the one file that it uploads.
        max_bytes=settings.client_max_bytes if owner == CONTROL_PLANE else None,
        max_job_files=settings.max_job_files,
        receipts=_RECEIPTS[settings.receipts] if owner == CONTROL_PLANE else None,
        # The direct command line judges messages before its engine has them (`cli.mqtt.verifying`).
        require_signed=settings.require_signed and owner == CONTROL_PLANE,
        four_eyes=settings.four_eyes if owner == CONTROL_PLANE else OFF,
    )


def s3_settings_of(settings: Settings) -> S3Settings:
    """Which bucket, and how to reach it."""
    return S3Settings(
        bucket=settings.s3_bucket_name,
        region=settings.aws_region,
        access_key=settings.aws_access_key_id,
        secret_key=_plain(settings.aws_secret_access_key),
        session_token=_plain(settings.aws_session_token),
        endpoint=settings.aws_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        base_path=settings.base_s3_path,
        encryption=settings.s3_encryption,
        addressing=settings.s3_addressing,
        digest=settings.s3_digest,
    )


def create_app(settings: Settings) -> "FastAPI":
    """The whole control plane as one ASGI application; the database is opened, and migrated, at once.

    `DatabaseUnavailable` when the database cannot be used. Broker and object store may be away: the loops retry.
    """
    # Deferred: these need the extra `server`, and the direct command line runs without it.
    from control_plane.adapters.database.watching.examination import SqlExaminer
    from control_plane.adapters.webhooks import HttpWebhookSender
    from control_plane.api.app import ApiServices, create_api
    from control_plane.api.events.frames import FRAMES
    from control_plane.gauges import FleetGauges
    from control_plane.observability import Metrics
    from control_plane.presentation import cloud_event_json
    from control_plane.services.audit.denials import Denials
    from control_plane.services.audit.keeper import AuditKeeper
    from control_plane.services.audit.service import AuditService
    from control_plane.services.diagnosis.keys import judged as key_findings
    from control_plane.services.diagnosis.server import ServerDiagnosis
    from control_plane.services.events.webhooks.dispatcher import WebhookDispatcher
    from control_plane.services.events.webhooks.service import WebhookService
    from control_plane.services.overview.replicas import ReplicaList
    from control_plane.services.receipts.service import ReceiptService
    from control_plane.services.schedules.jobs import check_job, forecast_job, machine
    from control_plane.services.schedules.runner import ScheduleRunner
    from control_plane.services.schedules.service import ScheduleService
    from control_plane.services.sessions.service import SessionService
    from control_plane.services.sessions.tokens import TokenService

    metrics = Metrics()
    parts = _build(settings, metrics)
    engine = parts.engine
    metrics.show(FleetGauges(parts.database, engine.clock, parts.messenger, engine.probe))
    streams = EventStreams(parts.database, engine.clock, metrics, FRAMES)
    sender = HttpWebhookSender(settings.webhook_network_list)
    dispatcher = WebhookDispatcher(
        parts.database,
        engine.clock,
        metrics,
        sender,
        partial(cloud_event_json, source=f"backhaul/{settings.topic_root}"),
    )
    webhooks = WebhookService(parts.database, engine.clock, sender, on_change=dispatcher.poke)
    reports = ReportWriter(parts.database, parts.object_store, engine.clock, metrics, base_path=settings.base_s3_path)
    runner = engine.jobs
    assert runner is not None  # noqa: S101 - the database is one of SQL
    signer = _audit_signer(settings, metrics)
    denials = Denials(parts.database, engine.clock, metrics)
    keeper = AuditKeeper(
        parts.database,
        engine.clock,
        metrics,
        signer=signer,
        origin=f"backhaul/{settings.topic_root}/audit",
        kept_for=settings.history_days * DAY,
        time_is_sure=engine.maintenance.time_is_sure,
        bucket=_locked_bucket(settings, engine.clock),
    )
    replicas = ReplicaList(parts.database, engine.clock, version("backhaul"))
    tokens = TokenService(parts.database, engine.clock, settings.max_token_lifetime)
    devices = _devices_of(settings, parts, metrics)
    trust = parts.trust
    parts.messenger.on_connected(trust.publish)
    services = ApiServices(
        uploads=engine.upload_service,
        clients=engine.client_service,
        budgets=engine.budget_service,
        fleet=engine.fleet_service,
        jobs=JobService(
            database=parts.database,
            clock=engine.clock,
            beats=engine.beats,
            tools=runner.tools,
            poke=runner.poke,
            sets=engine.chooser.sets,
            four_eyes=settings.four_eyes,
        ),
        receipts=ReceiptService(
            uploads=engine.upload_service,
            database=parts.database,
            object_store=parts.object_store,
            probe=engine.probe,
            clock=engine.clock,
            log=metrics,
            policy=policy_of(settings),
            is_witness=partial(
                _is_witness, frozenset({trust.key.signer.verifier.text, *settings.receipt_key_list}), trust
            ),
        ),
        job_results=JobResults(parts.database, engine.ports.object_store, engine.clock),
        streams=streams,
        webhooks=webhooks,
        schedules=ScheduleService(
            database=parts.database,
            clock=engine.clock,
            jobs=machine(settings.four_eyes),
            check=check_job,
            forecast=forecast_job,
            on_made=runner.poke,
        ),
        overview=engine.overview_service,
        replicas=replicas,
        audit=AuditService(parts.database, engine.clock, signer.verifier.text, settings.audit_bucket),
        denials=denials,
        sessions=SessionService(parts.database, engine.clock, _plain(settings.jwt_secret)),
        tokens=tokens,
        devices=devices,
        enrollments=_enrollments_of(settings, parts, metrics, devices),
        trust=trust,
        readiness=engine.readiness,
        diagnosis=ServerDiagnosis(
            database=parts.database,
            facts=SqlExaminer(settings.database).facts,
            messenger=parts.messenger,
            probe=engine.probe,
            store=StoreDoctor(
                parts.object_store,
                engine.clock,
                policy_of(settings),
                database=parts.database,
                bucket=parts.object_store,
            ),
            clock=engine.clock,
            keys=lambda: key_findings(trust.trust, engine.clock.now(), trust.key.kid),
        ),
        clock=engine.clock,
    )
    schedules = ScheduleRunner(
        parts.database,
        engine.clock,
        metrics,
        jobs=machine(settings.four_eyes),
        time_is_sure=engine.maintenance.time_is_sure,
        history=settings.history_days * DAY,
        on_made=runner.poke,
    )
    app = create_api(
        settings, metrics, services, issuer=_issuer_of(settings, engine.clock), spans=parts.tracer.provider
    )
    services_of_loops = (denials, keeper, streams, dispatcher, reports, schedules, replicas, tokens, trust)
    loops = [one.run for one in services_of_loops]
    app.router.lifespan_context = lambda _: _running(settings, parts, metrics, loops)
    return app


def _is_witness(known: frozenset[str], trust: "TrustService", public_key: str) -> bool:
    """Whether a receipt may be signed with this key: one that is known here, or that a pinned root leads to."""
    return public_key in known or trust.lists_witness(public_key)


def _devices_of(settings: Settings, parts: "_Parts", log: EventLog) -> "DeviceService":
    """The use cases of devices; `SettingsError` when DEVICE_CA_FILE cannot be read."""
    from control_plane.adapters.mosquitto import MosquittoAccounts
    from control_plane.services.devices.service import DeviceService, Reachable

    accounts, pid_file = None, settings.broker_pid_file
    if settings.broker_access is not None:
        accounts = MosquittoAccounts(
            Path(settings.broker_access), None if pid_file is None else Path(pid_file), Topics(settings.topic_root)
        )
    try:
        ca = None if settings.device_ca_file is None else Path(settings.device_ca_file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        text = f"DEVICE_CA_FILE: {settings.device_ca_file}: {getattr(error, 'strerror', None) or 'it is no text'}"
        raise SettingsError(text) from error
    return DeviceService(
        database=parts.database,
        clock=parts.engine.clock,
        log=log,
        pins=parts.engine.pins,
        clearer=parts.engine.clearer,
        uploads=parts.engine.upload_service,
        place=Reachable(settings.device_mqtt_url or settings.mqtt_url, settings.topic_root, ca),
        accounts=accounts,
        root=lambda: None if parts.trust.trust is None else parts.trust.trust.roots[0],
    )


def _enrollments_of(
    settings: Settings, parts: "_Parts", log: EventLog, devices: "DeviceService"
) -> "EnrollmentRequests | None":
    """The requests of devices by code; None unless ENROLL is on."""
    from control_plane.services.devices.requests import EnrollmentRequests

    if settings.enroll == "off":
        return None
    return EnrollmentRequests(parts.database, parts.engine.clock, log, parts.engine.pins, devices)


def _audit_signer(settings: Settings, log: EventLog) -> "NoteSigner":
    """What signs the audit: the key of `AUDIT_KEY_FILE`, as `_key_of` has it."""
    from control_plane.domain.audit.notes import NoteSigner

    return NoteSigner(
        f"backhaul/{settings.topic_root}", _key_of(settings, settings.audit_key_file, AUDIT_KEY_NAME, log)
    )


def _signing_key(settings: Settings, log: EventLog) -> ControlPlaneKey:
    """What signs commands and births: the key of `SIGNING_KEY_FILE`, as `_key_of` has it."""
    return ControlPlaneKey(_key_of(settings, settings.signing_key_file, SIGNING_KEY_NAME, log))


def _key_of(settings: Settings, given: str | None, name: str, log: EventLog) -> "Signer":
    """The key in the file `given`, else in one beside the database, made at the first start.

    A process that has no place for a file has a key that it forgets, and says so in the log. `SettingsError`.
    """
    from schemas.signing.ed25519 import SEED_SIZE, Signer
    from schemas.signing.key_files import KeyFileError, create_key, read_key

    setting = f"{name.split('-', maxsplit=1)[0].upper()}_KEY_FILE"
    try:
        place = _key_place(settings, given, name)
    except (SettingsError, OSError) as error:
        warning = f"no place for {name}: this key ends with this process, and what it signed verifies no more"
        log("key_file.failed", {"warning": warning, "set": setting, "error": str(error)})
        return Signer(os.urandom(SEED_SIZE))
    try:
        with suppress(FileExistsError):
            return create_key(place)
        return read_key(place)
    except (OSError, KeyFileError) as error:
        text = f"{setting}: {place}: {getattr(error, 'strerror', None) or error}"
        raise SettingsError(text) from error


def _key_place(settings: Settings, given: str | None, name: str) -> Path:
    """Where a key is; `SettingsError` or `OSError` where there is no place for it."""
    if given is not None:
        return Path(given).absolute()
    if settings.database.startswith("sqlite:///"):
        return Path(settings.database.removeprefix("sqlite:///")).absolute().with_name(name)
    folder = data_directory()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / name


def _locked_bucket(settings: Settings, clock: Clock) -> "CheckpointBucket | None":
    """Where checkpoints go beside the log; None without `AUDIT_BUCKET`."""
    if settings.audit_bucket is None:
        return None
    from control_plane.adapters.object_store.locked import LockedBucket

    store = dataclasses.replace(s3_settings_of(settings), bucket=settings.audit_bucket)
    return LockedBucket(store, clock, settings.history_days * DAY)


def database_place(settings: Settings) -> str:
    """Where the database is: the path of a file, or a server and a name; without credentials."""
    from control_plane.adapters.database.engines import parse_url, place

    return place(parse_url(settings.database))


async def examine(settings: Settings, *, fix: bool, probes: Path) -> list[Finding]:
    """What is wrong with these settings and their neighbours; `fix` repairs what can be repaired without loss.

    What the folder `probes` holds about this object store is replaced.
    """
    # Deferred: SQL needs the extra `server`.
    from control_plane.adapters.database.watching.examination import SqlExaminer
    from control_plane.adapters.mqtt.examination import MqttExaminer
    from control_plane.adapters.page import HttpPage
    from control_plane.services.diagnosis.keys import examine_keys

    _prepare_place(settings)
    object_store = S3ObjectStore(s3_settings_of(settings), ProbeMemory(probes))
    doctor = Doctor(
        database=SqlExaminer(settings.database),
        broker=MqttExaminer(_mqtt_settings_of(settings), Topics(settings.topic_root)),
        store=lambda database: StoreDoctor(
            object_store, SystemClock(), policy_of(settings), database=database, bucket=object_store
        ),
        page=HttpPage(settings.server_host, settings.server_port),
        keys=lambda database: examine_keys(database, Topics(settings.topic_root).keys(), SystemClock().now()),
    )
    try:
        object_store.forget_probe()
        return await doctor.examine(fix=fix)
    finally:
        await object_store.close()


def direct_messenger(
    settings: Settings, log: EventLog, *, identifier: str, only_client: str | None = None
) -> MqttMessenger:
    """A connection of the command line to the broker, as `identifier`; it publishes no birth to the fleet."""
    mqtt = MqttSettings(
        url=settings.mqtt_url,
        username=settings.mqtt_username,
        password=_plain(settings.mqtt_password),
        identifier=identifier,
        only_client=only_client,
        announces=False,
        certificate=settings.mqtt_certificate,
        key=settings.mqtt_key,
    )
    return MqttMessenger(mqtt, Topics(settings.topic_root), log)


def operator_key(settings: Settings) -> ControlPlaneKey | None:
    """The key of `OPERATOR_KEY_FILE`, with which the command line signs; None without one. `SettingsError`."""
    if settings.operator_key_file is None:
        return None
    # Deferred: only an operator of signed devices needs PyNaCl here.
    from schemas.signing.key_files import KeyFileError, read_key

    try:
        return ControlPlaneKey(read_key(Path(settings.operator_key_file)))
    except (OSError, KeyFileError) as error:
        text = f"OPERATOR_KEY_FILE: {settings.operator_key_file}: {getattr(error, 'strerror', None) or error}"
        raise SettingsError(text) from error


def command_publisher(settings: Settings, messenger: Messenger, presence: Presence | None = None) -> CommandPublisher:
    """Publishes single commands of the command line, without an engine.

    Signed with the operator's key for the session of `presence`, the client's latest, if both are there.
    `SettingsError` when the key cannot be read.
    """
    sessions = ClientSessions(FileDatabase())
    if presence is not None:
        sessions.begin(presence)
    topics, key = Topics(settings.topic_root), operator_key(settings)
    return CommandPublisher(messenger, SystemClock(), topics=topics, key=key, sessions=sessions)


def file_database(path: Path | None = None) -> FileDatabase:
    """The database of one direct upload: what `path` holds and each later commit is written to; empty without one.

    `OSError` when the file cannot be read, `BadInput` when it is damaged.
    """
    if path is None:
        return FileDatabase()
    database = FileDatabase.load(path.read_bytes())
    database.path = path
    return database


@dataclass(frozen=True, slots=True)
class DirectEngine:
    """The control plane's engine in the command line; its maker runs it, and closes the object store."""

    engine: Engine
    object_store: S3ObjectStore


def direct_engine(
    settings: Settings,
    database: Database,
    messenger: Messenger,
    log: EventLog,
    policy: Policy,
    *,
    probes: Path,
    scope: UploadScope | None = None,
    performs: bool = True,
) -> DirectEngine:
    """An engine over these neighbours and the bucket of the settings; `scope` and `performs` as for `build_engine`.

    The results of probes are kept below the folder `probes`.
    """
    object_store = S3ObjectStore(s3_settings_of(settings), ProbeMemory(probes))
    ports = Ports(database, object_store, messenger, SystemClock(), key=operator_key(settings))
    return DirectEngine(build_engine(ports, log, policy, scope=scope, performs=performs), object_store)


@dataclass(frozen=True, slots=True)
class _Parts:
    database: Database
    object_store: S3ObjectStore
    messenger: MqttMessenger
    engine: Engine
    tracer: Tracer
    trust: "TrustService"


def _open_database(settings: Settings) -> Database:
    # Deferred: SQL needs the extra `server`.
    from control_plane.adapters.database import SqlDatabase

    _prepare_place(settings)
    return SqlDatabase.open(settings.database)


def _prepare_place(settings: Settings) -> None:
    """Make the folder of the database where no setting names another place; `SettingsError`."""
    if settings.database_url is not None:
        return
    _refuse_former_place(data_directory() / DATABASE_NAME)
    try:
        data_directory().mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        text = f"{error.filename}: {error.strerror}: set DATABASE_URL, or XDG_DATA_HOME"
        raise SettingsError(text) from error


def _refuse_former_place(database: Path) -> None:
    """`SettingsError` where an earlier version kept its database in the working folder, and a new one would be made."""
    former = Path(DATABASE_NAME).absolute()
    if former.exists() and not database.exists():
        hint = f"set DATABASE_URL=sqlite:///{former}, or move it to {database}"
        text = f"{former} is the database of an earlier version: {hint}"
        raise SettingsError(text)


def _build(settings: Settings, log: EventLog) -> _Parts:
    # Deferred: as `create_app`.
    from control_plane.services.trust.service import TrustService

    database = _open_database(settings)
    object_store = S3ObjectStore(s3_settings_of(settings))
    key = _signing_key(settings, log)
    messenger = MqttMessenger(_mqtt_settings_of(settings), Topics(settings.topic_root), log, sign=key.sign)
    tracer = _tracer_of(settings)
    ports = Ports(database, object_store, messenger, SystemClock(), tracer, key)
    topics = Topics(settings.topic_root)
    trust = TrustService(database, ports.clock, log, messenger, topics, key, settings.trust_root)
    engine = build_engine(ports, log, policy_of(settings), fleet=True, trust=lambda: trust.trust)
    engine.readiness.keys_problem = lambda: trust.problem
    return _Parts(database, object_store, messenger, engine, tracer, trust)


def _tracer_of(settings: Settings) -> Tracer:
    """What traces; `SettingsError` when the extra is missing."""
    if settings.otel_exporter_otlp_endpoint is None:
        return NO_TRACES
    # Deferred: the SDK is an extra, and takes memory.
    try:
        from control_plane.adapters.traces import OtelTracer, exporting
    except ImportError as error:
        text = f"OTEL_EXPORTER_OTLP_ENDPOINT: traces need their extra: pip install 'backhaul[otel]' ({error.name})"
        raise SettingsError(text) from error
    return OtelTracer(exporting(settings.otel_exporter_otlp_endpoint), version("backhaul"))


def _issuer_of(settings: Settings, clock: Clock) -> "TokenIssuer | None":
    """The OpenID provider of `OIDC_ISSUER`; None without one."""
    if settings.oidc_issuer is None:
        return None
    # Deferred: as `create_app`.
    from control_plane.adapters.issuer import read_document
    from control_plane.api.tokens.issuer import Issuer

    return Issuer(settings.oidc_issuer, settings.oidc_audience, settings.max_token_lifetime, clock, read_document)


def _mqtt_settings_of(settings: Settings) -> MqttSettings:
    return MqttSettings(
        url=settings.mqtt_url,
        username=settings.mqtt_username,
        password=_plain(settings.mqtt_password),
        certificate=settings.mqtt_certificate,
        key=settings.mqtt_key,
    )


@asynccontextmanager
async def _running(settings: Settings, parts: _Parts, log: EventLog, more: Sequence[Loop]) -> AsyncIterator[None]:
    if settings.open_to_all:
        log("auth.off", {"warning": "no JWT_SECRET: everyone who reaches this server may command every client"})
    try:
        # Before the first message is judged by them.
        await parts.engine.pins.load()
        await parts.trust.load()
        async with asyncio.TaskGroup() as group:
            receiving = parts.messenger.run(parts.engine.inbox.receive)
            loops = [group.create_task(loop) for loop in (parts.engine.run(), receiving, *(one() for one in more))]
            yield
            for loop in loops:
                loop.cancel()
    finally:
        await parts.object_store.close()
        await parts.database.close()
        # It may wait for a collector that does not answer.
        await asyncio.to_thread(parts.tracer.close)


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
