"""Private keys in files: made once, readable by their owner alone.

Rule: a file has mode 0600, is whole or absent, and is durable before its key is used. None is ever overwritten.
"""

import errno
import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from schemas.errors import SchemaError
from schemas.signing.ed25519 import SEED_SIZE, Signer, from_text, to_text

FORMAT: Final = "backhaul-key-v1"
PRIVATE: Final = 0o600
MAX_FILE: Final = 4096

_OTHERS: Final = 0o077
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})


class KeyFileError(SchemaError):
    """A file is no key file, or others may read it; the text names the file."""


class _KeyFile(Struct, frozen=True):
    format: str
    public_key: str
    seed: str


def create_key(path: Path) -> Signer:
    """Make a key and its file, durable on return. `FileExistsError` when there is one; `OSError` when it cannot be."""
    # Before anything is written: the folder of a key may be read-only.
    _require_absent(path)
    signer = Signer(os.urandom(SEED_SIZE))
    document = _KeyFile(FORMAT, signer.verifier.text, to_text(signer.seed))
    content = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    # Under another name first: after a power cut, or for another process that starts, half a key is none for ever.
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _name_once(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)
    return signer


def read_key(path: Path) -> Signer:
    """Read a key. `KeyFileError` for a bad file or mode; `OSError` when it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_mode & _OTHERS:
            text = f"{path}: other users may read this private key: chmod 600 it"
            raise KeyFileError(text)
        content = file.read(MAX_FILE + 1)
    try:
        signer = _opened(msgspec.json.decode(content, type=_KeyFile))
    except ValueError as error:
        text = f"{path}: {error if isinstance(error, SchemaError) else 'not a key file'}"
        raise KeyFileError(text) from error
    return signer


def _opened(file: _KeyFile) -> Signer:
    if file.format != FORMAT:
        text = f"the format is {file.format!r}, not {FORMAT!r}"
        raise SchemaError(text)
    signer = Signer(from_text(file.seed, SEED_SIZE))
    if signer.verifier.text != file.public_key:
        text = "the public key is not the private key's"
        raise SchemaError(text)
    return signer


def _name_once(temporary: Path, path: Path) -> None:
    """Give the file its name; `FileExistsError` when there is one of that name, also one that came just now."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # FAT has no second name: here only a process that starts at the same time could be overwritten.
        _require_absent(path)
        temporary.replace(path)


def _require_absent(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
