"""Write the generated documents: `python -m schemas.generate [FOLDER]`.

Rule: it writes below `schemas`, and nothing else does.
"""

import sys
from pathlib import Path
from typing import Final

from schemas.generate.documents import documents
from schemas.generate.vectors import vectors

FOLDER: Final = Path(__file__).parents[1] / "json"
VECTORS: Final = Path(__file__).parents[1] / "vectors"


def write(folder: Path = FOLDER) -> None:
    """Write every document, and remove every other file."""
    _fill(folder, documents())


def write_vectors(folder: Path = VECTORS) -> None:
    """Write the test vectors of signatures, and remove every other file."""
    _fill(folder, vectors())


def _fill(folder: Path, contents: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in contents:
            path.unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:2]))
    if not sys.argv[1:]:
        write_vectors()
