"""The independent agent with one fault, each as another maker could have made it.

Rule: a fault overrides one method, and names the check that has to find it. `python -m tests.support.planted_faults
NAME` runs the agent with it.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.support.independent_agent.agent import Agent
from tests.support.independent_agent.types import Json, Refused
from tests.support.independent_agent.upload import Upload

FAULTS: Final[dict[str, tuple[str, type[Agent]]]] = {}
"""The check that finds it, and the agent, by the name of the fault."""


def fault(name: str, check: str) -> Callable[[type[Agent]], type[Agent]]:
    """Register a fault."""

    def add(agent: type[Agent]) -> type[Agent]:
        FAULTS[name] = (check, agent)
        return agent

    return add


@fault("clean start", "session.clean-start")
class _CleanStart(Agent):
    def clean_start(self) -> bool:
        return True


@fault("no session expiry", "session.properties")
class _NoExpiry(Agent):
    def connect_properties(self) -> Json:
        return {"ReceiveMaximum": 16}


@fault("no will delay", "session.will")
class _NoWillDelay(Agent):
    def of_will(self) -> Properties:
        made = super().of_will()
        made.WillDelayInterval = 0
        return made


@fault("retained commands are sent at each connect", "session.subscriptions")
class _RetainHandling(Agent):
    def subscriptions(self) -> list[tuple[str, SubscribeOptions]]:
        return [(topic, SubscribeOptions(qos=1)) for topic, _ in super().subscriptions()]


@fault("retained commands are obeyed", "session.retained-command")
class _ObeysRetained(_RetainHandling):
    def takes_retained(self) -> bool:
        return True


@fault("presence before the subscription", "session.order")
class _EarlyPresence(Agent):
    def subscribe(self, client: mqtt.Client) -> None:
        self.publish_presence("online", 0)
        super().subscribe(client)

    def beat(self) -> None:
        self.sequence = max(self.sequence, 1)
        super().beat()


@fault("no PUBACK", "session.acknowledgement")
class _NoPuback(Agent):
    def acknowledge(self, client: mqtt.Client, mid: int) -> None:
        """None."""


@fault("responses are retained", "topics.own")
class _RetainedResponses(Agent):
    def respond(self, response: Json) -> None:
        if self.client is not None and self.online:
            self.client.publish(f"{self.root}/response", json.dumps(response), 1, retain=True)


@fault("online never expires", "topics.expiry")
class _NoPresenceExpiry(Agent):
    def publish_presence(self, status: str, sequence: int) -> mqtt.MQTTMessageInfo:
        assert self.client is not None
        return self.client.publish(f"{self.root}/presence", json.dumps(self.presence(status, sequence)), 1, retain=True)


@fault("the epoch is always 1", "presence.epoch")
class _SameEpoch(Agent):
    def next_epoch(self) -> int:
        return 1


@fault("a new install_id at each connect", "presence.epoch")
class _NewInstall(Agent):
    def connect(self) -> None:
        self.install_id = str(time.monotonic_ns())
        super().connect()


@fault("no beat", "presence.beat")
class _NoBeat(Agent):
    def beat_every(self) -> float:
        return 3600.0


@fault("no graceful offline", "presence.restart")
class _Abrupt(Agent):
    def stop(self) -> None:
        self.stopping = True


@fault("types are converted", "command.wrong-types")
class _Converts(Agent):
    def check(self, command: Json) -> None:
        config = command.get("payload", {}).get("upload_config")
        if isinstance(config, dict) and config.get("attempt") is not None:
            config["attempt"] = int(config["attempt"])
        super().check(command)


@fault("bad JSON ends the agent", "command.unreadable")
class _Dies(Agent):
    def command(self, data: bytes) -> None:
        json.loads(data)["message_id"].lower()
        super().command(data)


@fault("an unknown action is not answered", "command.unknown-action")
class _Silent(Agent):
    def refuse(self, command: Json, refused: Refused) -> None:
        if refused.code != "unsupported":
            super().refuse(command, refused)


@fault("a repeated command begins again", "command.repeated")
class _Twice(Agent):
    def download(self, command: Json, payload: Json, config: Json, upload_id: str, attempt: int) -> None:
        known = self.uploads.pop(upload_id, None)
        super().download(
            command, {**payload, "acknowledges": known.sequence if known else 0}, config, upload_id, attempt
        )


@fault("the last part is padded", "offer.plan")
class _Padded(Agent):
    def report(self, upload: Upload, status: str, more: Json, refused: Refused | None = None) -> None:
        for part in more.get("wanted_parts", []):
            part["size"] = upload.part_size()
        super().report(upload, status, more, refused)


@fault("digests in hex", "offer.digest-md5")
class _Hex(Agent):
    def report(self, upload: Upload, status: str, more: Json, refused: Refused | None = None) -> None:
        wanted = [{**part, "digest": "0" * 24} for part in more.get("wanted_parts", [])]
        super().report(upload, status, {**more, **({"wanted_parts": wanted} if wanted else {})}, refused)


@fault("links lead outside", "refuse.link-outside")
class _FollowsLinks(Agent):
    def allowed(self, path: str, real: str) -> bool:
        return super().allowed(path, os.path.normpath(path))


@fault("any path is allowed", "refuse.path-not-allowed")
class _AnyPath(Agent):
    def allowed(self, path: str, real: str) -> bool:
        return True


@fault("given headers are left out", "grant.headers")
class _NoHeaders(Agent):
    def headers(self, url: Json) -> dict[str, str]:
        return {"Content-Type": "application/octet-stream", "Content-MD5": url["headers"].get("content-md5", "")}


@fault("any host is allowed", "grant.other-host")
class _AnyHost(Agent):
    def host_allowed(self, url: str) -> bool:
        return True


@fault("redirects are followed", "grant.redirect")
class _Redirected(Agent):
    def answered(self, upload: Upload, number: int, status: int, headers: Any, text: str) -> None:  # noqa: ANN401
        if status == 307:
            self.opener.open(headers["Location"], timeout=5)
        super().answered(upload, number, status, headers, text)


@fault("expired URLs are used", "grant.short-life")
class _Expired(Agent):
    def life_needed(self, life: float) -> float:
        return 0.0


@fault("a wait is ignored", "grant.wait")
class _Impatient(Agent):
    def grant(self, command: Json, payload: Json, config: Json, upload_id: str | None, attempt: int) -> None:
        super().grant(command, {**payload, "wait": None}, config, upload_id, attempt)


@fault("ETags without quotes", "response.etag-exact")
class _Unquoted(Agent):
    def done(self, upload: Upload, number: int, etag: str) -> None:
        super().done(upload, number, etag.strip('"'))


@fault("ETags are sent once only", "response.etags-repeated")
class _EtagsOnce(Agent):
    def publish_latest(self, upload: Upload) -> None:
        super().publish_latest(upload)
        if upload.latest is not None:
            upload.latest = {**upload.latest, "payload": {**upload.latest["payload"], "etags": {}}}


@fault("ETags are sent for ever", "response.etags-acknowledged")
class _EtagsAlways(Agent):
    def acknowledged(self, upload: Upload, sequence: int) -> None:
        if upload.ended is not None and sequence >= upload.sequence:
            upload.unanswered = False


@fault("a portal is believed", "put.portal")
class _BelievesPortals(Agent):
    def is_refusal(self, status: int, code: str | None) -> bool:
        return 400 <= status < 500


@fault("Retry-After is ignored", "put.retry-after")
class _Hasty(Agent):
    def failed(self, upload: Upload, number: int, text: str, after: float = 0.0) -> None:
        super().failed(upload, number, text, 0.0 * after)

    def later(self, upload: Upload, number: int, seconds: float) -> None:
        super().later(upload, number, min(seconds, 0.1))


@fault("412 is a failure", "put.precondition")
class _Conditional(Agent):
    def answered(self, upload: Upload, number: int, status: int, headers: Any, text: str) -> None:  # noqa: ANN401
        super().answered(upload, number, 503 if status == 412 else status, headers, text)


@fault("2xx without an ETag is stored", "put.no-etag")
class _NoEtag(Agent):
    def answered(self, upload: Upload, number: int, status: int, headers: Any, text: str) -> None:  # noqa: ANN401
        super().answered(upload, number, status, {"ETag": '"none"', **dict(headers.items())}, text)


@fault("a changed file is a success", "source.changed")
class _Careless(Agent):
    def unchanged(self, upload: Upload) -> bool:
        return True

    def body(self, upload: Upload, number: int, body: bytes) -> bytes:
        return body

    def mismatch(self, upload: Upload, number: int) -> None:
        self.done(upload, number, '"x"')


@fault("a close is answered", "close.silent")
class _AnswersClose(Agent):
    def close(self, upload_id: str | None, attempt: int, outcome: str) -> None:
        upload = self.uploads.get(upload_id or "")
        super().close(upload_id, attempt, outcome)
        if upload is not None:
            self.publish_latest(upload)


@fault("no tombstones", "close.tombstone")
class _Forgets(Agent):
    def buried(self, command: Json, upload_id: str, attempt: int) -> bool:
        return False


@fault("closed uploads in the hello", "hello.after-connect")
class _NeverCloses(Agent):
    def hello(self) -> None:
        before = dict(self.uploads)
        for upload_id in self.tombstones:
            self.uploads.setdefault(upload_id, Upload("m", {}, {"upload_id": upload_id}, ""))
        super().hello()
        self.uploads = before


@fault("the epoch is a text", "message.well-formed")
class _TextEpoch(Agent):
    def respond(self, response: Json) -> None:
        if self.client is not None and self.online:
            self.client.publish(f"{self.root}/response", json.dumps({**response, "epoch": str(self.epoch)}), 1)


@fault("URLs in responses", "message.no-url")
class _Leaks(Agent):
    def report(self, upload: Upload, status: str, more: Json, refused: Refused | None = None) -> None:
        urls = [url["url"] for url, *_ in upload.grants.values()] or [upload.reason]
        self.__dict__.setdefault("seen", []).extend(urls)
        super().report(upload, status, {**more, "metadata": {"urls": self.__dict__["seen"][-2:]}}, refused)

    def done(self, upload: Upload, number: int, etag: str) -> None:
        upload.reason = upload.grants[number][0]["url"] if number in upload.grants else ""
        super().done(upload, number, etag)


@fault("everything is announced", "query.unsupported")
class _Announces(Agent):
    def presence(self, status: str, sequence: int) -> Json:
        document = super().presence(status, sequence)
        return {**document, "capabilities": [one for one in document["capabilities"] if one != "health_check"]}


@fault("the object store is asked first", "message.strangers")
class _Probes(Agent):
    def put(self, upload: Upload, number: int, url: Json) -> None:
        upload.rate = upload.rate or None
        bare = {**url, "url": url["url"].partition("?")[0], "headers": {}}
        self.send(upload, bare, b"")
        super().put(upload, number, url)


if __name__ == "__main__":
    FAULTS[sys.argv[1]][1](dict(os.environ)).run()
