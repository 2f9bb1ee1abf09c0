"""Builds the agent from its settings: the one place that connects the loop with sockets, files and threads.

Rule: wiring only. Tests build an `Environment` of their own instead.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent import VERSION
from device_agent.after.policy import AfterPolicy
from device_agent.agent import Agent, Environment
from device_agent.effects import EffectRunner
from device_agent.enrolment.bundle import store_trust
from device_agent.errors import TrustError
from device_agent.files.copies import Copies
from device_agent.files.own_files import OwnFiles
from device_agent.files.roots import Roots
from device_agent.inbox import (
    BirthArrived,
    CommandArrived,
    Connected,
    Disconnected,
    EventQueue,
    KeysArrived,
    RetryPlanned,
)
from device_agent.limits.limits import Limits, Readings, Rules
from device_agent.local.server import DecisionServer, LocalServer
from device_agent.local.socket_path import local_folders
from device_agent.mqtt.connection import Connection
from device_agent.mqtt.presence import PresenceBuilder
from device_agent.policy.rules import DEFAULT_POLICY, DevicePolicy
from device_agent.service_manager import Notifier
from device_agent.settings import Settings
from device_agent.state.consents import Consents
from device_agent.state.installation import Installation
from device_agent.state.journal import Journal
from device_agent.state.selections import KeptSelections
from device_agent.storage.throttle import Throttle
from device_agent.storage.uploader import Uploader
from device_agent.system_info import disk_space, system_info, system_timezone
from device_agent.trust.mode import is_signed
from device_agent.watching.exporter import Exporter
from device_agent.workers.part_io import PartIO

if TYPE_CHECKING:
    from device_agent.trust.signing import DeviceSigning
    from schemas.signing.enrolment import Bundle

log = logging.getLogger(__name__)


@contextmanager
def open_agent(
    settings: Settings,
    own_files: Sequence[Path],
    policy: DevicePolicy = DEFAULT_POLICY,
    bundle: "Bundle | None" = None,
) -> Iterator[Agent]:
    """The agent over its state folder, which stays locked meanwhile; `JournalError` when it cannot be used.

    `TrustError` when the root of trust in it, or the key of this device, cannot be used.
    `own_files` are the files and folders that settings are read from, where they exist: they are never uploaded.
    `bundle` is that of the enrolment: its root of trust is stored.
    """
    journal, transfers = Journal.open(settings.state_dir)
    try:
        log.info("backhaul-agent %s: client_id=%s, %d uploads", VERSION, settings.client_id, len(transfers))
        if journal.dropped:
            log.warning("the last %d bytes of the journal are not a whole record and are ignored", journal.dropped)
        if bundle is not None:
            store_trust(bundle, settings.state_dir, settings.topics.keys())
        installation = Installation.open(settings.state_dir)
        environment = environment_of(settings, own_files, policy)
        _log_mode(environment.signing, policy)
        agent = Agent(settings, journal, transfers, installation, environment)
        folders, put = local_folders(settings.state_dir, os.environ), environment.inbox.put
        # Without a class there is nothing to decide, and no thread for it.
        decisions = DecisionServer(folders, put) if policy.document.classes else nullcontext()
        with LocalServer(folders, put), decisions:
            yield agent
    finally:
        journal.close()


def environment_of(settings: Settings, own_files: Sequence[Path], policy: DevicePolicy = DEFAULT_POLICY) -> Environment:
    """Real clocks, files, threads and network."""
    inbox, rate = EventQueue(), settings.max_bytes_per_second
    roots = roots_of(settings, own_files, policy)
    hosts = settings.hosts.narrowed(policy.document.hosts, policy.name)
    uploader = Uploader(hosts, settings.upload_way, throttle=None if rate is None else Throttle(rate))
    copies = Copies(
        settings.state_dir / "spool",
        roots,
        max_bytes=settings.spool_max_bytes,
        max_percent=settings.spool_max_percent,
    )
    part_io = PartIO(uploader, copies)
    timezone = settings.timezone or system_timezone(os.environ)
    signing = signing_of(settings)
    return Environment(
        inbox=inbox,
        selections=KeptSelections(settings.state_dir / "selections"),
        roots=roots,
        timezone=timezone,
        limits=Limits(
            rules_of(settings, policy), timezone, Readings(free_disk=lambda: disk_space(str(settings.state_dir))[1])
        ),
        runner=EffectRunner(part_io, inbox, senders=settings.max_parallel_parts),
        connect=lambda presence: _connection(settings, inbox, presence, signing),
        check_url=uploader.check,
        manager=Notifier.of(os.environ, os.getpid()),
        consents=Consents(settings.state_dir, roots.asks_for) if policy.document.classes else None,
        after_policy=after_policy_of(settings, roots),
        after_grace=settings.after_grace,
        metrics=Exporter(None if settings.metrics_file is None else Path(settings.metrics_file), settings.metrics_port),
        system_info=lambda: system_info(str(settings.state_dir)),
        signing=signing,
    )


def signing_of(settings: Settings) -> "DeviceSigning | None":
    """The signatures of this device; None where no root of trust is stored. `TrustError` where that cannot be used."""
    if not is_signed(settings.state_dir):
        return None
    # An unsigned agent imports no PyNaCl.
    from device_agent.enrolment.claim import read_claim_secret, store_claim_secret  # noqa: PLC0415
    from device_agent.trust.signing import DeviceSigning  # noqa: PLC0415

    try:
        claim_secret = read_claim_secret(settings.state_dir)
    except OSError as error:
        text = f"the secret of the enrolment cannot be read: {error.strerror}"
        raise TrustError(text) from error
    if claim_secret is None:
        return DeviceSigning.open(settings.state_dir, settings.client_id, settings.topics)
    save_claim = partial(store_claim_secret, settings.state_dir, claim_secret)
    return DeviceSigning.open(settings.state_dir, settings.client_id, settings.topics, claim_secret, save_claim)


def _log_mode(signing: "DeviceSigning | None", policy: DevicePolicy) -> None:
    """Log at each start whether commands are verified."""
    if signing is not None:
        root, keys = signing.trust_file.trust.root.version, signing.keys_version
        log.info("commands are verified: key=%s, root %d, list of keys %d", signing.signer.kid, root, keys)
        return
    log.warning("commands are not signed: each account that may publish this device's topics commands it")
    if policy.document.commands_need is not None:
        text = "no new upload is accepted: %s has commands_need, and no root of trust is stored on this device"
        log.warning(text, policy.name)


def roots_of(settings: Settings, own_files: Sequence[Path], policy: DevicePolicy = DEFAULT_POLICY) -> Roots:
    """What may be read; never one of `own_files`, or the key of this device, or what the policy does not allow."""
    key = settings.mqtt_key or settings.mqtt_certificate
    own = OwnFiles(settings.state_dir, [*own_files, *(() if key is None else (Path(key),))])
    known = policy.document.types
    types = {name: globs for name, globs in settings.types.items() if known is None or name in known}
    return Roots(settings.allowed_roots, settings.file_path, types=types, own=own, policy=policy)


def after_policy_of(settings: Settings, roots: Roots) -> AfterPolicy:
    """What may be done with a file of `roots` after its upload."""
    return AfterPolicy(settings.allow_after, settings.after_paths, [place.written for place in roots.folders])


def rules_of(settings: Settings, policy: DevicePolicy = DEFAULT_POLICY) -> Rules:
    """The limits that the settings contain; of two caps of a day the smaller one counts."""
    own, document = settings.bytes_per_day, policy.document
    by_policy = document.bytes_per_day is not None and (own is None or document.bytes_per_day < own)
    return Rules(
        day=document.bytes_per_day if by_policy else own,
        day_setting=f"bytes_per_day in {policy.name}" if by_policy else "BYTES_PER_DAY",
        hours=document.spans,
        month=settings.bytes_per_month,
        metered_day=settings.metered_bytes_per_day,
        metered_month=settings.metered_bytes_per_month,
        metered={"yes": True, "no": False}.get(settings.metered),
        disk_free=settings.min_disk_free,
        battery=settings.min_battery_percent,
        load=settings.max_load,
    )


def _connection(
    settings: Settings, inbox: EventQueue, presence: PresenceBuilder, signing: "DeviceSigning | None"
) -> Connection:
    return Connection(
        way=settings.way,
        client_id=settings.client_id,
        username=settings.mqtt_username,
        password=settings.mqtt_password,
        topics=settings.topics,
        will=presence.will,
        on_connected=lambda: inbox.put(Connected()),
        on_disconnected=lambda text: inbox.put(Disconnected(text)),
        on_retry=lambda text, seconds: inbox.put(RetryPlanned(text, seconds)),
        on_command=lambda *arrived: inbox.put(CommandArrived(*arrived)),
        on_birth=lambda data, signature: inbox.put(
            BirthArrived() if signing is None else BirthArrived(data, signature)
        ),
        on_retained_presence=presence.read_retained,
        on_keys=lambda data: inbox.put(KeysArrived(data)),
        sign=None if signing is None else signing.properties,
    )
