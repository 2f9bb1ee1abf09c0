"""The floor for what an upload must make durable: a line that names it, and a line for each stored part, each synced.

python -m benchmarks.bare_journal FILE PARTS

Rule: it begins when its standard input ends, so that a tracer can be attached before.
"""

import json
import os
import sys

UPLOAD_ID = "0" * 36
ETAG = "0" * 32


def main(path: str, parts: int) -> None:
    """Write what a program needs that resumes: the first line goes with the first part, and nothing is synced twice."""
    sys.stdin.read()
    lines = [{"upload": UPLOAD_ID, "path": path, "size": 0, "changed": 0}]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in range(1, parts + 1):
        lines.append({"upload": UPLOAD_ID, "part": number, "etag": ETAG})
        os.write(descriptor, "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode())
        os.fdatasync(descriptor)
        lines.clear()
    os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
