"""Ownership of a running server, as two file locks, and the server's process.

The server and its children hold `NAME.alive`; the process that started it holds `NAME.owner`. The kernel
releases a lock when its holder dies, however it dies. Process ids are reused; locks are not. From the two
locks follows who may join the server, end it and start it again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.local.embedded.accounts import Account, enter_as
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


class Child:
    """A running program, with a thread that lives as long as the program does.

    Linux sends the parent-death signal when the *thread* that forked ends: a server that a thread of a pool
    started would die with that thread.
    """

    def __init__(
        self, argv: list[str], log: Path, lease: int, account: Account | None, death_signal: int
    ) -> None:
        self.ended = threading.Event()
        self._argv, self._log, self._lease = argv, log, lease
        self._enter = enter_as(account, death_signal)
        self._spawned = threading.Event()
        self._failure: OSError | subprocess.SubprocessError | None = None
        self._opener = os.getpid()
        threading.Thread(target=self._live, name=f"embedded-{Path(argv[0]).name}", daemon=True).start()
        self._spawned.wait()
        if self._failure is not None:
            raise self._failure

    def _live(self) -> None:
        try:
            with open_log(self._log) as log:
                self._process = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},  # none of our secrets
                    start_new_session=True,  # Ctrl-C reaches the service only, which stops the servers last
                    pass_fds=(self._lease,),
                    preexec_fn=self._enter,
                )
        except (OSError, subprocess.SubprocessError) as error:
            self._failure = error
            return
        finally:
            self._spawned.set()
        self._process.wait()
        self.ended.set()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return not self.ended.is_set() and self._opener == os.getpid()

    def signal(self, number: int) -> None:
        if self.running:
            self._process.send_signal(number)


def open_log(path: Path) -> BinaryIO:
    """Opens a log to append to. Only its owner may read it."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")
