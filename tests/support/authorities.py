"""Certificate authorities for tests, and certificates that they issue.

Rule: made anew for each test that requires them; a certificate is valid for a day, or expired. An authority is older
than a clock that begins in 1970: of such a device the server's certificate is what is not valid yet.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BEGINNING: Final = datetime(1970, 1, 2, tzinfo=UTC)
AN_HOUR: Final = timedelta(hours=1)
ONE_DAY: Final = timedelta(days=1)
TEN_DAYS: Final = timedelta(days=10)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority, in files `{name}-ca.crt` and certificates beside it."""

    directory: Path
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, directory: Path, name: str) -> "Authority":
        """A self-signed authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = distinguished(f"{name} authority")
        certificate = (
            draft(subject, subject, key, since=BEGINNING)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        directory.mkdir(parents=True, exist_ok=True)
        made = cls(directory, name, key, certificate)
        write(made.file, certificate)
        return made

    @property
    def file(self) -> Path:
        """The file of its own certificate."""
        return self.directory / f"{self.name}-ca.crt"

    def issue(self, common_name: str, *names: str, expired: bool = False) -> tuple[Path, Path]:
        """A certificate for one party, for loopback or the names and addresses given: its file and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([alternative(one) for one in names or ("localhost", "127.0.0.1")])
        certificate = (
            draft(
                distinguished(common_name),
                self.certificate.subject,
                key,
                since=datetime.now(UTC) - (TEN_DAYS if expired else AN_HOUR),
                until=datetime.now(UTC) + (-ONE_DAY if expired else ONE_DAY),
            )
            .add_extension(alternatives, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        paths = (self.directory / f"{common_name}.crt", self.directory / f"{common_name}.key")
        write(paths[0], certificate)
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return paths

    def server(self, *, expired: bool = False) -> ssl.SSLContext:
        """What a server on loopback needs, with a new certificate of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("server", expired=expired))
        return context

    def client(self, common_name: str, server: "Authority") -> ssl.SSLContext:
        """What a client with a certificate of this authority needs to talk to a server of another."""
        context = ssl.create_default_context(cafile=str(server.file))
        context.load_cert_chain(*self.issue(common_name))
        return context


def distinguished(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def draft(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    since: datetime,
    until: datetime | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until or datetime.now(UTC) + ONE_DAY)
    )


def write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
