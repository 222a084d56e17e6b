"""The form of an API key: `rgstr_<prefix>_<secret><checksum>`.

The prefix is public and finds the row; the secret is 256 random bits in base32. The checksum is the CRC-32 of
everything before it, in base62: so a scanner for leaked secrets tells a key from a string that looks like
one, and a mistyped key is refused without a look at the database. Keys of releases before begin with `rk` and
have no checksum; they go on working.
"""

import re
from typing import Final
from zlib import crc32

MARK: Final = "rgstr"
PATTERN: Final = r"rgstr_[0-9a-f]{8}_[a-z2-7]{52}[0-9A-Za-z]{6}"
"""The pattern for scanners of secrets; docs/security.md has it."""

_KEY: Final = re.compile(PATTERN)
_FORMER: Final = re.compile(r"rk_[0-9a-f]{8}_[a-z2-7]{52}")
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHECKSUM: Final = 6
"""Characters: 62 to the power of six is more than 2 to the power of 32."""


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
    """The prefix of a whole key; None for what cannot be one."""
    is_key = _KEY.fullmatch(key) and key[-_CHECKSUM:] == checksum(key[:-_CHECKSUM])
    return key.split("_")[1] if is_key or _FORMER.fullmatch(key) else None


def named(text: str) -> str:
    """The prefix that a person means, who may have pasted more of the key than that."""
    mark, _, rest = text.strip().partition("_")
    return rest.partition("_")[0] if mark in {MARK, "rk"} and rest else text.strip()
