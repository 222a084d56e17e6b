"""The command line at a real pseudo-terminal of a given width, in this process."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Thread
from unittest import mock

import httpx

from app.cli import main
from app.cli.surroundings import Surroundings
from tests.unit.cli_wire import KEY, NO_CONFIGURATION, Wire

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


@dataclass(frozen=True)
class Shown:
    text: str
    """What was written, without colours; lines end where the program ended or restarted them."""
    exit_code: int

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def words(self) -> set[str]:
        return set(self.text.split())


def at_terminal(wire: Wire, *arguments: str, columns: int, typed: str = "", told: bool = False) -> Shown:
    """`typed` is the user's answer. `told`: the width is also in the environment, for help texts:
    they ask for the size of this process' own terminal.
    """
    with _terminal(columns) as (terminal, read):
        if told:
            os.environ["COLUMNS"] = str(columns)
        os.write(terminal, typed.encode())
        surroundings = Surroundings(
            transport=httpx.MockTransport(wire), sleep=wire.pauses.append, execute=wire.executed.append
        )
        try:
            main(list(arguments), surroundings)
        except SystemExit as end:
            code = int(end.code or 0)
        sys.stdout.flush()
        text = read()
    return Shown(_CONTROL.sub("", text).replace("\r\n", "\n").replace("\r", "\n"), code)


@contextmanager
def _terminal(columns: int) -> "Iterator[tuple[int, _Reader]]":
    """Standard input, output and error are its other side."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    reader = _Reader(ours)
    with ExitStack() as stack:
        streams = [stack.enter_context(os.fdopen(os.dup(theirs), mode)) for mode in ("r", "w", "w")]
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            stack.enter_context(mock.patch.object(sys, name, stream))
        environment = {
            "REGISTRAR_API_KEY": KEY,
            "REGISTRAR_API_URL": "http://127.0.0.1:8000",
            "XDG_CONFIG_HOME": NO_CONFIGURATION,
            "TERM": "xterm",
        }
        stack.enter_context(mock.patch.dict(os.environ, environment))
        os.environ.pop("COLUMNS", None)
        reader.start()
        os.close(theirs)
        yield ours, reader
    reader.join()
    os.close(ours)


class _Reader(Thread):
    """Reads output as it arrives, because a terminal's buffer is small."""

    def __init__(self, terminal: int) -> None:
        super().__init__(daemon=True)
        self.terminal = terminal
        self.taken = bytearray()

    def run(self) -> None:
        try:
            while piece := os.read(self.terminal, 65_536):
                self.taken += piece
        except OSError:
            return  # the other side is closed: all has been read

    def __call__(self) -> str:
        """All that was written; the program's side is closed with it."""
        for name in ("stdin", "stdout", "stderr"):
            getattr(sys, name).close()
        self.join()
        return self.taken.decode()


def in_a_process(*arguments: str, typed: str, environment: dict[str, str]) -> Shown:
    """The command as a process on this terminal. The answer is typed when the question appears."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=partial(fcntl.ioctl, theirs, termios.TIOCSCTTY, 0),
        env={**os.environ, **environment},
    )
    os.close(theirs)
    taken = bytearray()
    try:
        while piece := os.read(ours, 65_536):
            taken += piece
            if typed and taken.endswith(b": "):
                os.write(ours, typed.encode())
                typed = ""
    except OSError:
        pass  # the other side is closed
    os.close(ours)
    return Shown(_CONTROL.sub("", taken.decode()).replace("\r\n", "\n"), process.wait())
