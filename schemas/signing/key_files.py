"""Private keys in files: made once, readable by their owner alone, under a passphrase if one is given.

Rule: a file has mode 0600, is whole or absent, and is durable before its key is used. None is ever overwritten.
"""

import errno
import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from nacl import bindings, pwhash
from nacl.exceptions import CryptoError
from nacl.utils import random

from schemas.errors import SchemaError
from schemas.signing.canonical import from_text, to_text
from schemas.signing.ed25519 import SEED_SIZE, Signer

FORMAT: Final = "backhaul-key-v1"
PRIVATE: Final = 0o600
MAX_FILE: Final = 4096

_OTHERS: Final = 0o077
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})
_SALT: Final = bindings.crypto_pwhash_SALTBYTES
_NONCE: Final = bindings.crypto_secretbox_NONCEBYTES
_OVERHEAD: Final = bindings.crypto_secretbox_MACBYTES


class KeyFileError(SchemaError):
    """A file is no key file, others may read it, or the passphrase is wrong; the text names the file."""


class _KeyFile(Struct, frozen=True, omit_defaults=True):
    """`seed`, or under a passphrase `salt` (Argon2id, moderate) and `box` (nonce and XSalsa20-Poly1305)."""

    format: str
    public_key: str
    seed: str | None = None
    salt: str | None = None
    box: str | None = None


def create_key(path: Path, passphrase: str | None = None) -> Signer:
    """Make a key and its file, durable on return. `FileExistsError` when there is one; `OSError` when it cannot be."""
    signer = Signer(random(SEED_SIZE))
    write_key(path, signer, passphrase)
    return signer


def write_key(path: Path, signer: Signer, passphrase: str | None = None) -> None:
    """Write the file of a key; errors as in `create_key`."""
    # Before anything is written: the folder of a key may be read-only.
    _require_absent(path)
    content = msgspec.json.format(msgspec.json.encode(_sealed(signer, passphrase)), indent=2) + b"\n"
    # Under another name first: after a power cut, or for another process that starts, half a key is none for ever.
    temporary = path.with_name(f".{path.name}.{random(6).hex()}")
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


def read_key(path: Path, passphrase: str | None = None) -> Signer:
    """Read a key. `KeyFileError` for a bad file, mode or passphrase; `OSError` when it cannot be read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_mode & _OTHERS:
            text = f"{path}: other users may read this private key: chmod 600 it"
            raise KeyFileError(text)
        content = file.read(MAX_FILE + 1)
    try:
        signer = _opened(msgspec.json.decode(content, type=_KeyFile), passphrase)
    except (ValueError, CryptoError) as error:
        text = f"{path}: {error if isinstance(error, SchemaError) else 'not a key file'}"
        raise KeyFileError(text) from error
    return signer


def needs_passphrase(path: Path) -> bool:
    """Whether the key in this file is under a passphrase; errors as in `read_key`."""
    try:
        return msgspec.json.decode(path.read_bytes()[: MAX_FILE + 1], type=_KeyFile).seed is None
    except ValueError as error:
        text = f"{path}: not a key file"
        raise KeyFileError(text) from error


def _sealed(signer: Signer, passphrase: str | None) -> _KeyFile:
    if passphrase is None:
        return _KeyFile(FORMAT, signer.verifier.text, seed=to_text(signer.seed))
    salt, nonce = random(_SALT), random(_NONCE)
    box = nonce + bindings.crypto_secretbox(signer.seed, nonce, _stretched(passphrase, salt))
    return _KeyFile(FORMAT, signer.verifier.text, salt=to_text(salt), box=to_text(box))


def _opened(file: _KeyFile, passphrase: str | None) -> Signer:
    if file.format != FORMAT:
        text = f"the format is {file.format!r}, not {FORMAT!r}"
        raise SchemaError(text)
    if file.seed is not None:
        seed = from_text(file.seed, SEED_SIZE)
    elif passphrase is None:
        text = "this key is under a passphrase"
        raise SchemaError(text)
    else:
        box = from_text(file.box or "", _NONCE + _OVERHEAD + SEED_SIZE)
        key = _stretched(passphrase, from_text(file.salt or "", _SALT))
        try:
            seed = bindings.crypto_secretbox_open(box[_NONCE:], box[:_NONCE], key)
        except CryptoError as error:
            text = "wrong passphrase"
            raise SchemaError(text) from error
    signer = Signer(seed)
    if signer.verifier.text != file.public_key:
        text = "the public key is not the private key's"
        raise SchemaError(text)
    return signer


def _stretched(passphrase: str, salt: bytes) -> bytes:
    key: bytes = pwhash.argon2id.kdf(
        bindings.crypto_secretbox_KEYBYTES,
        passphrase.encode(),
        salt,
        opslimit=pwhash.argon2id.OPSLIMIT_MODERATE,
        memlimit=pwhash.argon2id.MEMLIMIT_MODERATE,
    )
    return key


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
