"""A key has leaked: seconds from the first command of docs/threat-model.md until the thief who has the key is refused.

Rule: the operator types what the row of the key says (`TYPED`), word for word; the thief was in before, and stays out
after. What the row advises next is done too, and the device must upload again. The worst of some rounds counts.
"""

import base64
import itertools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.certificates import self_signed
from benchmarks.figures import Figure, Report
from benchmarks.leaks_site import (
    LeakSite,
    measured,
    refused_by_broker,
    refused_over_tls,
    running_leak_site,
    token_id,
)
from benchmarks.thieves import SILENCE, Commander, Held, Provider, enroll_request
from broker.configuration import LOOPBACK
from broker.process import BrokerAddress
from broker.server import free_port, start_configured
from control_plane.api.auth import create_token
from schemas.signing.documents import KeyList, TrustDocument
from schemas.signing.ed25519 import Signer
from schemas.signing.key_files import read_key
from schemas.signing.trust import decode_trust, sign_document
from schemas.topics import Topics

ROUNDS: Final = 3
MARK: Final = "leaked: "
"""How the name of each figure begins; the rest is a key of `TYPED`."""

AT_MOST: Final = 10.0
AT_RESTART: Final = 30.0
"""Seconds: bounds for what commands end, and for what the restart of a program ends, on cores that do other work."""

REVOKE_DEVICE: Final = "backhaul device revoke NAME"
ROTATE_DEVICE: Final = "backhaul device rotate NAME --out FILE"
REVOKE_KEY: Final = "backhaul keys revoke KID"
PUBLISH: Final = "backhaul keys publish"
TYPED: Final[Mapping[str, tuple[str, ...]]] = {
    "a token": ("backhaul token revoke ID",),
    "`JWT_SECRET`": (),
    "key of the OpenID provider": (),
    "bundle of a device": (ROTATE_DEVICE,),
    "password of a device": (ROTATE_DEVICE,),
    "password of a device: never enrolled": ("backhaul broker enroll --replace NAME",),
    "key of a device": (REVOKE_DEVICE,),
    "password of the control plane": ("backhaul broker enroll --replace control-plane",),
    "key of the control plane that signs commands": (REVOKE_KEY, PUBLISH),
    "key of an operator": (REVOKE_KEY, PUBLISH),
    "a root key": ("backhaul keys rotate-root --out FILE --drop KID", PUBLISH),
    "key of the audit": (),
    "the token of a batch": ("backhaul device batch revoke ID",),
    "private key of a client certificate": (),
    "a device, stolen": (REVOKE_DEVICE,),
    "a device, stolen: never enrolled": ("backhaul broker revoke NAME", "backhaul client forget NAME"),
}
"""The rows that are measured, and the commands of each, as the document has them. None: a file, or a restart."""

RESTARTS: Final = frozenset(
    {
        "`JWT_SECRET`",
        "key of the OpenID provider",
        "password of a device: never enrolled",
        "password of the control plane",
        "key of the audit",
        "private key of a client certificate",
    }
)
"""The rows that restart a program."""

_REFUSED: Final = 401
_PLACEHOLDER: Final = re.compile(r"\b(NAME|FILE|KID|ID)\b")
_NUMBERS: Final = itertools.count(1)


def audit_keys(log: str) -> list[str]:
    """The keys of the audit that a control plane named at its start."""
    return re.findall(r'"key": "([^"]+)", "event": "audit.key"', log)


