"""`make-secrets` with names and addresses: a device accepts the certificate for what it connects to.

Rule: the script itself runs, with the system's openssl; a TLS client of Python's decides.
"""

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "production" / "make-secrets"


def made(folder: Path, host: str) -> str:
    """Run the script; what it writes to stderr."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    run = subprocess.run(["bash", SCRIPT, host, folder], capture_output=True, text=True, check=True, timeout=60)
    return run.stderr


def accepted(folder: Path, host: str) -> bool:
    """Whether a client that connected to `host` accepts the broker's certificate."""
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    server.load_cert_chain(folder / "broker.crt", folder / "broker.key")
    client.load_verify_locations(folder / "broker-ca.crt")
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ours, client.wrap_socket(ours, server_hostname=host):
            return True
    except ssl.SSLCertVerificationError:
        return False
    finally:
        thread.join(60)


@pytest.mark.parametrize("host", ["broker.example", "192.0.2.10", "2001:db8::10"])
def test_a_device_accepts_the_certificate_of_the_name_or_address_that_it_connects_to(tmp_path: Path, host: str) -> None:
    """An address in the place of a name is of no use: every agent would refuse it."""
    assert "will refuse it" not in made(tmp_path, host)
    assert accepted(tmp_path, host)
    assert accepted(tmp_path, "broker-services")
    assert not accepted(tmp_path, "other.example")
    assert not accepted(tmp_path, "192.0.2.11")


@pytest.mark.parametrize("other", ["192.0.2.10", "other.example"])
def test_a_certificate_for_another_host_is_reported(tmp_path: Path, other: str) -> None:
    made(tmp_path, "broker.example")
    assert f"broker.crt is not for {other}: devices will refuse it" in made(tmp_path, other)


def test_an_option_in_the_place_of_the_host_makes_nothing(tmp_path: Path) -> None:
    words = ["bash", str(SCRIPT), "--kubernetes", "broker.example"]
    run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, "HOST comes first" in run.stderr, list(tmp_path.iterdir())) == (2, True, [])
