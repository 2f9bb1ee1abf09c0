"""Secrets of a full run, searched for in all that it leaves: logs at DEBUG, metrics, answers, arguments, files.

Rule: the run goes through failures as well, since a secret leaks in the text of an error. What may keep a secret is one
table here, with the reason.
"""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest

from broker import access
from broker.child_process import ChildProcess, clean_environment
from broker.server import find_mosquitto, free_port
from control_plane.api.auth import COOKIE, create_token
from control_plane.bootstrap import AUDIT_KEY_NAME, SIGNING_KEY_NAME
from control_plane.cli.keys.folder import ROOT_KEY, SAFE_KEY
from control_plane.cli.site.broker import ACCESS, AuthenticatedBroker
from device_agent.enrolment.claim import CLAIM_NAME
from device_agent.local.reader import read_status
from device_agent.trust.identity import IDENTITY_FILE
from schemas.signing.canonical import to_text
from schemas.signing.key_files import read_key
from schemas.topics import Channel, Topics
from tests.support.canaries import Canaries, arguments_of_processes
from tests.support.devices import AskingDevice
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Closed, connected
from tests.support.patience import came_true
from tests.support.screen import BACKHAUL
from tests.support.sites import MIB, PATIENCE, Fleet, running_fleet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
]

DEVICE: Final = "restaurant-1"
ELSEWHERE: Final = "restaurant-2"
SIGNED: Final = "restaurant-3"
"""A device that is enrolled by a bundle, and signs."""

AGENT: Final = (sys.executable, "-m", "device_agent")
SLOW: Final = {"MAX_PARALLEL_PARTS": "1", "MAX_BYTES_PER_SECOND": "1000000"}

KEPT: Final = {
    ("site/store/nanio.toml", "secret of the object store"): "nanio reads its account there",
    ("site/control-plane/backhaul.db", "secret of the webhook"): "each message is signed with it: docs/events.md",
    (
        f"site/control-plane/{AUDIT_KEY_NAME}",
        "key of the audit",
    ): "the checkpoints are signed with it: docs/how-to/audit.md",
    (
        f"site/control-plane/{SIGNING_KEY_NAME}",
        "key that signs commands",
    ): "commands are signed with it: docs/how-to/sign-the-fleet.md",
    (
        f"{SIGNED}/state/{CLAIM_NAME}",
        "claim of a bundle",
    ): "it shows whose key this is, until the device is enrolled again: docs/how-to/enroll-a-device.md",
    (
        f"{SIGNED}/state/{IDENTITY_FILE}",
        f"key of {SIGNED}",
    ): "it is the identity of the device: docs/how-to/enroll-a-device.md",
}
"""The files that may contain a secret."""

SIGNATURE: Final = re.compile(rb"X-Amz-Signature=([0-9a-f]{64})")


@dataclass
class Run:
    """What a full run left behind, after its end. `home` is the operator's, whose files are no artefacts."""

    folder: Path
    home: Path
    canaries: Canaries = field(default_factory=Canaries)
    answers: dict[str, bytes] = field(default_factory=dict)
    arguments: bytes = b""
    outputs: dict[str, bytes] = field(default_factory=dict)
    signatures: set[bytes] = field(default_factory=set)

    def ask(self, client: httpx.Client, method: str, path: str, *, kept: bool = True, **more: Any) -> httpx.Response:  # noqa: ANN401
        """One call of REST. Its answer is an artefact, unless its purpose is to show a secret."""
        answer = client.request(method, path, **more)
        if kept:
            key = f"{method} {path} {answer.status_code} {len(self.answers)}"
            self.answers[key] = str(answer.headers.raw).encode() + answer.content
        return answer


