"""Examines this device as the agent would use it: its folders, its clock, its network.

Rule: it changes one file alone, which it makes in the state folder and deletes. A file system that does not
answer costs five seconds, and is a finding.
"""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Final

from device_agent.diagnosis import network
from device_agent.diagnosis.findings import Finding
from device_agent.errors import HostNotAllowed, ProxyFailed, TrustError
from device_agent.reach.broker_link import BrokerWay
from device_agent.reach.proxy import HttpProxy
from device_agent.settings import Settings
from device_agent.storage.url_policy import ParsedUrl, origin_of
from device_agent.system_info import EARLIEST
from device_agent.trust.mode import SIGNED, UNSIGNED, is_signed
from schemas.globs import fixed_folder

LITTLE_DISK: Final = 100 * 1024 * 1024
"""Bytes: with less, the alert rules call the disk of the journal low."""

MAX_SKEW: Final = 300.0
"""Seconds: an object store refuses what is signed with a clock further off, and TLS fails with one far off."""

PATIENCE: Final = 5.0
"""Seconds that a file system has to answer."""

_MOST_HOSTS: Final = 10
_SUCCESS: Final = range(200, 300)
_OF_PROXIES: Final = frozenset({407, 502, 503, 504})
"""Answers to a HEAD of `/` that a proxy makes itself."""

_PROXY_REMEDY: Final = "check UPLOAD_PROXY, and what its administrator allows"


def examine(settings: Settings, put_url: str | None = None, wall: Callable[[], float] = time.time) -> Iterator[Finding]:
    """The findings, one by one: each may take some seconds. `put_url` is a presigned URL that takes a PUT."""
    yield Finding("settings", fine=True, text=f"CLIENT_ID={settings.client_id}")
    running, found = _state_folder(settings.state_dir)
    yield from found
    yield look_at_trust(settings)
    yield from look_at_files(settings)
    yield from _after(settings)
    yield from look_at_broker(settings, running=running)
    dates: list[tuple[float, float]] = []
    yield from look_at_stores(settings, dates, wall)
    if put_url is not None:
        yield look_at_put(settings, put_url)
    yield look_at_clock(dates, wall())


def look_at_trust(settings: Settings) -> Finding:
    """Whether commands have to be signed, and whether the files for that can be used; none is made here."""
    try:
        if not is_signed(settings.state_dir):
            text = f"{UNSIGNED}: each account that may publish this device's topics commands it"
            return Finding("commands", fine=True, text=text)
        # An unsigned agent imports no PyNaCl.
        from device_agent.trust.identity import IDENTITY_FILE, open_identity  # noqa: PLC0415
        from device_agent.trust.trust_file import TrustFile  # noqa: PLC0415

        trust = TrustFile.open(settings.state_dir, settings.topics.keys()).trust
        has_key = (settings.state_dir / IDENTITY_FILE).exists()
        key = f"this device's key is {open_identity(settings.state_dir).kid}" if has_key else "no key was made yet"
    except TrustError as error:
        remedy = "restore the file, or enroll this device again"
        return Finding("commands", fine=False, text=str(error), remedy=remedy)
    keys = f"the list of keys {trust.keys_version}" if trust.keys else "no list of keys yet"
    return Finding("commands", fine=True, text=f"{SIGNED}: root of trust {trust.root.version}, {keys}; {key}")


def _after(settings: Settings) -> Iterator[Finding]:
    """Whether files can be deleted or moved where that is allowed; a folder that is missing is found elsewhere."""
    if not settings.allow_after:
        return
    folders = {*map(fixed_folder, settings.after_paths)} or set(settings.allowed_roots)
    closed = sorted(folder for folder in folders if Path(folder).is_dir() and not os.access(folder, os.W_OK | os.X_OK))
    acts = " and ".join(settings.allow_after)
    if closed:
        text = f"ALLOW_AFTER allows to {acts} files, and {', '.join(closed)} may not be written: every file is kept"
        remedy = "setfacl -m u:USER:rwx FOLDER, and the drop-in delete.conf of the unit"
        yield Finding("after", fine=False, text=text, remedy=remedy)
    else:
        yield Finding("after", fine=True, text=f"the agent may {acts} files below {', '.join(sorted(folders))}")


