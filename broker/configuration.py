"""The text of the development brokers' configurations.

Rule: pure text. The caps are those of the `mosquitto.conf` at the top of the repository, and a test compares them, so
that a development broker behaves like a production broker.
"""

from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
DATABASE: Final = "mosquitto.db"

CAPS: Final = {
    "allow_zero_length_clientid": "false",
    "max_inflight_messages": "20",
    "max_keepalive": "300",
    "max_packet_size": "196608",
    "max_qos": "1",
    "max_queued_bytes": "4194304",
    "max_queued_messages": "200",
    "message_size_limit": "131072",
    "persistent_client_expiration": "2d",
    "set_tcp_nodelay": "true",
}
"""Limits of every Mosquitto here. `message_size_limit` is the protocol's 128 KiB; `max_packet_size` is larger
so that a message over the limit is refused (0x95) and its sender stays connected."""


LOGGED: Final = tuple(f"log_type {kind}" for kind in ("error", "warning", "notice", "information"))
"""What every Mosquitto here logs: no line for each packet, of which an idle device causes 1.5 MB a day."""


def development_mosquitto(*, port: int, directory: Path, persistence: bool) -> str:
    """One anonymous listener on loopback.

    Several of the caps belong to the listener above them, so the listener comes first.
    """
    options = {
        "allow_anonymous": "true",
        **CAPS,
        # `mosquitto_pub` without `-i` sends no client id; a broker without accounts needs none.
        "allow_zero_length_clientid": "true",
        "log_timestamp_format": "%Y-%m-%dT%H:%M:%S",
    }
    if persistence:
        # An interval of a minute, as in production: a test must not rely on the broker to keep anything.
        options |= {"persistence": "true", "persistence_location": f"{directory}/", "autosave_interval": "60"}
    lines = [f"listener {port} {LOOPBACK}", *(f"{name} {value}" for name, value in options.items()), *LOGGED]
    return "\n".join(lines) + "\n"


def option(config_text: str, name: str) -> str | None:
    """The value of an option in a mosquitto configuration, the last one if it is repeated.

    >>> option("persistence_location /srv/data base/", "persistence_location")
    '/srv/data base/'
    """
    rows = (line.split(maxsplit=1) for line in config_text.splitlines())
    values = [row[1].strip() for row in rows if len(row) > 1 and row[0] == name]
    return values[-1] if values else None


def database(config_text: str) -> Path | None:
    """The file in which a mosquitto with this configuration keeps its sessions; None if it keeps none."""
    location = option(config_text, "persistence_location")
    if location is None or option(config_text, "persistence") != "true":
        return None
    return Path(location) / (option(config_text, "persistence_file") or DATABASE)


def embedded_toml(*, port: int) -> str:
    """Configuration of rumqttd, the broker inside iotcore: one MQTT v5 listener on loopback.

    Without a `[v5.…]` section rumqttd speaks MQTT 3.1.1 only. A topic's log holds `max_segment_count` segments;
    what is older is forgotten, for offline sessions too.
    """
    return f"""\
id = 0

[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 10000
max_segment_size = 10485760
max_segment_count = 10

[v5.1]
name = "development"
listen = "{LOOPBACK}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {CAPS["max_packet_size"]}
max_inflight_count = {CAPS["max_inflight_messages"]}
dynamic_filters = true
"""
