"""The PEM files of the settings: each fault is one line that names setting and file, at the start of the program."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from device_agent.errors import SettingsError
from device_agent.settings import load_settings
from device_agent.tls import TlsFiles, client_context
from tests.support.authorities import Authority

BASE = {"CLIENT_ID": "till-7", "STATE_DIR": "/state", "MQTT_URL": "wss://broker"}


def wrong(**settings: object) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings({**BASE, **{name: str(value) for name, value in settings.items()}})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(name="authority")
def _authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path, "devices")


def test_each_fault_is_one_line_with_setting_and_file(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("till-7")
    _, other = authority.issue("till-8")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    locked = tmp_path / "locked.key"
    private = load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    missing = tmp_path / "missing"
    for settings, line in (
        ({"CA_FILE": missing}, f"CA_FILE: {missing}: No such file or directory"),
        ({"CA_FILE": text}, f"CA_FILE: {text} has no certificate in PEM form"),
        ({"CA_FILE": tmp_path}, f"CA_FILE: {tmp_path}: Is a directory"),
        ({"MQTT_CERTIFICATE": missing, "MQTT_KEY": key}, f"MQTT_CERTIFICATE: {missing}: No such file"),
        ({"MQTT_CERTIFICATE": text, "MQTT_KEY": key}, f"MQTT_CERTIFICATE: {text} has no certificate in PEM form"),
        ({"MQTT_CERTIFICATE": certificate}, "MQTT_KEY names the file of the key"),
        ({"MQTT_CERTIFICATE": certificate, "MQTT_KEY": text}, f"MQTT_KEY: {text} has no key in PEM form"),
        ({"MQTT_CERTIFICATE": certificate, "MQTT_KEY": other}, f"MQTT_KEY: the key in {other} does not belong to"),
        ({"MQTT_CERTIFICATE": certificate, "MQTT_KEY": locked}, f"MQTT_KEY: the key in {locked} has a passphrase"),
        ({"MQTT_KEY": key}, "MQTT_KEY: needs MQTT_CERTIFICATE"),
        ({"MQTT_CERTIFICATE": certificate, "MQTT_URL": "ws://broker"}, "MQTT_CERTIFICATE: needs mqtts://"),
        ({"MQTT_PROXY": "https://u:secret@proxy"}, "MQTT_PROXY: must be http://"),
        ({"UPLOAD_PROXY": "proxy:3128"}, "UPLOAD_PROXY: must be http://"),
    ):
        found = wrong(**settings)
        assert line in found
        assert "secret" not in found


def test_the_authority_is_trusted_beside_those_of_the_system(authority: Authority) -> None:
    alone = client_context().cert_store_stats()["x509_ca"]
    context = client_context(TlsFiles(str(authority.file)))
    assert context.cert_store_stats()["x509_ca"] == alone + 1


def test_a_renewed_certificate_is_used_for_the_next_connection(authority: Authority) -> None:
    files = TlsFiles(None, *map(str, authority.issue("till-7")))
    first = client_context(files)
    assert client_context(files) is first
    replacement = [path.read_bytes() for path in authority.issue("till-7-new")]
    for path, content in zip((files.certificate, files.key), replacement, strict=True):
        assert path is not None
        fresh = Path(f"{path}.new")
        fresh.write_bytes(content)
        fresh.replace(path)
    assert client_context(files) is not first
