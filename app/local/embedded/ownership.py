"""Ownership of a running server, as two file locks.

The server and its children hold `NAME.alive`; the process that started it holds `NAME.owner`. The kernel
releases a lock when its holder dies, however it dies. Process ids are reused; locks are not. The two
locks decide who may join the server, end it and start it again.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from app.local.embedded.errors import EmbeddedUnavailable

if sys.platform != "win32":  # importable everywhere; starting anything needs unix sockets
    import fcntl

START_SECONDS = 60.0  # crash recovery of a large database takes longest

held_as_owner: set[int] = set()  # descriptors of the `NAME.owner` locks this process holds


def _forget_ownership() -> None:
    # A forked copy of this process must not hold the lock that says that this process lives.
    for descriptor in held_as_owner:
        os.close(descriptor)
    held_as_owner.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_ownership)


def try_lock(path: Path) -> int | None:
    """Takes the lock. Returns the descriptor that holds it until it is closed, or None when another does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether any process holds the lock now."""
    descriptor = try_lock(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


@contextlib.contextmanager
def starting(data_dir: Path) -> Iterator[None]:
    """Lets one process at a time start servers in this data directory."""
    deadline = time.monotonic() + 2 * START_SECONDS
    while (descriptor := try_lock(data_dir / "embedded.lock")) is None:
        if time.monotonic() > deadline:
            raise EmbeddedUnavailable(
                f"Another process has been starting servers in {data_dir} for too long; end it."
            )
        time.sleep(0.02)
    try:
        yield
    finally:
        os.close(descriptor)
