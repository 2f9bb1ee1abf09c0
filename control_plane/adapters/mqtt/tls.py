"""The TLS settings of a connection to the broker.

Rule: the broker's certificate is always verified, by the authorities of the system or of `SSL_CERT_FILE`. The files are
read for each connection, so one that was renewed is used for the next.
"""

import ssl

from control_plane.services.errors import MessengerDown
from schemas.broker_url import BrokerUrl


def context_for(broker: BrokerUrl, certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    """What a connection to this broker is encrypted with; None without TLS.

    `certificate` is the PEM file of the certificate that is shown, `key` that of its key if it is another file.
    `MessengerDown` names the setting and the file that cannot be used.
    """
    if not broker.secure:
        return None
    context = ssl.create_default_context()
    if certificate is None:
        return context
    try:
        # Without a passphrase OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except OSError as error:
        # Of OpenSSL's own texts no one says which of the two it is.
        why = "no certificate in PEM form with its key, without a passphrase"
        why = why if isinstance(error, ssl.SSLError) else str(error.strerror)
        text = f"MQTT_CERTIFICATE={certificate}{'' if key is None else f', MQTT_KEY={key}'}: {why}"
        raise MessengerDown(text) from error
    return context
