"""A supervisor: starts programs, watches them, restarts those that die, stops them in good order.

Each program has a thread that lives as long as the program is kept. Linux sends the parent-death signal when
the *thread* that forked ends, so the programs die with this process, however it dies. On systems without that
signal they outlive a SIGKILL.
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

from app.child_processes import die_with_parent
from app.local.embedded import EmbeddedUnavailable, Server

FIRST_PAUSE = 0.2
"""Seconds before a program that died is started again. They double with each death in a row."""
LONGEST_PAUSE = 5.0
STEADY_SECONDS = 60.0
"""Seconds after which a program counts as well started: the next pause is the first one again."""
LOG_BYTES = 10_000_000  # a larger log is renamed at the next start
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


def end_of(log: Path, lines: int = 15) -> str:
    """The last lines of a log below a headline; empty when the log is."""
    try:
        found = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "\n".join([f"\nThe end of {log}:", *(f"  {line}" for line in found)]) if found else ""


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
        """Stops it in good order, or at once when `hurry` is set meanwhile. Safe to call twice."""

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
        self._process: subprocess.Popen[bytes] | None = None
        self._first = threading.Event()
        self._failure: OSError | subprocess.SubprocessError | None = None
        self._kept = False

    def begin(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        self._thread.start()
        self._first.wait()
        if self._failure is not None:
            raise StackFailed(f"{self.name} cannot be started: {self._failure}")

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def check(self) -> None:
        super().check()
        process = self._process
        if not self._kept and process is not None and process.returncode is not None:
            raise StackFailed(f"{self.name} {in_words(process.returncode)}.{end_of(self.log)}")

    def keep(self) -> None:
        """Restarts it from now on whenever it dies. Raises StackFailed when it has died already."""
        with self._lock:
            self.check()
            self._kept = True

    def _live(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            begun = time.monotonic()
            ending = self._run()
            with self._lock:
                if self._stopping.is_set() or not self._kept:
                    return
            if time.monotonic() - begun > STEADY_SECONDS:
                pause = FIRST_PAUSE
            self._say(f"{self.name} {ending}; it is started again in {pause:g} s (log: {self.log})")
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run(self) -> str:
        """Runs the program once. Returns in words how it ended."""
        try:
            with self._lock:
                if self._stopping.is_set():
                    return "was told to stop"
                process = self._process = self._start()
                self.starts += 1
        except (OSError, subprocess.SubprocessError) as error:
            if not self._first.is_set():
                self._failure = error
            return f"cannot be started ({error})"
        finally:
            self._first.set()
        if self.starts > 1 and self._after_restart is not None:
            self._after_restart()
        return in_words(process.wait())

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._program.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._program.directory,
                env=dict(self._program.environment),
                start_new_session=True,  # Ctrl-C reaches this process only, which stops the others in order
                preexec_fn=die_with_parent(),
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
        if self._process is not None:
            self._process.send_signal(number)  # does nothing once the process has ended


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
