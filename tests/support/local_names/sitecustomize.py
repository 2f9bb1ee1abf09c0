"""Makes names below `s3.test` and `localhost` lead to this machine; the interpreter imports this at its start (`site`).

Rule: nothing else is here. The C library knows no such names without a change to the machine.
"""

import socket
from typing import Any

_resolve = socket.getaddrinfo


def _local(host: Any, *rest: Any, **more: Any) -> Any:  # noqa: ANN401 - as the standard library has it
    name = host.decode() if isinstance(host, bytes) else str(host)
    return _resolve("127.0.0.1" if name.endswith(("s3.test", ".localhost")) else host, *rest, **more)


socket.getaddrinfo = _local
