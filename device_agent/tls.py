"""The TLS settings of everything that the agent connects to.

Rule: the system's certificates, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`; always verified, no way to say
otherwise. One context for all connections, since the certificates in it take about 2 MiB.
"""

import functools
import ssl


@functools.cache
def client_context() -> ssl.SSLContext:
    """The context for every connection, made at the first one."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
