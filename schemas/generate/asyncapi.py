"""The AsyncAPI 3.0 document: every topic, who sends and who receives there, and how.

Rule: pure, and derived from `TOPICS`; the shape of a message is a reference to its JSON Schema beside this document.
"""

from inspect import getdoc
from typing import Any, Final

from schemas.messages import PROTOCOL, Birth, Command, Presence, Response, Status
from schemas.names import TRACEPARENT, TRACEPARENT_PATTERN
from schemas.signing.documents import TrustDocument
from schemas.topics import CLIENT_ID_PATTERN, RESERVED_PREFIXES, TOPICS, Channel, Party, Topic, Topics

Json = dict[str, Any]

BINDING_VERSION: Final = "0.2.0"
"""Of the AsyncAPI MQTT bindings."""

KEEPALIVE: Final = 30
SESSION_EXPIRY: Final = 600
MESSAGES: Final = {kind.__name__: kind for kind in (Command, Response, Status, Presence, Birth, TrustDocument)}
ROLES: Final = {Party.DEVICE: "agent", Party.SERVICE: "service"}

_ABOUT: Final = """\
Backhaul commands a fleet of devices behind NAT to upload chosen files to object storage.
MQTT v5; JSON in UTF-8, at most 128 KiB a message, nested at most 16 deep. Unknown fields are ignored.
Sizes are bytes, durations seconds, instants UTC RFC 3339. The topic root, fleet/v1 unless configured otherwise, is the
major version. An agent's MQTT client id, its username and its client_id are one and the same. On every CONNACK an
agent subscribes again, then publishes its presence, then a hello."""

_DESCRIPTIONS: Final = {
    Channel.COMMAND: "The owner of an upload, or an operator, commands one agent.",
    Channel.RESPONSE: "One agent requests parts, reports an end, or answers a command.",
    Channel.STATUS: "One agent reports its progress, only while it uploads or waits, at most once a second.",
    Channel.PRESENCE: "One agent, or its will, reports whether it is connected.",
    Channel.BIRTH: "A control plane requests a hello of every agent, after 0 to 30 s of jitter.",
    Channel.KEYS: "The roots of trust since the first, and the list of keys that agents obey, signed by the latest.",
}


def asyncapi(root: str | None = None) -> Json:
    """The document for one topic root (the default one when None)."""
    topics = Topics() if root is None else Topics(root)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Backhaul", "version": f"{PROTOCOL}.0.0", "description": _ABOUT, "license": {"name": "MIT"}},
        "defaultContentType": "application/json",
        "servers": {"devices": _devices(topics), "services": _services()},
        "channels": {str(topic.channel): _channel(topic, topics) for topic in TOPICS},
        "operations": dict(operation for topic in TOPICS for operation in _operations(topic)),
        "components": {
            "messages": {topic.message: _message(topic.message) for topic in TOPICS},
            "parameters": {"client_id": {"description": _client_id()}},
        },
    }


def address(topic: Topic, topics: Topics) -> str:
    """The address of the channel, with `{client_id}` in place of the client."""
    return topics.every(topic.channel).replace("+", "{client_id}")


def _everywhere(pattern: str) -> str:
    r"""The pattern in the syntax of ECMAScript, which writes `$` for `\Z`."""
    return pattern.replace(r"\Z", "$")


def _client_id() -> str:
    return f"Names one device: {_everywhere(CLIENT_ID_PATTERN)}, and not beginning with {', '.join(RESERVED_PREFIXES)}."


def _devices(topics: Topics) -> Json:
    [presence] = [topic for topic in TOPICS if topic.channel is Channel.PRESENCE]
    will = {
        "topic": address(presence, topics),
        "qos": presence.qos,
        "retain": presence.retained,
        "message": "a Presence with status offline, the epoch of this connection and sequence 2^53 - 1",
    }
    session = {"cleanSession": False, "sessionExpiryInterval": SESSION_EXPIRY, "keepAlive": KEEPALIVE, "lastWill": will}
    return _server("The listener for agents: the client id is the username.", session)


def _services() -> Json:
    session = {"cleanSession": True, "sessionExpiryInterval": 0, "keepAlive": KEEPALIVE}
    return _server("The listener for control planes (control-plane-…) and operators (cli-…).", session)


def _server(description: str, session: Json) -> Json:
    return {
        "host": "{host}",
        "protocol": "mqtt",
        "protocolVersion": "5.0",
        "description": description,
        "variables": {"host": {"description": "Address and port of the listener.", "default": "localhost:1883"}},
        "bindings": {"mqtt": session | {"bindingVersion": BINDING_VERSION}},
    }


def _channel(topic: Topic, topics: Topics) -> Json:
    channel: Json = {
        "address": address(topic, topics),
        "title": str(topic.channel),
        "description": _DESCRIPTIONS[topic.channel],
        "messages": {topic.message: {"$ref": f"#/components/messages/{topic.message}"}},
    }
    if topic.per_client:
        channel["parameters"] = {"client_id": {"$ref": "#/components/parameters/client_id"}}
    return channel


def _operations(topic: Topic) -> tuple[tuple[str, Json], tuple[str, Json]]:
    """Both ends of one topic."""
    sends = f"{ROLES[topic.writer]}Sends{topic.message}"
    receives = f"{ROLES[topic.reader]}Receives{topic.message}"
    return (sends, _operation(topic, "send", topic.writer)), (receives, _operation(topic, "receive", topic.reader))


def _operation(topic: Topic, action: str, party: Party) -> Json:
    operation: Json = {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.channel}"},
        "messages": [_in_channel(topic.channel, topic.message)],
        "tags": [{"name": ROLES[party]}],
        "bindings": {"mqtt": {"qos": topic.qos, "retain": topic.retained, "bindingVersion": BINDING_VERSION}},
    }
    if topic.channel is Channel.COMMAND:
        reply = {"$ref": f"#/channels/{Channel.RESPONSE}"}
        operation["reply"] = {"channel": reply, "messages": [_in_channel(Channel.RESPONSE, Response.__name__)]}
    return operation


def _in_channel(channel: Channel, name: str) -> Json:
    return {"$ref": f"#/channels/{channel}/messages/{name}"}


def _message(name: str) -> Json:
    kind = MESSAGES[name]
    message: Json = {
        "name": name,
        "title": name,
        "summary": getdoc(kind),
        "contentType": "application/json",
        "payload": {"$ref": f"./{name.lower()}.json"},
    }
    if "message_id" in kind.__struct_fields__:
        description = "A response names the command it answers."
        message["correlationId"] = {"location": "$message.payload#/message_id", "description": description}
    if kind in {Command, Response}:
        message["bindings"] = {"mqtt": {"bindingVersion": BINDING_VERSION}}
        message["x-user-properties"] = {TRACEPARENT: {"type": "string", "pattern": _everywhere(TRACEPARENT_PATTERN)}}
    return message
