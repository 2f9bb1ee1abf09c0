"""The recipients of a sealed file: native age recipients (`age1…`), which are X25519 public keys in Bech32 (BIP 173).

Rule: pure. A typing error is found here, before anything is encrypted to a key that no one has: Bech32 has a checksum.
"""

from collections.abc import Iterable
from typing import Final

from schemas.errors import SchemaError
from schemas.messages import KEEP
from schemas.values import UploadOptions

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_PREFIX: Final = "age"
_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM: Final = 6
_KEY_BYTES: Final = 32


def public_key(recipient: str) -> bytes:
    """The 32 bytes of an `age1…` recipient; `SchemaError` for anything else.

    >>> public_key("age1qqqsyqcyq5rqwzqfpg9scrgwpugpzysnzs23v9ccrydpk8qarc0savhh7m")[:4].hex()
    '00010203'
    """
    prefix, one, rest = recipient.rpartition("1")
    values = [_ALPHABET.find(letter) for letter in rest]
    if prefix != _PREFIX or not one or -1 in values or len(values) < _CHECKSUM:
        raise _refused(recipient)
    head = [*(ord(letter) >> 5 for letter in prefix), 0, *(ord(letter) & 31 for letter in prefix)]
    if _polymod([*head, *values]) != 1:
        raise _refused(recipient)
    data = values[:-_CHECKSUM]
    number = 0
    for value in data:
        number = number << 5 | value
    length, padding = divmod(5 * len(data), 8)
    if length != _KEY_BYTES or number & ((1 << padding) - 1):
        raise _refused(recipient)
    return (number >> padding).to_bytes(_KEY_BYTES, "big")


def sealing_contradiction(options: UploadOptions, after: str) -> str | None:
    """Why no file can be sealed with these options and `after`; None when one can, or when none is to be."""
    if not options.encrypt_to:
        return None
    if len(set(options.encrypt_to)) < len(options.encrypt_to):
        return "encrypt_to: a recipient is named twice"
    if options.compression != "none":
        return "encrypt_to: a sealed file is not compressed; compression must be none"
    if options.on_change != "fail":
        return "encrypt_to: a file that grows cannot be sealed; on_change must be fail"
    if after != KEEP:
        return "encrypt_to: after must be keep, since the device cannot compare a sealed object with its file"
    try:
        for recipient in options.encrypt_to:
            public_key(recipient)
    except SchemaError as refused:
        return f"encrypt_to: {refused}"
    return None


def _polymod(values: Iterable[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                check ^= generator
    return check


def _refused(recipient: str) -> SchemaError:
    text = f"{recipient[:80]!r} is no age recipient (age1…, as age-keygen prints it): a character is wrong or missing"
    return SchemaError(text)
