"""Write the generated documents: `python -m schemas.generate [FOLDER]`.

Rule: it writes the folder of the documents, and nothing else.
"""

import sys
from pathlib import Path
from typing import Final

from schemas.generate.documents import documents

FOLDER: Final = Path(__file__).parents[1] / "json"


def write(folder: Path = FOLDER) -> None:
    """Write every document, and remove every other file."""
    contents = documents()
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in contents:
            path.unlink()
    for name, content in contents.items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:2]))