def _state_folder(folder: Path) -> tuple[bool, list[Finding]]:
    """Whether an agent runs on this state folder, and what is wrong with it."""
    remedy = f"let the agent's user write it: mkdir -p {folder} && chown USER {folder}"
    found: list[Finding] = []
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    running = False
    try:
        if folder.exists():
            running = is_locked(folder / "lock")
            _write_and_delete(folder / ".doctor")
        elif not os.access(place, os.W_OK | os.X_OK):
            text = f"{folder} does not exist, and {place} may not be written"
            return False, [Finding("state folder", fine=False, text=text, remedy=remedy)]
    except OSError as error:
        return running, [Finding("state folder", fine=False, text=f"{folder}: {error.strerror}", remedy=remedy)]
    state = "an agent runs on it" if running else "no agent runs on it"
    missing = "" if folder.exists() else " (made at the first start)"
    found.append(Finding("state folder", fine=True, text=f"{folder} can be written{missing}; {state}"))
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    text = f"{free / 1024**2:,.0f} MiB are free beside the journal"
    little = free < LITTLE_DISK
    remedy = "free some space: without any, the agent takes no command"
    found.append(Finding("disk", fine=not little, text=text, remedy=remedy if little else None))
    return running, found


def is_locked(path: Path) -> bool:
    """Whether an agent holds the lock of its state folder."""
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _write_and_delete(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, b"x" * 4096)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()


def look_at_files(settings: Settings) -> Iterator[Finding]:
    """Whether what may be uploaded can be read."""
    if not (settings.allowed_roots or settings.types or settings.file_path):
        remedy = "set ALLOWED_ROOTS, TYPES or FILE_PATH"
        yield Finding("files", fine=False, text="no file may be uploaded from this device", remedy=remedy)
    for root in settings.allowed_roots:
        yield _looked("root", root, lambda root=root: os.scandir(root).close(), "a folder that can be listed")  # type: ignore[misc]
    for name, globs in settings.types.items():
        for folder in dict.fromkeys(fixed_folder(one) for one in globs):
            text = f"a folder that can be listed, of TYPES {name}"
            yield _looked("type", folder, lambda folder=folder: os.scandir(folder).close(), text)  # type: ignore[misc]
    if settings.file_path is not None:
        path = settings.file_path
        yield _looked("file", path, lambda: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)), "a file")


def _looked(name: str, path: str, look: Callable[[], None], what: str) -> Finding:
    """Whether `look` succeeds in time, in a thread that may be left behind."""
    errors: list[OSError] = []
    done: list[bool] = []

    def run() -> None:
        try:
            look()
        except OSError as error:
            errors.append(error)
        done.append(True)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not done:
        remedy = "look at its mount: a network share, or a disk that fails"
        return Finding(name, fine=False, text=f"{path}: the file system does not answer", remedy=remedy)
    if not errors:
        return Finding(name, fine=True, text=f"{path}: {what}")
    remedy = f"let user {os.geteuid()} read it, or correct the setting"
    if isinstance(errors[0], FileNotFoundError):
        remedy = "create it, or correct the setting"
    return Finding(name, fine=False, text=f"{path}: {errors[0].strerror}", remedy=remedy)


