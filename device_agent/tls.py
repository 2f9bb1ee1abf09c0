"""The TLS settings of all connections of the agent.

Rule: the system's certificates, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`; always verified, without a switch. All
connections share one context, which loads only the system certificates that it meets: all of them take more than 1 MiB.
"""

import functools
import os
import re
import ssl
import time
from pathlib import Path
from typing import Final

_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""The name of a certificate in a folder that OpenSSL searches: the hash of its subject (openssl-rehash(1))."""


_DATES: Final = frozenset({9, 10})
"""Certificates that are not valid yet, and those that have expired (X509_STORE_CTX_get_error(3))."""

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})


def failure_text(error: Exception) -> str:
    """Why a connection failed, for a person: a certificate that is not accepted is named as such.

    Whether a date is wrong or the device's clock is cannot be known from here, so the text has the clock too.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the certificate of the server is not accepted: {error.verify_message}"
        shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        return f"{text}; the clock of this device is at {shown} UTC" if error.verify_code in _DATES else text
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        return "what answers does not speak TLS: is this another service, or the login page of a network?"
    return f"{type(error).__name__}: {error}".rstrip(": ")


@functools.cache
def client_context() -> ssl.SSLContext:
    """The context for every connection, created for the first one."""
    context = ssl.create_default_context(capath=_system_folder())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


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
