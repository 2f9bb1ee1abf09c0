"""The floor for an upload: PUTs over `http.client`, streaming blocks of 256 KiB, without digest, journal or broker.

python -m benchmarks.bare URL FILE PART_SIZE THREADS
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from threading import local
from urllib.parse import urlsplit

BLOCK = 256 * 1024


def main(url: str, path: str, part_size: int, threads: int) -> None:
    """Send every part of the file, that many at a time."""
    parts = urlsplit(url)
    kept = local()

    def connection() -> HTTPConnection:
        if not hasattr(kept, "connection"):
            kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
            kept.connection = kind(parts.hostname or "", parts.port)
        found: HTTPConnection = kept.connection
        return found

    def send(number: int) -> None:
        size = min(part_size, total - number * part_size)
        line = connection()
        line.putrequest("PUT", f"/bench/bare-{number}", skip_accept_encoding=True)
        line.putheader("Content-Length", str(size))
        line.endheaders()
        with Path(path).open("rb", buffering=0) as file:
            file.seek(number * part_size)
            while size:
                block = file.read(min(BLOCK, size))
                line.send(block)
                size -= len(block)
        line.getresponse().read()

    total = Path(path).stat().st_size
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, range(-(-total // part_size))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
