"""A broker's URL: its two schemes, its default ports, and what is refused."""

import pytest

from schemas.broker_url import BrokerUrl
from schemas.errors import SchemaError


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("mqtt://broker", BrokerUrl("broker", 1883, secure=False)),
        ("mqtts://broker/", BrokerUrl("broker", 8883, secure=True)),
        ("mqtts://broker:1", BrokerUrl("broker", 1, secure=True)),
        ("mqtt://[::1]:1883", BrokerUrl("::1", 1883, secure=False)),
    ],
)
def test_host_port_and_tls_come_from_the_url(url: str, found: BrokerUrl) -> None:
    assert BrokerUrl.parse(url) == found


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker:1883",
        "//broker:1883",
        "http://broker:1883",
        "ssl://broker:8883",
        "mqtts://broker:0",
        "mqtts://broker:65536",
        "mqtts://",
        "mqtt://a..b",
        "mqtt://user:secret@broker",
        "mqtt://broker/secret",
        "mqtt://broker?secret",
    ],
)
def test_every_other_url_is_refused_and_not_repeated(url: str) -> None:
    """An unknown scheme must never mean a connection without TLS."""
    with pytest.raises(SchemaError, match="mqtt://host:1883") as caught:
        BrokerUrl.parse(url)
    assert "secret" not in str(caught.value)
