"""MS-RequestId: each call has one, and a repetition of the call has the same one.

The second half of an id is the fingerprint of its call. So an id read from the database tells whether it
belongs to the call that is about to be made.
"""

from uuid import UUID

_FINGERPRINT = (1 << 62) - 1
"""The two bits above it are the UUID's variant."""


def new(fingerprint: bytes, random: UUID) -> UUID:
    """An id for the call with this fingerprint. Keeps the first half of `random`, a version 4 UUID."""
    return UUID(int=(random.int & ~_FINGERPRINT) | _low(fingerprint))


def belongs_to(request_id: UUID, fingerprint: bytes) -> bool:
    return request_id.int & _FINGERPRINT == _low(fingerprint)


def _low(fingerprint: bytes) -> int:
    return int.from_bytes(fingerprint[:8], "big") & _FINGERPRINT
