"""Where what is in a sealed file: its size, its chunks, and the name of its object.

A sealed file is an age v1 file (https://age-encryption.org/v1): a header with one stanza for each recipient, a nonce of
16 bytes, and then the file in chunks of 64 KiB, each with a tag of 16 bytes.

Rule: pure arithmetic. The size depends on the file and on the number of recipients alone, so both sides know it before
a byte is sealed.
"""

from typing import Final

from schemas.values import UploadOptions

CHUNK: Final = 64 * 1024
TAG: Final = 16
NONCE: Final = 16
FILE_KEY: Final = 16
SUFFIX: Final = ".age"

_HEADER: Final = len("age-encryption.org/v1\n") + len("--- \n") + 43
_STANZA: Final = len("-> X25519 \n\n") + 43 + 43


def prefix_size(recipients: int) -> int:
    """Bytes before the first chunk."""
    return _HEADER + recipients * _STANZA + NONCE


def chunks_of(size: int) -> int:
    """Chunks of a file of `size` bytes: an empty file has an empty one."""
    return max(1, -(-size // CHUNK))


def sealed_size(size: int, recipients: int) -> int:
    """Bytes of the sealed file; `size` itself without recipients.

    >>> sealed_size(0, 1), sealed_size(65_536, 1), sealed_size(65_537, 1), sealed_size(5, 0)
    (200, 65736, 65753, 5)
    """
    return prefix_size(recipients) + size + TAG * chunks_of(size) if recipients else size


def sealed_name(name: str, options: UploadOptions) -> str:
    """The name, or path, under which a file is kept: that of a sealed one ends with `.age`."""
    return f"{name or 'file'}{SUFFIX}" if options.encrypt_to else name
