"""A supervisor: starts programs, watches them, restarts those that die, stops them cleanly.

The programs die with this process, however it dies. On systems without a parent-death signal they outlive a
SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.kernel.child_processes import die_with_parent
from app.local.child import Child, bound_log, end_of
from app.local.embedded import EmbeddedUnavailable, Server

FIRST_PAUSE = 0.2
"""Seconds before a program that died is started again. They double with each death in a row."""
LONGEST_PAUSE = 5.0
STEADY_SECONDS = 60.0
"""Seconds after which a program counts as started: the next pause is the first one again."""
SERVER_LOOK = 0.2  # seconds between two checks of a database server

Say = Callable[[str], None]


class StackFailed(RuntimeError):
    """A part did not start. The text says which, with the end of its log."""


@dataclass(frozen=True)
class Program:
    """A program to run: its command line, its whole environment, its log."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    patience: float
    """Seconds from SIGTERM to SIGKILL."""


class Kept(ABC):
    """A part that is restarted whenever it dies, until it is told to stop."""

    name: str
    log: Path

    def __init__(self, say: Say) -> None:
        self._say = say
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # held during a start, and while a stop is ordered
        self._thread = threading.Thread(target=self._live, name=f"keep-{self.name}", daemon=True)
        self.starts = 0

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The process id. None while it does not run."""

    @abstractmethod
    def begin(self) -> None:
        """Starts it for the first time. Raises StackFailed or EmbeddedUnavailable."""

    @abstractmethod
    def _live(self) -> None:
        """Keeps it running. Runs in the thread."""

    @abstractmethod
    def stop(self, hurry: threading.Event) -> None:
        """Stops it cleanly, or at once when `hurry` is set meanwhile. Safe to call twice."""

    def dismiss(self) -> None:
        """Tells it to stop, without waiting, so that several can stop at the same time."""
        with self._lock:
            self._stopping.set()

    def check(self) -> None:
        """Raises StackFailed when it has ended for good."""
        if self._stopping.is_set():
            raise StackFailed(f"{self.name} is being stopped")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to the process, for tests of what happens when it dies.

        Raises ProcessLookupError while it does not run.
        """
        pid = self.pid
        if pid is None:
            raise ProcessLookupError(f"{self.name} does not run")
        os.kill(pid, number)


class KeptProgram(Kept):
    """One program. It is restarted only after `keep()`: before that, a death is a failed start."""

    def __init__(
        self, program: Program, say: Say, *, after_restart: Callable[[], None] | None = None
    ) -> None:
        self.name, self.log = program.name, program.log
        super().__init__(say)
        self._program = program
        self._after_restart = after_restart
        self._child: Child | None = None
        self._kept = False

    def begin(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        bound_log(self.log)
        try:
            self._child = self._start()
        except (OSError, subprocess.SubprocessError) as error:
            raise StackFailed(f"{self.name} cannot be started: {error}") from None
        self.starts = 1
        self._thread.start()

    @property
    def pid(self) -> int | None:
        child = self._child
        return child.pid if child is not None and child.running else None

    def check(self) -> None:
        super().check()
        child = self._child
        if not self._kept and child is not None and child.ended.is_set():
            raise StackFailed(f"{self.name} {in_words(child.status)}.{end_of(self.log)}")

    def keep(self) -> None:
        """Restarts it from now on whenever it dies. Raises StackFailed when it has died already."""
        with self._lock:
            self.check()
            self._kept = True

    def _live(self) -> None:
        pause = FIRST_PAUSE
        begun, ending = time.monotonic(), self._until_it_ends()
        while self._is_wanted():
            if time.monotonic() - begun > STEADY_SECONDS:
                pause = FIRST_PAUSE
            self._say(f"{self.name} {ending}; it is started again in {pause:g} s (log: {self.log})")
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            begun, ending = time.monotonic(), self._run_again()

    def _is_wanted(self) -> bool:
        with self._lock:
            return self._kept and not self._stopping.is_set()

    def _run_again(self) -> str:
        """Restarts the program and waits for its end. Returns in words how it ended."""
        try:
            with self._lock:
                if self._stopping.is_set():
                    return "was told to stop"
                self._child = self._start()
                self.starts += 1
        except (OSError, subprocess.SubprocessError) as error:
            return f"cannot be started ({error})"
        if self._after_restart is not None:
            self._after_restart()
        return self._until_it_ends()

    def _until_it_ends(self) -> str:
        assert self._child is not None
        self._child.ended.wait()
        return in_words(self._child.status)

    def _start(self) -> Child:
        return Child(
            self._program.arguments,
            self.log,
            environment=self._program.environment,
            directory=self._program.directory,
            enter=die_with_parent(),
        )

    def dismiss(self) -> None:
        super().dismiss()
        self._signal(signal.SIGTERM)

    def stop(self, hurry: threading.Event) -> None:
        if not self._stopping.is_set():
            self.dismiss()
        deadline = time.monotonic() + self._program.patience
        while self._thread.is_alive() and time.monotonic() < deadline and not hurry.is_set():
            self._thread.join(0.05)
        if self._thread.is_alive():
            self._say(f"{self.name} did not end in time and is killed (log: {self.log})")
            self._signal(signal.SIGKILL)
            self._thread.join()

    def _signal(self, number: int) -> None:
        if self._child is not None:
            self._child.signal(number)


class KeptServer(Kept):
    """A database server of this machine. Another process may run it for a while, and this one joins it."""

    def __init__(self, server: Server, say: Say) -> None:
        self.name, self.log, self.server = server.name, server.log, server
        super().__init__(say)

    def begin(self) -> None:
        self.server.start()
        self.starts = 1
        self._thread.start()

    @property
    def pid(self) -> int | None:
        return self.server.pid

    def _live(self) -> None:
        owned, pause = self.server.owned, FIRST_PAUSE
        while not self._stopping.wait(SERVER_LOOK):
            if self.server.owned:
                owned = True
                continue
            if owned:
                self._say(f"{self.name} ended; it is started again in {pause:g} s (log: {self.log})")
                self._stopping.wait(pause)
            if self._start():
                owned, pause = self.server.owned, FIRST_PAUSE
            else:
                pause = min(2 * pause, LONGEST_PAUSE)

    def _start(self) -> bool:
        with self._lock:
            if self._stopping.is_set():
                return True
            try:
                self.server.start()  # or joins the server of another process
            except EmbeddedUnavailable as error:
                self._say(f"{self.name} cannot be started again: {error}")
                return False
            self.starts += self.server.owned
            return True

    def stop(self, hurry: threading.Event) -> None:
        self.dismiss()
        if self._thread.is_alive():
            self._thread.join()
        self.server.stop()  # it ends its sessions at once, so `hurry` changes nothing


def in_words(status: int) -> str:
    """How a process ended, from its exit status."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