def leaks(rounds: int = ROUNDS) -> Report:
    """The worst of `rounds` for each key of `TYPED`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        provider = stack.enter_context(Provider(free_port()).running())
        site = stack.enter_context(running_leak_site(folder, {"OIDC_ISSUER": provider.url}))
        case = Leaks(site, provider)
        found = {name: [case.measure(name) for _ in range(rounds)] for name in TYPED}
    figures = [Figure(f"{MARK}{name}", max(times), "s", at_most=_bound(name)) for name, times in found.items()]
    return Report("leaks", figures, {"rounds": rounds, "seconds": found})


def _bound(name: str) -> float:
    return AT_RESTART if name in RESTARTS else AT_MOST


class Leaks:
    """One method for each key."""

    def __init__(self, site: LeakSite, provider: Provider) -> None:
        self._site = site
        self._provider = provider
        self._root_key = site.folder / "operator" / "backhaul" / "keys" / "root.json"
        self._ways: Mapping[str, Callable[[tuple[str, ...]], float]] = {
            "a token": self._token,
            "`JWT_SECRET`": self._secret,
            "key of the OpenID provider": self._provider_key,
            "bundle of a device": self._bundle,
            "password of a device": self._password,
            "password of a device: never enrolled": self._password_alone,
            "key of a device": self._device_key,
            "password of the control plane": self._plane_password,
            "key of the control plane that signs commands": self._signing_key,
            "key of an operator": self._operator_key,
            "a root key": self._root,
            "key of the audit": self._audit_key,
            "the token of a batch": self._batch,
            "private key of a client certificate": self._client_certificate,
            "a device, stolen": self._stolen,
            "a device, stolen: never enrolled": self._stolen_alone,
        }

    def measure(self, name: str) -> float:
        """Seconds of one round."""
        return self._ways[name](TYPED[name])

    # --- tokens ---

    def _token(self, commands: tuple[str, ...]) -> float:
        token = create_token(self._site.settings["JWT_SECRET"], "ana", 3_600)
        return measured(lambda: self._type(commands, ID=token_id(token)), lambda: self._denied(token))

    def _secret(self, _: tuple[str, ...]) -> float:
        token = create_token(self._site.settings["JWT_SECRET"], "thief", 3_600)
        another = base64.b64encode(os.urandom(32)).decode()
        return measured(lambda: self._site.restart(JWT_SECRET=another), lambda: self._denied(token))

    def _provider_key(self, _: tuple[str, ...]) -> float:
        token = self._provider.token()

        def replace() -> None:
            self._provider.replace()
            self._site.restart()

        seconds = measured(replace, lambda: self._denied(token))
        if self._denied(self._provider.token()):
            message = "a token of the new key is refused"
            raise RuntimeError(message)
        return seconds

    def _denied(self, token: str) -> bool:
        return self._site.rest("GET", "/clients?limit=1", token)[0] == _REFUSED

    # --- devices ---

    def _bundle(self, commands: tuple[str, ...]) -> float:
        name = self._name()
        password = self._site.enrolled(name)["mqtt_password"]
        seconds = measured(lambda: self._rotate(commands, name), lambda: self._out(name, password))
        self._comes_back(name)
        return seconds

    def _password(self, commands: tuple[str, ...]) -> float:
        name = self._name()
        password = self._site.enrolled(name)["mqtt_password"]
        with self._site.agent(name):
            pass
        held = Held(self._site.network.devices.port, name, password)
        out = self._out_and_ended(name, password, held)
        seconds = measured(lambda: self._rotate(commands, name), out)
        self._comes_back(name)
        return seconds

    def _password_alone(self, commands: tuple[str, ...]) -> float:
        name, password = self._account()

        def replace() -> None:
            self._type(commands, NAME=name)
            self._site.restart_broker()

        return measured(replace, lambda: self._out(name, password))

    def _device_key(self, commands: tuple[str, ...]) -> float:
        seconds, name = self._revoked(commands)
        state, bundle = self._site.folder / name / "state", self._site.folder / name / "bundle.json"
        (state / "identity.json").unlink()
        bundle.unlink()
        self._rotate((ROTATE_DEVICE,), name)
        self._comes_back(name)
        return seconds

    def _stolen(self, commands: tuple[str, ...]) -> float:
        return self._revoked(commands)[0]

    def _revoked(self, commands: tuple[str, ...]) -> tuple[float, str]:
        name = self._name()
        password = self._site.enrolled(name)["mqtt_password"]
        with self._site.agent(name):
            pass
        out = self._out_and_ended(name, password, Held(self._site.network.devices.port, name, password))
        return measured(lambda: self._type(commands, NAME=name), out), name

    def _stolen_alone(self, commands: tuple[str, ...]) -> float:
        name, password = self._account()
        out = self._out_and_ended(name, password, Held(self._site.network.devices.port, name, password))
        broker_revoke, forget = commands

        def revoke() -> None:
            self._type((broker_revoke,), NAME=name)
            self._site.broker.reload()
            self._type((forget,), NAME=name)

        return measured(revoke, out)

    def _batch(self, commands: tuple[str, ...]) -> float:
        number = next(_NUMBERS)
        file = self._site.folder / f"token-{number}.txt"
        options = ("--name", f"of-{number}-{{n}}", "--count", "1000", "--expires", "1h", "--out", str(file))
        self._site.typed("backhaul device batch create", *options)
        token = file.read_text().strip()
        batch_id = self._site.rest("GET", "/batches", self._site.token)[1]["batches"][0]["batch_id"]

        def refused() -> bool:
            # Of one address 60 a minute are taken, and then refused with 429, whatever the token.
            time.sleep(0.5)
            return self._site.rest("POST", "/enroll", body=enroll_request(token))[0] == HTTPStatus.UNPROCESSABLE_ENTITY

        return measured(lambda: self._type(commands, ID=batch_id), refused)

    # --- services and keys ---

    def _plane_password(self, commands: tuple[str, ...]) -> float:
        site = self._site
        account = (site.settings["MQTT_USERNAME"], site.settings["MQTT_PASSWORD"])

        def replace() -> None:
            printed = dict(line.split("=", 1) for line in self._type(commands).splitlines() if "=" in line)
            site.restart_broker()
            site.restart(MQTT_PASSWORD=printed["MQTT_PASSWORD"])

        return measured(replace, lambda: refused_by_broker(site.network.services.port, *account, client_id="thief"))

    def _signing_key(self, commands: tuple[str, ...]) -> float:
        site = self._site
        path = Path(site.settings.get("SIGNING_KEY_FILE", site.folder / "control-plane" / "signing-key.json"))
        signer, name = read_key(path), self._name()
        site.enrolled(name)
        with site.agent(name):
            with self._commander(signer, name) as thief:
                seconds = measured(lambda: self._type(commands, KID=signer.kid), thief.refused) - SILENCE
            site.restart(SIGNING_KEY_FILE=str(path.with_name(f"signing-key-{next(_NUMBERS)}.json")))
            self._type(("backhaul keys add control-plane --control-plane", PUBLISH))
            site.uploads(name)
        return seconds

    def _operator_key(self, commands: tuple[str, ...]) -> float:
        site, name = self._site, self._name()
        file = site.folder / f"operator-{name}.json"
        self._type((f"backhaul keys add-operator ana --out {file}", PUBLISH))
        site.enrolled(name)
        signer = read_key(file)
        with site.agent(name), self._commander(signer, name) as thief:
            seconds = measured(lambda: self._type(commands, KID=signer.kid), thief.refused) - SILENCE
            site.uploads(name)
        return seconds

    def _root(self, commands: tuple[str, ...]) -> float:
        """The thief has the key of the folder and its passphrase; the operator signs with it and drops it."""
        site, name = self._site, self._name()
        passphrase = (site.folder / "passphrase").read_text().strip()
        signer, made = read_key(self._root_key, passphrase), self._root_key.with_name(f"root-{next(_NUMBERS)}.json")
        site.enrolled(name)
        before = decode_trust((self._root_key.parent / "trust.json").read_bytes())
        listed = msgspec.json.decode(before.keys.document, type=KeyList)
        with site.agent(name) as agent:

            def left() -> bool:
                return f"the list of keys {listed.version + 1} is obeyed" in agent.log_path.read_text()

            seconds = measured(lambda: self._type(commands, FILE=str(made), KID=signer.kid), left)
            after = decode_trust((self._root_key.parent / "trust.json").read_bytes())
            present = msgspec.json.decode(after.keys.document, type=KeyList)
            forged = KeyList(present.root, present.version + 1, datetime.now(UTC))
            of_thief = TrustDocument(after.roots, sign_document(forged, Topics().keys(), [signer]))
            # The same call with what the operator signed: it is the signature that is refused.
            codes = [site.rest("PUT", "/keys", site.token, msgspec.to_builtins(one))[0] for one in (after, of_thief)]
            if codes != [HTTPStatus.OK, HTTPStatus.CONFLICT]:
                message = f"the present list, and one that the dropped root key signed, are answered with {codes}"
                raise RuntimeError(message)
            site.uploads(name)
        made.replace(self._root_key)
        return seconds

    def _audit_key(self, _: tuple[str, ...]) -> float:
        site = self._site
        path = site.folder / "control-plane" / "audit-key.json"
        old = audit_keys(site.log)[0]

        def replace() -> None:
            site.stop()
            path.unlink()
            site.start()

        return measured(replace, lambda: bool(audit_keys(site.log)) and old not in audit_keys(site.log))

    def _client_certificate(self, _: tuple[str, ...]) -> float:
        """A listener of its own: that of the site has no TLS."""
        folder = self._site.folder / f"tls-{next(_NUMBERS)}"
        leaked, server, another = (folder / name for name in ("leaked", "server", "another"))
        for one in (leaked, server, another):
            one.mkdir(parents=True)
            self_signed(one)
        authority, port = folder / "authority.pem", free_port()
        shutil.copy(leaked / "certificate.pem", authority)
        lines = (
            f"listener {port} {LOOPBACK}", "allow_anonymous true", "require_certificate true", f"cafile {authority}",
            f"certfile {server / 'certificate.pem'}", f"keyfile {server / 'key.pem'}", "log_dest stderr",
        )  # fmt: skip
        with start_configured(folder, "\n".join(lines) + "\n", [BrokerAddress(LOOPBACK, port)]) as broker:

            def replace() -> None:
                shutil.copy(another / "certificate.pem", authority)
                broker.restart()

            return measured(replace, lambda: refused_over_tls(port, server / "certificate.pem", leaked / "both.pem"))

    # --- parts ---

    def _type(self, commands: tuple[str, ...], **values: str) -> str:
        """Type these commands, one after the other; what the last one printed."""
        printed = ""
        for command in commands:
            signs = command.startswith("backhaul keys") and not command.endswith("publish")
            options = ["--yes"] if " revoke " in command or " rm " in command or " forget " in command else []
            options += ["--passphrase-file", str(self._site.folder / "passphrase")] if signs else []
            printed = self._site.typed(_PLACEHOLDER.sub(lambda found: values[found[1]], command), *options)
        return printed

    def _rotate(self, commands: tuple[str, ...], name: str) -> None:
        """The new bundle, with what it was enrolled with, in place of the old one."""
        made = self._site.folder / name / f"bundle-{next(_NUMBERS)}.json"
        (command,) = commands
        typed = _PLACEHOLDER.sub(lambda found: {"NAME": name, "FILE": str(made)}[found[1]], command)
        self._site.typed(typed, *self._site.places(name), "--yes")
        made.replace(self._site.folder / name / "bundle.json")

    def _comes_back(self, name: str) -> None:
        """The device starts with its bundle, and uploads."""
        with self._site.agent(name):
            self._site.uploads(name)

    def _name(self) -> str:
        return f"till-{next(_NUMBERS)}"

    def _account(self) -> tuple[str, str]:
        """A device with an account alone, which the broker knows, and its password."""
        name = self._name()
        printed = self._site.typed(f"backhaul broker enroll {name}")
        self._site.broker.reload()
        password = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)["MQTT_PASSWORD"]
        self._site.until(lambda: not self._out(name, password), f"the account of {name}")
        self._site.typed(f"backhaul client add {name}")
        return name, password

    def _out(self, name: str, password: str) -> bool:
        return refused_by_broker(self._site.network.devices.port, name, password)

    def _out_and_ended(self, name: str, password: str, held: Held) -> Callable[[], bool]:
        """Whether the connection has ended and no other is taken. A try while it lives would end it by taking over."""
        return lambda: held.ended and self._out(name, password)

    def _commander(self, signer: Signer, name: str) -> Commander:
        return Commander(self._site.network.services.port, self._site.network.operator, signer, name)
