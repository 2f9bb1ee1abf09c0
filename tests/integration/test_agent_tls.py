"""The certificates that the agent trusts, and those that it loads into memory."""

import shutil
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from device_agent import tls
from tests.support.self_signed import self_signed

HASH_OF_LOCALHOST: Final = "ce275665"
"""The output of `openssl x509 -hash` for a certificate with CN=localhost."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system's folder of certificates with one in it, and the bundle beside."""
    folder = tmp_path / "certs"
    folder.mkdir()
    shutil.copy(self_signed(tmp_path), folder / "bundle.crt")
    (folder / f"{HASH_OF_LOCALHOST}.0").symlink_to("bundle.crt")
    (tmp_path / "cert.pem").symlink_to(folder / "bundle.crt")
    paths = ssl.get_default_verify_paths()
    changed = paths._replace(cafile=str(tmp_path / "cert.pem"), capath=str(folder))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: changed)
    monkeypatch.delenv(paths.openssl_cafile_env, raising=False)
    tls.context_of.cache_clear()
    yield folder
    tls.context_of.cache_clear()


def shake_hands(certificate: Path) -> None:
    """Connect with TLS to a server with this certificate; `ssl.SSLError` when it is not trusted."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate)
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            server_context.wrap_socket(there, server_side=True).close()
        except OSError:
            there.close()

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        with here, tls.client_context().wrap_socket(here, server_hostname="localhost"):
            pass
    finally:
        serving.join()


def test_only_needed_system_certificates_are_loaded(folder: Path) -> None:
    assert tls.client_context().cert_store_stats()["x509"] == 0
    shake_hands(folder / "bundle.crt")
    assert tls.client_context().cert_store_stats()["x509"] == 1


def test_a_server_without_a_certificate_in_the_folder_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ssl.SSLError):
        shake_hands(self_signed(other))


@pytest.mark.usefixtures("folder")
def test_a_bundle_from_the_environment_is_loaded_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(self_signed(other)))
    assert tls.client_context().cert_store_stats()["x509"] == 1
    shake_hands(other / "server.pem")


def test_a_folder_without_hashes_is_no_substitute_for_the_bundle(folder: Path) -> None:
    (folder / f"{HASH_OF_LOCALHOST}.0").unlink()
    assert tls._system_folder() is None
