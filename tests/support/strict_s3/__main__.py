"""`python -m tests.support.strict_s3 --directory DIR`: the strict double as a process.

Rule: credentials and region are the tests' well-known ones.
"""

import argparse
from pathlib import Path

from tests.support.strict_s3.server import serve_forever

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--directory", type=Path, required=True)
arguments = parser.parse_args()
serve_forever(arguments.directory)
