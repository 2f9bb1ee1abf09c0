"""The TLS settings of all connections of the agent.

Rule: the system's certificates, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`, and those of the setting `CA_FILE`
beside them; always verified, without a switch. Connections share one context, which loads only the system certificates
that it meets: all of them take more than 1 MiB. A file that was replaced is read again for the next connection.
"""

import functools
import os
import re
import ssl
import time
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.json import decode

from device_agent.errors import SettingsError

_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""The name of a certificate in a folder that OpenSSL searches: the hash of its subject (openssl-rehash(1))."""

_ENCRYPTED: Final = b"ENCRYPTED"
"""In a PEM file with a key that needs a passphrase: in its first line, or in the one below it."""

_DATES: Final = frozenset({9, 10})
"""Certificates that are not valid yet, and those that have expired (X509_STORE_CTX_get_error(3))."""

_UNKNOWN: Final = frozenset({18, 19, 20, 21})
"""Certificates of an authority that is not known."""

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})


class TlsFiles(Struct, frozen=True):
    """Paths of PEM files: authorities to trust as well, and the certificate that this device shows, with its key.

    The key may be in the file of the certificate.
    """

    ca_file: str | None = None
    certificate: str | None = None
    key: str | None = None


_NONE: Final = TlsFiles()


def client_context(files: TlsFiles = _NONE) -> ssl.SSLContext:
    """The context for every connection with these files, created for the first one.

    `SettingsError` names the setting with a file that cannot be used.
    """
    return context_of(files, *(None if path is None else _stamp(name, path) for name, path in _named(files)))


def failure_text(error: Exception) -> str:
    """Why a connection failed, for a person: a certificate that is not accepted is named as such.

    Whether a date is wrong or the device's clock is cannot be known from here, so the text has the clock too.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the certificate of the server is not accepted: {error.verify_message}"
        shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        if error.verify_code in _UNKNOWN:
            return f"{text} (its authority belongs into CA_FILE)"
        return f"{text}; the clock of this device is at {shown} UTC" if error.verify_code in _DATES else text
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        return "what answers does not speak TLS: is this another service, or the login page of a network?"
    return f"{type(error).__name__}: {error}".rstrip(": ")


@functools.lru_cache(maxsize=4)
def context_of(files: TlsFiles, *_stamps: tuple[int, int] | None) -> ssl.SSLContext:
    """A new context; the stamps are those of its files."""
    context = ssl.create_default_context(capath=_system_folder())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.ca_file is not None:
        _load_authorities(context, files.ca_file)
    if files.certificate is not None:
        _load_certificate(context, files.certificate, files.key)
    return context


def _named(files: TlsFiles) -> tuple[tuple[str, str | None], ...]:
    return ("CA_FILE", files.ca_file), ("MQTT_CERTIFICATE", files.certificate), ("MQTT_KEY", files.key)


def _stamp(name: str, path: str) -> tuple[int, int]:
    try:
        found = Path(path).stat()
    except OSError as error:
        text = f"{name}: {path}: {error.strerror}"
        raise SettingsError(text) from error
    return found.st_mtime_ns, found.st_ino


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    content = _read("CA_FILE", path)
    try:
        if content.startswith(b"{"):
            # A bundle has its authorities in it; a device without one has no decoder for it in its memory.
            from schemas.signing.enrolment import Bundle  # noqa: PLC0415

            context.load_verify_locations(cadata=decode(content, type=Bundle).ca or "")
        else:
            context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as error:
        text = f"CA_FILE: {path} has no certificate in PEM form"
        raise SettingsError(text) from error


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    content = _read("MQTT_CERTIFICATE", certificate)
    name, where = ("MQTT_CERTIFICATE", certificate) if key is None else ("MQTT_KEY", key)
    if _ENCRYPTED in (content if key is None else _read("MQTT_KEY", key)):
        text = f"{name}: the key in {where} has a passphrase, which this agent cannot be asked for"
        raise SettingsError(text)
    try:
        # Without a password OpenSSL would wait for one on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            text = f"{name}: the key in {where} does not belong to the certificate in {certificate}"
        elif b"-----BEGIN CERTIFICATE-----" not in content:
            text = f"MQTT_CERTIFICATE: {certificate} has no certificate in PEM form"
        else:
            text = f"{name}: {where} has no key in PEM form, or one that OpenSSL does not take"
            text += "" if key is not None else "; MQTT_KEY names the file of the key"
        raise SettingsError(text) from error


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        text = f"{name}: {path}: {error.strerror}"
        raise SettingsError(text) from error


def _system_folder() -> str | None:
    """The folder of the system's certificates, if the bundle file is only a copy of its content; else None.

    update-ca-certificates(8) writes both into one folder. Where the two may differ, OpenSSL's defaults apply.
    """
    paths = ssl.get_default_verify_paths()
    if paths.openssl_cafile_env in os.environ or not paths.cafile or not paths.capath:
        return None
    folder = Path(paths.capath).resolve()
    hashed = any(_HASHED.fullmatch(entry.name) for entry in folder.iterdir())
    return paths.capath if hashed and Path(paths.cafile).resolve().parent == folder else None