@contextmanager
def commands_received(fleet: Fleet, network: AuthenticatedBroker, run: Run) -> Iterator[None]:
    """Take the signature of every URL that a device is sent."""
    account = network.operator
    name = account["MQTT_USERNAME"]
    connect = Connect(name, username=name, password=account["MQTT_PASSWORD"])

    def receive() -> None:
        with suppress(Closed, OSError):
            while True:
                with suppress(TimeoutError):
                    packet = wire.receive(1)
                    wire.acknowledge(packet)
                    run.signatures.update(SIGNATURE.findall(packet.payload))

    with connected(fleet.site.broker.address.port, connect) as wire:
        wire.subscribe(Topics().every(Channel.COMMAND))
        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        try:
            yield
        finally:
            wire.drop()
            thread.join(PATIENCE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Uploads that succeed, fail and are cancelled, an object store that goes away, wrong calls, commands."""
    run = Run(tmp_path_factory.mktemp("canaries"), tmp_path_factory.mktemp("operator"))
    before = os.umask(0o022)
    try:
        play(run)
    finally:
        os.umask(before)
    for number, signature in enumerate(sorted(run.signatures)):
        run.canaries.add(f"signature {number} of a presigned URL", signature.decode())
    return run


def play(run: Run) -> None:
    network = AuthenticatedBroker("127.0.0.1", free_port(), free_port())
    secret = run.canaries.add("JWT_SECRET", os.urandom(32).hex())
    settings = {"JWT_SECRET": secret, "LOG_LEVEL": "DEBUG", "WEBHOOK_NETWORKS": "127.0.0.0/8", "ENROLL": "on"}
    with running_fleet(run.folder, settings, network=network) as fleet:
        run.canaries.add("secret of the object store", fleet.site.store.credentials.secret_key)
        run.canaries.add("password of the control plane", network.plane["MQTT_PASSWORD"])
        run.canaries.add("password of the operator", network.operator["MQTT_PASSWORD"])
        key = json.loads((fleet.site.directory / "control-plane" / AUDIT_KEY_NAME).read_text())
        run.canaries.add("key of the audit", key["seed"])
        token = run.canaries.add("token", create_token(secret, "ann", 3_600))
        run.canaries.add("signature of the token", token.rpartition(".")[2])
        with (
            commands_received(fleet, network, run),
            httpx.Client(
                base_url=fleet.site.server, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE
            ) as rest,
        ):
            account = enrolled(fleet, run, DEVICE)
            other = enrolled(fleet, run, ELSEWHERE)
            fleet.attach(DEVICE, None, **{**SLOW, **account})
            fleet.attach(ELSEWHERE, None, **{**other, "UPLOAD_HOSTS": "https://elsewhere.example"})
            state = {"STATE_DIR": str(run.folder / DEVICE / "state")}
            device = {**fleet.site.agent_settings(), "CLIENT_ID": DEVICE, **state, **account}
            secrets_of_rest(fleet, run, rest)
            keys(fleet, run, token)
            bundle(fleet, run, rest)
            code(run, rest)
            uploads(fleet, run, device)
            wrong_calls(run, rest, fleet.site.server)
            command_lines(fleet, run, {**network.operator, "BACKHAUL_TOKEN": token}, device)
            run.arguments += arguments_of_processes([os.getpid()])
            readings(run, rest)


def enrolled(fleet: Fleet, run: Run, name: str) -> dict[str, str]:
    """The settings of a device with an account."""
    given = access.enroll(fleet.site.broker.log_path.parent / ACCESS, name)
    fleet.site.broker.reload()
    run.canaries.add(f"password of {name}", given.password)
    data = fleet.directory / name / "data"
    data.mkdir(parents=True)
    account = {"MQTT_USERNAME": name, "MQTT_PASSWORD": given.password}
    return {**account, "ALLOWED_ROOTS": str(data), "LOG_LEVEL": "debug"}


def secrets_of_rest(fleet: Fleet, run: Run, rest: httpx.Client) -> None:
    """A session, its code, and a webhook whose receiver never answers."""
    code = run.ask(rest, "POST", "/session/codes", kept=False).json()["code"]
    run.canaries.add("code of a sign-in", code)
    own = {"Origin": fleet.site.server}
    with httpx.Client(base_url=fleet.site.server, timeout=PATIENCE) as browser:
        assert run.ask(browser, "POST", "/session", kept=False, json={"code": code}, headers=own).status_code == 200
        run.canaries.add("cookie of a session", browser.cookies[COOKIE])
        run.ask(browser, "GET", "/session")
        assert run.ask(browser, "POST", "/session", json={"code": code}, headers=own).status_code == 401
    made = run.ask(rest, "POST", "/webhooks", kept=False, json={"url": f"http://127.0.0.1:{free_port()}/hook"})
    run.canaries.add("secret of the webhook", made.json()["secret"].removeprefix("whsec_"))


def keys(fleet: Fleet, run: Run, token: str) -> None:
    """The root of trust, the control plane's key and an operator's, made and published as a person does it."""
    key = json.loads((fleet.site.directory / "control-plane" / SIGNING_KEY_NAME).read_text())
    run.canaries.add("key that signs commands", key["seed"])
    passphrase = run.canaries.add("passphrase of the root key", os.urandom(12).hex())
    (run.home / "passphrase").write_text(passphrase)
    folder, operator = run.home / "keys", run.home / "ana.json"
    where = ("--folder", str(folder))
    root = ("--passphrase-file", str(run.home / "passphrase"))
    settings = {"BACKHAUL_URL": fleet.site.server, "BACKHAUL_TOKEN": token}
    for words in (
        ("init", *where, *root),
        ("add", "control-plane", "--control-plane", *where, *root),
        ("add-operator", "ana", "--out", str(operator), *where, *root),
        ("list", *where),
        ("publish", *where),
        ("published",),
    ):
        run.outputs[f"keys {words[0]}"] = shown = printed(run, (*BACKHAUL, "keys", *words, "--json"), settings)
        assert b"error" not in shown, shown
    wrong = run.home / "wrong"
    wrong.write_text(run.canaries.add("a wrong passphrase", os.urandom(12).hex()))
    refused = (
        "keys",
        "add-operator",
        "ben",
        "--out",
        str(run.home / "ben.json"),
        *where,
        "--passphrase-file",
        str(wrong),
    )
    run.outputs["keys with a wrong passphrase"] = printed(run, (*BACKHAUL, *refused), settings)
    assert fleet.get("/keys")["version"] == 3
    run.canaries.add("root key", to_text(read_key(folder / ROOT_KEY, passphrase).seed))
    run.canaries.add("root key for the safe", json.loads((folder / SAFE_KEY).read_text())["seed"])
    run.canaries.add("key of an operator", json.loads(operator.read_text())["seed"])


def bundle(fleet: Fleet, run: Run, rest: httpx.Client) -> None:
    """A device that is enrolled by a bundle: its password, its claim, its key; and an upload with its receipt."""
    home = run.folder / SIGNED
    (home / "state").mkdir(parents=True)
    file = home / "data" / "small.bin"
    file.parent.mkdir()
    file.write_bytes(os.urandom(4_096))
    hosts = [fleet.site.agent_settings()["UPLOAD_HOSTS"]]
    body = {"client_id": SIGNED, "allowed_roots": [str(file.parent)], "upload_hosts": hosts}
    made = run.ask(rest, "POST", "/devices", kept=False, json=body).json()
    run.canaries.add("password of a bundle", made["mqtt_password"])
    run.canaries.add("claim of a bundle", made["claim_secret"])
    fleet.site.broker.reload()
    place = run.home / "bundle.json"
    place.touch(mode=0o600)
    place.write_text(json.dumps(made))
    settings = {"BUNDLE_FILE": str(place), "STATE_DIR": str(home / "state"), "LOG_LEVEL": "debug"}
    agent = ChildProcess(AGENT, settings=settings, log_path=home / "agent.log")
    fleet.stack.enter_context(agent)
    fleet.until(lambda: fleet.get(f"/devices/{SIGNED}")["state"] == "active", f"its key: {agent.log_tail()}")
    run.canaries.add(f"key of {SIGNED}", to_text(read_key(home / "state" / IDENTITY_FILE).seed))
    done = fleet.trigger(SIGNED, file)
    assert fleet.ended(done)["state"] == "completed"
    fleet.until(lambda: fleet.get(f"/uploads/{done}")["receipt"] == "device", "the receipt")


def code(run: Run, rest: httpx.Client) -> None:
    """A device that asks by a code, too early, with a wrong code, and is rejected."""
    device = AskingDevice(os.urandom(32))
    run.canaries.add("key of a device that asks", to_text(device.signer.seed))
    asked = run.ask(rest, "POST", "/enroll", kept=False, json=msgspec.to_builtins(device.ask())).json()
    run.canaries.add("code of a device that asks", asked["device_code"])
    for _ in range(2):
        run.ask(rest, "POST", "/enroll/poll", json=msgspec.to_builtins(device.poll(asked["device_code"])))
    altered = asked["device_code"][:-8] + "AAAAAAAA"
    run.ask(rest, "POST", "/enroll/poll", json=msgspec.to_builtins(device.poll(altered)))
    assert run.ask(rest, "POST", f"/enrollments/{asked['user_code']}/reject").is_success


def uploads(fleet: Fleet, run: Run, device: Mapping[str, str]) -> None:
    """One of one part, one of three over an outage of the object store, one cancelled, one that its device refuses."""
    data = fleet.directory / DEVICE / "data"
    small, large, second = (data / f"{name}.bin" for name in ("small", "large", "second"))
    small.write_bytes(os.urandom(4_096))
    large.write_bytes(os.urandom(12 * MIB))
    second.write_bytes(os.urandom(6 * MIB))
    done = fleet.trigger(DEVICE, small)
    assert fleet.ended(done)["state"] == "completed"
    url = fleet.get(f"/uploads/{done}/url")["url"]
    (signature,) = parse_qs(urlsplit(url).query)["X-Amz-Signature"]
    run.canaries.add("signature of a URL for reading", signature)

    through = fleet.trigger(DEVICE, large)
    # By the device: it reports parts to its owner when the last of a grant is sent.
    fleet.until(lambda: sent(device, through) > 0, "a first part")
    fleet.site.store.kill()
    # Of two parts: the control plane needs the object store for it.
    cancelled = fleet.trigger(DEVICE, second)
    assert came_true(lambda: "duty.again" in fleet.site.plane.log_path.read_text(), PATIENCE)
    run.outputs["status in an outage"] = printed(run, (*AGENT, "status", "--json"), device)
    assert through.encode() in run.outputs["status in an outage"]
    assert fleet.post(f"/uploads/{cancelled}/cancel").status_code == 200
    fleet.site.store.start()
    assert fleet.ended(through)["state"] == "completed"

    elsewhere = fleet.directory / ELSEWHERE / "data" / "small.bin"
    elsewhere.write_bytes(b"x")
    assert fleet.ended(fleet.trigger(ELSEWHERE, elsewhere))["state"] in {"failed", "rejected"}
    run.arguments += arguments_of_processes([os.getpid()])


def sent(device: Mapping[str, str], upload_id: str) -> int:
    """Bytes of an upload that the device has sent, read without a new process: the upload continues meanwhile."""
    shown = read_status((Path(device["STATE_DIR"]),))
    return sum(one.bytes_sent for one in shown.uploads if one.upload_id == upload_id)


def wrong_calls(run: Run, rest: httpx.Client, server: str) -> None:
    """Secrets where they do not belong: the error repeats none."""
    token = rest.headers["Authorization"].removeprefix("Bearer ")
    run.ask(rest, "GET", f"/clients?token={token}")
    run.ask(rest, "GET", f"/uploads/{token}")
    run.ask(rest, "POST", f"/trigger-download/{DEVICE}", json={"file_path": 3, "token": token})
    run.ask(rest, "POST", "/jobs", content=f'{{"password": "{token}"')
    with httpx.Client(base_url=server, timeout=PATIENCE) as stranger:
        altered = f"{token[:-8]}AAAAAAAA"
        run.canaries.add("an altered token", altered)
        for value in (f"Bearer {altered}", f"Basic {token}", f"bearer  {token} x", token):
            answer = run.ask(stranger, "GET", "/clients", headers={"Authorization": value})
            assert answer.status_code == 401
        run.ask(stranger, "GET", "/clients", headers={"Cookie": f"{COOKIE}={altered}"})
        run.ask(stranger, "POST", "/session", json={"token": altered}, headers={"Origin": server})


def command_lines(fleet: Fleet, run: Run, operator: Mapping[str, str], device: Mapping[str, str]) -> None:
    """The commands of both sides with secrets in their environment: what they print is an artefact."""
    operator = {"BACKHAUL_URL": fleet.site.server, **fleet.plane_settings, **operator}
    word = run.canaries.add("password of a proxy or a database", os.urandom(12).hex())
    for command in ("client list", "doctor", "mqtt clients"):
        run.outputs[command] = printed(run, (*BACKHAUL, *command.split()), operator)
    database = {"DATABASE_URL": f"postgresql://ann:{word}@127.0.0.1:9/none?connect_timeout=2"}
    run.outputs["doctor without its database"] = printed(run, (*BACKHAUL, "doctor"), {**operator, **database})
    for command in ("--check", "status", "doctor"):
        proxy = {"MQTT_PROXY": f"http://ann:{word}@127.0.0.1:9"}
        run.outputs[f"agent {command}"] = printed(run, (*AGENT, command), {**device, **proxy})


def printed(run: Run, command: Sequence[str], settings: Mapping[str, str]) -> bytes:
    """What a command prints, on both streams."""
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment = clean_environment(settings)
    ended = subprocess.run(command, env=environment, cwd=run.folder, timeout=PATIENCE, check=False, **streams)
    assert ended.stdout, command
    return bytes(ended.stdout)


def readings(run: Run, rest: httpx.Client) -> None:
    """Every GET of the API that needs no more than an id, and the metrics."""
    document = run.ask(rest, "GET", "/openapi.json").json()
    ids = {"{client_id}": DEVICE, "{name}": "none"}
    ids["{upload_id}"] = rest.get("/uploads").json()["uploads"][0]["upload_id"]
    ids["{webhook_id}"] = rest.get("/webhooks").json()["webhooks"][0]["webhook_id"]
    for path, methods in document["paths"].items():
        if "get" not in methods or path in {"/events", "/uploads/{upload_id}/url"}:
            continue
        for template, value in ids.items():
            path = path.replace(template, value)  # noqa: PLW2901 (a template becomes a path)
        run.ask(rest, "GET", path)
    assert b"backhaul_events" in run.ask(rest, "GET", "/metrics").content


def test_the_run_used_every_kind_of_secret(run: Run) -> None:
    assert len(run.signatures) >= 4
    assert len(run.canaries) > len(run.signatures) + 10
    assert len(run.answers) > 20
    logs = {path.name: path.read_text() for path in run.folder.rglob("*.log")}
    assert sorted(logs) == ["agent.log", "broker.log", "control-plane.log", "store.log"]
    assert "upload.state" in logs["control-plane.log"]


def test_no_file_contains_a_secret_but_those_that_have_to_keep_it(run: Run) -> None:
    """Logs at DEBUG, the database, the broker's database, the journal, the state, and the names of files."""
    found = {(re.sub(r"\.db(-wal|-shm)$", ".db", place), name) for place, name in run.canaries.found_below(run.folder)}
    assert found == set(KEPT)


def test_what_agent_and_control_plane_write_is_readable_by_their_user_only(run: Run) -> None:
    """The run has a umask of 022, and the logs are files of the program that starts them."""
    made = [path for path in run.folder.rglob("*") if {"state", "control-plane"} & set(path.parts)]
    assert len(made) >= 6
    open_to_others = [str(path) for path in made if path.is_file() and path.stat().st_mode & 0o077]
    assert [path for path in open_to_others if not path.endswith(".log")] == []


def test_no_answer_of_rest_and_no_metric_contains_a_secret(run: Run) -> None:
    assert {what: names for what, body in run.answers.items() if (names := run.canaries.found_in(body))} == {}


def test_no_argument_of_a_process_contains_a_secret(run: Run) -> None:
    assert b"device_agent" in run.arguments
    assert b"mosquitto" in run.arguments
    assert run.canaries.found_in(run.arguments) == []


def test_no_output_of_a_command_contains_a_secret(run: Run) -> None:
    assert {what: names for what, text in run.outputs.items() if (names := run.canaries.found_in(text))} == {}


def test_a_planted_secret_is_found_in_every_form(tmp_path: Path) -> None:
    """Otherwise the tests above show nothing."""
    canaries = Canaries()
    canaries.add("planted", "a+secret/with=signs")
    folder = tmp_path / "folder"
    folder.mkdir()
    secret = b"a+secret/with=signs"
    forms = {
        "plain": secret,
        "json": json.dumps({"x": secret.decode()}).encode(),
        "quoted": b"a%2Bsecret%2Fwith%3Dsigns",
        "hex": secret.hex().encode(),
        **{f"base64 after {n}": base64.b64encode(b"n" * n + secret + b"and more") for n in range(7)},
        "url-safe": base64.urlsafe_b64encode(b"12" + secret),
    }
    for name, content in forms.items():
        (folder / name).write_bytes(b"before " + content)
    (folder / "clean").write_bytes(b"a secret with signs")
    (folder / "name a%2Bsecret%2Fwith%3Dsigns").touch()
    found = {place for place, _ in canaries.found_below(folder)}
    assert found == {*forms, "name a%2Bsecret%2Fwith%3Dsigns"}
