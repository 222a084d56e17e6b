"""A running program and its log."""

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

LOG_BYTES: Final = 10_000_000
"""A larger log is renamed at the next start of its program."""


class Child:
    """A running program, with a thread that lives as long as the program does.

    Linux sends the parent-death signal when the *thread* that forked ends: a program that a thread of a pool
    started would die with that thread. The program has a session of its own, so that Ctrl-C reaches only this
    process, which stops its programs in order.
    """

    status: int
    """How it ended, once `ended` is set: its exit code, or a signal's number below zero."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str],
        directory: Path,
        enter: Callable[[], None],
        keep_open: Sequence[int] = (),
    ) -> None:
        """Starts it, with `enter` between fork and exec. Raises OSError or subprocess.SubprocessError."""
        self.ended = threading.Event()
        self._spawned = threading.Event()
        self._failure: OSError | subprocess.SubprocessError | None = None
        self._opener = os.getpid()

        def spawn() -> subprocess.Popen[bytes]:
            with open_log(log) as output:
                return subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    env=dict(environment),
                    start_new_session=True,
                    pass_fds=keep_open,
                    preexec_fn=enter,
                )

        name = f"child-{Path(arguments[0]).name}"
        threading.Thread(target=self._live, args=(spawn,), name=name, daemon=True).start()
        self._spawned.wait()
        if self._failure is not None:
            raise self._failure

    def _live(self, spawn: Callable[[], subprocess.Popen[bytes]]) -> None:
        try:
            self._process = spawn()
        except (OSError, subprocess.SubprocessError) as error:
            self._failure = error
            return
        finally:
            self._spawned.set()
        self.status = self._process.wait()
        self.ended.set()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it runs and this process started it. False in a fork of this process."""
        return not self.ended.is_set() and self._opener == os.getpid()

    def signal(self, number: int) -> None:
        """Sends it a signal, unless it has ended."""
        if self.running:
            self._process.send_signal(number)


def open_log(path: Path) -> BinaryIO:
    """Opens a log to append to. Only its owner may read it."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def bound_log(path: Path) -> None:
    """Renames a large log, so that the next one begins empty."""
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))


def end_of(log: Path, lines: int = 15) -> str:
    """The last lines of a log below a headline. Empty when the log is."""
    with contextlib.suppress(OSError):
        if found := log.read_text(errors="replace").splitlines()[-lines:]:
            return "\n".join([f"\nThe end of {log}:", *(f"  {line}" for line in found)])
    return ""
