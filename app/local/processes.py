"""Programs that are kept running: started, watched, started again when they die, stopped in good order.

It stands alone because it knows processes and log files only, not what the programs are for. Each program
has a thread of its own that lives as long as the program is kept: Linux sends the parent-death signal when
the *thread* that forked ends, not the process. So whatever way this process dies, its programs die with it
(on systems without that signal they are stopped in every way of ending but SIGKILL).
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
"""Seconds before a program that died is started again; doubled at each death in a row."""
LONGEST_PAUSE = 5.0
STEADY_SECONDS = 60.0
"""A program that ran this long had started well: the next pause is the first one again."""
LOG_BYTES = 10_000_000  # a larger log is set aside at the next start
SERVER_LOOK = 0.2  # seconds between looks at a database server

Say = Callable[[str], None]


class StackFailed(RuntimeError):
    """Something did not come up; the text says what, with the end of its log."""


@dataclass(frozen=True)
class Program:
    """What to run, with which environment (the whole of it), and where it writes."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    log: Path
    patience: float
    """Seconds from SIGTERM to SIGKILL."""


def end_of(log: Path, lines: int = 15) -> str:
    """The last lines of a log, introduced; empty when there are none."""
    try:
        found = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return "\n".join([f"\nThe end of {log}:", *(f"  {line}" for line in found)]) if found else ""


class Kept(ABC):
    """Something that runs until it is told to stop, whatever happens to it."""

    name: str
    log: Path

    def __init__(self, say: Say) -> None:
        self._say = say
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # held while starting, and while saying that it shall end
        self._thread = threading.Thread(target=self._live, name=f"keep-{self.name}", daemon=True)
        self.starts = 0

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The process id; None while it does not run."""

    @abstractmethod
    def begin(self) -> None:
        """Start it, for the first time. Raises StackFailed or EmbeddedUnavailable."""

    @abstractmethod
    def _live(self) -> None:
        """Keep it running. Runs in the thread."""

    @abstractmethod
    def stop(self, hurry: threading.Event) -> None:
        """End it in good order; at once when `hurry` is set meanwhile. Safe to call twice."""

    def dismiss(self) -> None:
        """Tell it to end, without waiting: several can then be waited for at the same time."""
        with self._lock:
            self._stopping.set()

    def check(self) -> None:
        """Raises StackFailed when it has ended for good."""
        if self._stopping.is_set():
            raise StackFailed(f"{self.name} is being stopped")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process, as an accident would; it is then started again.

        Raises ProcessLookupError while it does not run.
        """
        pid = self.pid
        if pid is None:
            raise ProcessLookupError(f"{self.name} does not run")
        os.kill(pid, number)


class KeptProgram(Kept):
    """One program. Until `keep()` is called a death is final, so that a failed start shows."""

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
        """From now on a death is an accident. Raises StackFailed when it has died already."""
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
        """One life of the program; returns how it ended, in words."""
        try:
            with self._lock:
                if self._stopping.is_set():
                    return "is not wanted any more"
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
                start_new_session=True,  # Ctrl-C is for this process, which stops the others in order
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
            self._process.send_signal(number)  # does nothing once it has been waited for


class KeptServer(Kept):
    """A database server of this machine. Who else starts or stops it in between does no harm."""

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
                self.server.start()  # joins the one of another process, if there is one
            except EmbeddedUnavailable as error:
                self._say(f"{self.name} cannot be started again: {error}")
                return False
            self.starts += self.server.owned
            return True

    def stop(self, hurry: threading.Event) -> None:
        self.dismiss()
        if self._thread.is_alive():
            self._thread.join()
        self.server.stop()  # ends its sessions at once, so there is nothing to hurry


def in_words(status: int) -> str:
    """How a process ended, from its exit status."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
