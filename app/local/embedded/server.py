"""Starts a server on a data directory, or joins the one that runs there, and stops it.

It ends an orphan, whose starter has died, and takes over its data. Whatever differs between PostgreSQL and
Valkey (programs, settings, address, whether it serves) is in the module of that name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from app.local.child import Child, bound_log, end_of
from app.local.embedded.accounts import BARE_ENVIRONMENT, Account, choose_account, enter_as
from app.local.embedded.errors import EmbeddedUnavailable
from app.local.embedded.ownership import START_SECONDS, held_as_owner, is_locked, starting, try_lock
from app.local.embedded.programs import Binaries, binaries
from app.local.embedded.sockets import socket_directory


class Server(ABC):
    """One server on one data directory. Not for several threads at once."""

    name: str
    stop_signals: tuple[tuple[int, float], ...]  # signal, then the seconds it is given

    def __init__(self, data_dir: Path, *, durable: bool = True, programs: Binaries | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.durable = durable
        self.programs = programs or binaries()
        self.log = self.data_dir / f"{self.name}.log"
        self._alive, self._owner = self.data_dir / f"{self.name}.alive", self.data_dir / f"{self.name}.owner"
        self._child: Child | None = None
        self._ownership: int | None = None
        self._sockets = self.data_dir / "run"

    @classmethod
    def is_made(cls, data_dir: Path) -> bool:
        """Whether the directory has data of such a server. Creates nothing."""
        return (data_dir / cls.name).exists()

    @property
    def owned(self) -> bool:
        """Whether this process started the server that runs now."""
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int | None:
        """The process id of the server, no matter who started it. None when it does not run."""
        if self._child is not None and self._child.running:
            return self._child.pid
        return int(self._alive.read_text() or 0) or None if is_locked(self._alive) else None

    @property
    @abstractmethod
    def socket_path(self) -> Path:
        """The unix socket it answers on."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for clients. Valid after start()."""

    def start(self) -> None:
        """Starts the server, or joins the one that another process runs. Returns when it answers.

        Raises EmbeddedUnavailable, with the end of the server's log if there is one.
        """
        if self.owned:
            return
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with starting(self.data_dir):
                account = choose_account(self.data_dir, self._programs())
                self._sockets = socket_directory(self.data_dir, account)
                if (lease := self._join()) is not None:
                    try:
                        self._launch(lease, account)
                    finally:
                        os.close(lease)  # the server keeps its own copy
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            raise EmbeddedUnavailable(
                f"{self.name} could not be started in {self.data_dir}: {error}. The directory must belong to "
                "the user who runs Registrar; or set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
            ) from error

    def stop(self) -> None:
        """Stops the server cleanly if this process started it. Otherwise does nothing."""
        for number, seconds in (*self.stop_signals, (signal.SIGKILL, START_SECONDS)):
            if not self.owned or self._child is None:
                break
            self._child.signal(number)
            self._child.ended.wait(seconds)
        self._release()
        if self._sockets.parent != self.data_dir and self._sockets.exists():
            # Removes a temporary socket directory with its last server. Fails while it is not empty.
            with contextlib.suppress(OSError), starting(self.data_dir):
                self._sockets.rmdir()

    def kill(self) -> None:
        """Ends the server with SIGKILL, like a crash, if this process started it."""
        if self.owned and self._child is not None:
            self._child.signal(signal.SIGKILL)
            self._child.ended.wait(START_SECONDS)
        self._release()

    def _release(self) -> None:
        self._child = None
        if self._ownership is not None and self._ownership in held_as_owner:
            held_as_owner.remove(self._ownership)
            os.close(self._ownership)
        self._ownership = None

    def _join(self) -> int | None:
        """None when a server with a living owner answers. Otherwise the lease on the data, once none runs."""
        begun, told = time.monotonic(), False
        while (lease := try_lock(self._alive)) is None:
            orphaned = not is_locked(self._owner)
            reason = self._refusal()
            if reason is None and not orphaned:
                return None
            waited = time.monotonic() - begun
            if orphaned and reason is None and waited > 2 and not told and self.pid:
                os.kill(self.pid, self.stop_signals[0][0])  # it answers, so the recorded id is still its own
                told = True
            if waited > START_SECONDS:
                raise EmbeddedUnavailable(
                    f"{self.name} (process {self.pid}) holds {self.data_dir} but cannot be used: "
                    f"{reason or 'its starter is gone and it does not end'}. "
                    f"End it and start again.{end_of(self.log)}"
                )
            time.sleep(0.02)
        return lease

    def _launch(self, lease: int, account: Account | None) -> None:
        self._release()
        bound_log(self.log)
        argv = self._prepare(lease, account)
        self._owner.unlink(
            missing_ok=True
        )  # an earlier owner that still lives holds the lock of the old file
        self._ownership = try_lock(self._owner)
        if self._ownership is not None:
            held_as_owner.add(self._ownership)
        self._child = child = Child(
            argv,
            self.log,
            environment=BARE_ENVIRONMENT,
            directory=Path("/"),
            enter=enter_as(account, self.stop_signals[0][0]),
            keep_open=(lease,),
        )
        os.pwrite(lease, f"{child.pid:<20}".encode(), 0)
        deadline = time.monotonic() + START_SECONDS
        while (reason := self._refusal()) is not None:
            if child.ended.is_set() or time.monotonic() > deadline:
                state = f"does not answer ({reason})" if child.running else "ended at once"
                self.stop()
                raise EmbeddedUnavailable(
                    f"{self.name} was started in {self.data_dir} but {state}.{end_of(self.log)}"
                )
            child.ended.wait(0.005)

    @abstractmethod
    def _programs(self) -> list[Path]:
        """The programs that it needs. Raises EmbeddedUnavailable when one is missing."""

    @abstractmethod
    def _prepare(self, lease: int, account: Account | None) -> list[str]:
        """Prepares the data, removes what a killed server left, and returns the command line."""

    @abstractmethod
    def _refusal(self) -> str | None:
        """Why the server does not serve now. None when it does."""
