"""The composition root: settings in, a FastAPI application out. The only module that names the adapters.

Rule: the lifespan owns one TaskGroup; when one of the loops ends by a fault of ours, the program ends, loudly.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from pydantic import SecretStr

from control_plane.adapters.clocks import SystemClock
from control_plane.adapters.database import SqlDatabase
from control_plane.adapters.mqtt.messenger import MqttMessenger, MqttSettings
from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.api.app import create_api
from control_plane.observability import Metrics
from control_plane.services.doctor import Doctor, Finding
from control_plane.services.engine import Engine, Ports, build_engine
from control_plane.services.policy import DAY, Policy
from control_plane.settings import Settings
from schemas.topics import Topics


def policy_of(settings: Settings) -> Policy:
    """How the settings want the services to behave."""
    return Policy(
        topic_root=settings.topic_root,
        base_path=settings.base_s3_path,
        chunk_size=settings.s3_chunk_size,
        digest=settings.s3_digest,
        url_expiry=float(settings.presigned_url_expiry),
        step_timeout=float(settings.client_timeout),
        require_proof=settings.require_proof,
        history=settings.history_days * DAY,
    )


def s3_settings_of(settings: Settings) -> S3Settings:
    """Which bucket, and how to reach it."""
    return S3Settings(
        bucket=settings.s3_bucket_name,
        region=settings.aws_region,
        access_key=settings.aws_access_key_id,
        secret_key=_shown(settings.aws_secret_access_key),
        session_token=_shown(settings.aws_session_token),
        endpoint=settings.aws_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        base_path=settings.base_s3_path,
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    store: SqlDatabase
    objects: S3ObjectStore
    messenger: MqttMessenger
    engine: Engine


def create_app(settings: Settings) -> FastAPI:
    """The whole control plane as one ASGI application; the database is opened, and migrated, at once.

    `DatabaseUnavailable` when the database cannot be used. Broker and object store may be away: the loops retry.
    """
    metrics = Metrics()
    parts = _build(settings, metrics)
    engine = parts.engine
    app = create_api(
        settings,
        metrics,
        uploads=engine.upload_service,
        clients=engine.client_service,
        readiness=engine.readiness,
        clock=engine.clock,
    )
    app.router.lifespan_context = lambda _: _running(settings, parts, metrics)
    return app


async def examine(settings: Settings, *, fix: bool) -> list[Finding]:
    """What is wrong with the database and the object store of these settings; `fix` adds the lifecycle rule."""
    store = SqlDatabase.open(settings.database_url.get_secret_value())
    objects = S3ObjectStore(s3_settings_of(settings))
    try:
        return await Doctor(store, objects, SystemClock(), policy_of(settings)).examine(fix=fix)
    finally:
        await objects.close()
        await store.close()


def _build(settings: Settings, metrics: Metrics) -> _Parts:
    store = SqlDatabase.open(settings.database_url.get_secret_value())
    objects = S3ObjectStore(s3_settings_of(settings))
    mqtt = MqttSettings(url=settings.mqtt_url, username=settings.mqtt_username, password=_shown(settings.mqtt_password))
    messenger = MqttMessenger(mqtt, Topics(settings.topic_root), metrics)
    engine = build_engine(Ports(store, objects, messenger, SystemClock()), metrics, policy_of(settings))
    messenger.delivers_to(engine.inbox.hear)
    return _Parts(store, objects, messenger, engine)


@asynccontextmanager
async def _running(settings: Settings, parts: _Parts, metrics: Metrics) -> AsyncIterator[None]:
    if settings.open_to_all:
        metrics("auth.off", {"warning": "no JWT_SECRET: whoever reaches this server may command every client"})
    try:
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(parts.engine.run()), group.create_task(parts.messenger.run())]
            yield
            for loop in loops:
                loop.cancel()
    finally:
        await parts.objects.close()
        await parts.store.close()


def _shown(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
