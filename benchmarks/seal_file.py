"""The agent's sealing without the agent: `python -m benchmarks.seal_file FILE RECIPIENT PASSES`.

Rule: imports what the agent seals with and nothing else. The sealed file goes to standard output in the last pass.
"""

import sys
from pathlib import Path

from device_agent.files.roots import Roots
from device_agent.files.source import open_source
from device_agent.sealing.seal import draw_seal
from device_agent.sealing.source import SealedPart, SealedSource
from schemas.parts import Part

BLOCK = 256 * 1024


def main(path: str, recipient: str, passes: int) -> None:
    """Seal the whole file as often as is asked for."""
    source = SealedSource(open_source(path, Roots((str(Path(path).parent),))), draw_seal([recipient]))
    buffer = memoryview(bytearray(BLOCK))
    for turn in range(passes):
        last = turn + 1 == passes
        part, offset = SealedPart(source, Part(1, 0, source.size), None), 0
        while count := part.read_into(buffer, offset):
            if last:
                sys.stdout.buffer.write(buffer[:count])
            offset += count
    source.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
