"""The format of an API key: `rgstr_<prefix>_<secret><checksum>`.

The prefix is public and finds the row. The secret is 256 random bits in base32. The checksum is the CRC-32 of
everything before it, in base62: with it, secret scanners recognise real keys, and a mistyped key is refused
without a database query. Keys of earlier releases begin with `rk` and have no checksum; they still work.
"""

import re
from typing import Final
from zlib import crc32

MARK: Final = "rgstr"
PATTERN: Final = r"rgstr_[0-9a-f]{8}_[a-z2-7]{52}[0-9A-Za-z]{6}"
"""The pattern for secret scanners; docs/security.md has it too."""

_KEY: Final = re.compile(PATTERN)
_FORMER: Final = re.compile(r"rk_[0-9a-f]{8}_[a-z2-7]{52}")
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHECKSUM: Final = 6
"""Characters of the checksum: 62 to the power of six is more than 2 to the power of 32."""


def compose(prefix: str, secret: str) -> str:
    body = f"{MARK}_{prefix}_{secret}"
    return body + checksum(body)


def checksum(body: str) -> str:
    """The CRC-32 in base62, most significant digit first."""
    rest, digits = crc32(body.encode()), ""
    for _ in range(_CHECKSUM):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def prefix_of(key: str) -> str | None:
    """The prefix of a complete key; None if the text cannot be a key."""
    is_key = _KEY.fullmatch(key) and key[-_CHECKSUM:] == checksum(key[:-_CHECKSUM])
    return key.split("_")[1] if is_key or _FORMER.fullmatch(key) else None


def named(text: str) -> str:
    """The prefix in a text that a person pasted, which may contain more of the key."""
    mark, _, rest = text.strip().partition("_")
    return rest.partition("_")[0] if mark in {MARK, "rk"} and rest else text.strip()
