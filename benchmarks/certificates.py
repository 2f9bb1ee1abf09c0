"""A certificate for loopback that is good for a day.

Rule: made by openssl, for this run alone.
"""

import subprocess
from pathlib import Path


def self_signed(folder: Path) -> Path:
    """A PEM file with the key and the certificate, valid for 127.0.0.1 in a program that trusts it."""
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:TRUE"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    both.write_text(key.read_text() + certificate.read_text())
    return both
