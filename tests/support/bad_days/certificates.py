"""An authority of the test, and server certificates of it with any dates.

Rule: keys are made anew for each test; nothing is kept.
"""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

VALID = (timedelta(days=-30), timedelta(days=30))
EXPIRED = (timedelta(days=-30), timedelta(days=-1))


class Authority:
    """Signs certificates for 127.0.0.1 and localhost; `path` is its own, for `SSL_CERT_FILE`."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        decade = timedelta(days=3650)
        key_usage = x509.BasicConstraints(ca=True, path_length=0)
        # It is older than a clock that begins in 1970: the certificate of the server is what is not valid yet.
        since = datetime(1970, 1, 2, tzinfo=UTC)
        own = _builder(self._name, self._name, self._key.public_key(), since, datetime.now(UTC) + decade)
        certificate = own.add_extension(key_usage, critical=True).sign(self._key, SHA256())
        self.path = folder / "authority.pem"
        self.path.write_bytes(certificate.public_bytes(Encoding.PEM))

    def server(self, dates: tuple[timedelta, timedelta] = VALID) -> ssl.SSLContext:
        """The context of a server whose certificate is valid between these times from now."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        builder = _builder(_name("localhost"), self._name, key.public_key(), now + dates[0], now + dates[1])
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        certificate = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(
            self._key, SHA256()
        )
        path = self._folder / "server.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(since).not_valid_after(until)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
