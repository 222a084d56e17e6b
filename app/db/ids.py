"""Row ids: UUID version 7, so that new rows sit together in every index and ids sort by age."""

import os
import time
from datetime import datetime
from uuid import UUID


def new_row_id() -> UUID:
    """RFC 9562 version 7: 48 bits of milliseconds, 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return UUID(int=value)


def first_id_of(moment: datetime) -> UUID:
    """An id that sorts after all ids made before `moment`."""
    return UUID(int=int(moment.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62)


def new_row_ids(count: int) -> list[UUID]:
    """`count` ids that sort in the order of the list."""
    milliseconds = time.time_ns() // 1_000_000
    base = (milliseconds << 80) | (0x7 << 76) | (0x2 << 62)
    random = os.urandom(8 * count)
    # 12 bits of counter overflow into nothing we need: order within the list is kept by `rand_a`
    # and the top of `rand_b`, 26 bits in all.
    return [
        UUID(
            int=base
            | ((index >> 14) << 64)
            | ((index & 0x3FFF) << 48)
            | (int.from_bytes(random[8 * index : 8 * index + 8], "big") & 0xFFFFFFFFFFFF)
        )
        for index in range(count)
    ]
