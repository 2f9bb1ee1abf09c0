"""The certificate that the control plane, `backhaul doctor` and `backhaul mqtt` show a broker that requires one.

Rule: TLS is real, between two ends in memory; nothing is connected.
"""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from control_plane.adapters.mqtt.examination import MqttExaminer
from control_plane.adapters.mqtt.messenger import MqttMessenger, MqttSettings
from control_plane.adapters.mqtt.tls import context_for
from control_plane.services.errors import MessengerDown
from control_plane.settings import Settings, SettingsError
from schemas.broker_url import BrokerUrl
from schemas.topics import Topics
from tests.support.authorities import Authority

BROKER = BrokerUrl.parse("mqtts://localhost:8884")


@pytest.fixture(name="authority")
def _authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Of services; it is the one that the broker's certificate is of too."""
    authority = Authority.make(tmp_path, "services")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


def subject_seen(authority: Authority, client: ssl.SSLContext) -> object:
    """The subject of the certificate that a broker sees which requires one; `SSLError` when it sees none."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    server.load_cert_chain(*authority.issue("localhost", "localhost"))
    server.verify_mode = ssl.CERT_REQUIRED
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done: set[int] = set()
    while len(done) < len(ends):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                continue
    found = ends[1].getpeercert()
    assert found is not None
    return found["subject"]


def test_a_broker_that_requires_a_certificate_sees_it(authority: Authority) -> None:
    certificate, key = authority.issue("operator")
    both = certificate.with_name("both.pem")
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    for files in ((str(certificate), str(key)), (str(both), None)):
        context = context_for(BROKER, *files)
        assert context is not None
        assert "operator" in str(subject_seen(authority, context))
    bare = context_for(BROKER, None, None)
    assert bare is not None
    with pytest.raises(ssl.SSLError):
        subject_seen(authority, bare)
    assert context_for(BrokerUrl.parse("mqtt://localhost"), str(certificate), str(key)) is None


def messenger(settings: MqttSettings) -> object:
    return MqttMessenger(settings, Topics(), lambda *_: None)._opened()


def examiner(settings: MqttSettings) -> object:
    return MqttExaminer(settings, Topics())._client(None, None)


@pytest.mark.parametrize("connection", [messenger, examiner])
def test_both_connections_use_the_files_and_name_one_that_cannot_be_used(
    authority: Authority, tmp_path: Path, connection: Callable[[MqttSettings], object]
) -> None:
    certificate, key = map(str, authority.issue("operator"))
    _, other = map(str, authority.issue("another"))
    locked = tmp_path / "locked.key"
    private = load_pem_private_key(Path(key).read_bytes(), None)
    locked.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    for files in ((str(tmp_path / "none"), key), (key, None), (certificate, other), (certificate, str(locked))):
        with pytest.raises(MessengerDown, match=f"MQTT_CERTIFICATE={files[0]}"):
            connection(MqttSettings(url="mqtts://localhost:8884", certificate=files[0], key=files[1]))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"MQTT_KEY": "/a.key"}, "MQTT_KEY: needs MQTT_CERTIFICATE beside it"),
        ({"MQTT_CERTIFICATE": "a.pem", "MQTT_URL": "mqtts://b"}, "MQTT_CERTIFICATE=a.pem: must be an absolute path"),
        ({"MQTT_CERTIFICATE": "/a.pem"}, "MQTT_CERTIFICATE: needs mqtts:// or wss:// in MQTT_URL"),
    ],
)
def test_settings_that_show_no_certificate_are_refused(settings: dict[str, str], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(settings)
    assert line in str(caught.value)