def look_at_broker(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Whether the broker accepts this device; `running` leaves the login to the agent that runs."""
    if running:
        return look_at_address(settings, "the login is left to the agent that runs")
    return _tried(settings.way, lambda way: _login(settings, way))


def look_at_address(settings: Settings, more: str) -> Iterator[Finding]:
    """Whether the broker can be reached, without a login; `more` follows the text."""

    def connect(way: BrokerWay) -> Finding:
        way.open(network.TIMEOUT).close()
        return Finding("broker", fine=True, text=f"{way} can be reached; {more}")

    return _tried(settings.way, connect)


def _tried(way: BrokerWay, attempt: Callable[[BrokerWay], Finding]) -> Iterator[Finding]:
    """The finding about the name, and that of the attempt; `OSError` is one about the broker."""
    resolved = _resolved(way.broker.host, way.broker.port, way.proxy)
    if resolved is not None:
        yield resolved
        if not resolved.fine:
            return
    try:
        yield attempt(way)
    except OSError as error:
        remedy = "check MQTT_URL, the firewall, and that the broker runs"
        if isinstance(error, ProxyFailed):
            remedy = "check MQTT_PROXY, and what its administrator allows"
        yield Finding("broker", fine=False, text=f"{way}: {network.reason_of(error)}", remedy=remedy)


def _login(settings: Settings, way: BrokerWay) -> Finding:
    refusal = network.login(way, settings.client_id, settings.mqtt_username, settings.mqtt_password)
    if refusal is None:
        return Finding("broker", fine=True, text=f"{way} accepts this device")
    remedy = "check MQTT_PASSWORD; `backhaul broker` on the server makes a new one"
    return Finding("broker", fine=False, text=f"{way}: {refusal}", remedy=remedy)


def _resolved(host: str, port: int, proxy: HttpProxy | None = None) -> Finding | None:
    """Whether the name, or that of the proxy which resolves it, has addresses; None for an address."""
    if proxy is not None:
        host, port = proxy.host, proxy.port
    if re.fullmatch(r"[0-9.]+|.*:.*", host):
        return None
    try:
        found = network.addresses(host, port)
    except OSError as error:
        remedy = "check the name, and the name servers of this device"
        return Finding("DNS", fine=False, text=f"{host}: {network.reason_of(error)}", remedy=remedy)
    return Finding("DNS", fine=True, text=f"{host} is {', '.join(found[:3])}")


def look_at_stores(
    settings: Settings, dates: list[tuple[float, float]], wall: Callable[[], float]
) -> Iterator[Finding]:
    """Whether each host answers to which parts may be sent; `dates` gets its clock and this one."""
    origins = sorted(settings.hosts.origins, key=lambda one: (one.host, one.port, one.scheme))
    if not origins:
        remedy = "set UPLOAD_HOSTS to the address of the object store"
        yield Finding("object store", fine=False, text="no host may be sent to", remedy=remedy)
    for scheme, host, port in _distinct((one.scheme, one.host, one.port) for one in origins):
        url = ParsedUrl(scheme, host, port, "/")
        way = settings.upload_way
        resolved = _resolved(host, port, way.proxy)
        if resolved is not None and not resolved.fine:
            yield resolved
            continue
        where = origin_of(scheme, host, port)
        remedy = "check UPLOAD_HOSTS, the firewall, the clock and the certificates of this device"
        try:
            answer = network.request("HEAD", url, way)
        except (OSError, ValueError) as error:
            text = network.reason_of(error) if isinstance(error, OSError) else str(error)
            shown = _PROXY_REMEDY if isinstance(error, ProxyFailed) else remedy
            yield Finding("object store", fine=False, text=f"{where}: {text}", remedy=shown)
            continue
        proxy = way.passes_on(secure=scheme == "https")
        if proxy is not None and answer.status in _OF_PROXIES:
            text = f"{where}: the proxy {proxy} {proxy.meaning(answer.status, where)}"
            yield Finding("object store", fine=False, text=text, remedy=_PROXY_REMEDY)
            continue
        if answer.date is not None:
            dates.append((answer.date, wall()))
        yield Finding("object store", fine=True, text=f"{where} answers (HTTP {answer.status})")


def _distinct(origins: Iterable[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Each origin once; on loopback, HTTPS is left out where HTTP is allowed as well."""
    found = list(dict.fromkeys(origins))
    plain = {(host, port) for scheme, host, port in found if scheme == "http"}
    return [one for one in found if one[0] == "http" or (one[1], one[2]) not in plain][:_MOST_HOSTS]


def look_at_put(settings: Settings, text: str) -> Finding:
    """Whether a presigned URL takes one byte; the URL is never shown: its query is its key."""
    try:
        url = settings.hosts.allowed(text)
    except HostNotAllowed as refused:
        return Finding("PUT", fine=False, text=str(refused), remedy="add the host to UPLOAD_HOSTS, or give another URL")
    remedy = "the URL may have expired, or be signed for another method or size: make a new one"
    try:
        answer = network.request("PUT", url, settings.upload_way, b"x")
    except (OSError, ValueError) as error:
        reason = network.reason_of(error) if isinstance(error, OSError) else str(error)
        return Finding("PUT", fine=False, text=f"{url.host}: {reason}", remedy=remedy)
    fine = answer.status in _SUCCESS
    return Finding("PUT", fine=fine, text=f"{url.host} answers HTTP {answer.status}", remedy=None if fine else remedy)


def look_at_clock(dates: list[tuple[float, float]], now: float) -> Finding:
    """Whether the clock is right, as far as a server has reported its time."""
    remedy = "set the clock, by NTP (timedatectl set-ntp true)"
    if now < EARLIEST:
        year = time.gmtime(now).tm_year
        return Finding("clock", fine=False, text=f"the clock of this device is in {year}", remedy=remedy)
    if not dates:
        return Finding("clock", fine=True, text="no server reported its time")
    skew = max((theirs - ours for theirs, ours in dates), key=abs)
    fine = abs(skew) <= MAX_SKEW
    text = f"{abs(skew):.0f} s between the object store's clock and this one"
    return Finding("clock", fine=fine, text=text, remedy=None if fine else remedy)
