"""The directory of the servers' sockets, and one raw exchange over a socket.

The path of a socket has a limit and must read the same in a URL, in a list of directories and on disk. Where
the data directory's path does not, the sockets are in a temporary directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from app.local.embedded.accounts import Account

PORT = 5432  # part of the socket's name; no TCP port is opened
SOCKET_PATH_BYTES = 100  # the limit is 108 with the final NUL on Linux, 104 on macOS; the lock file adds 5
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


def socket_directory(data_dir: Path, account: Account | None) -> Path:
    """A private directory (mode 0700) for the sockets: inside the data directory if its path allows that.

    Otherwise a temporary one. It is recorded in the data directory, so that every process finds the same.
    """
    inside = make_private(data_dir / "run", account)
    if len(os.fsencode(inside / f".s.PGSQL.{PORT}.lock")) <= SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(
        str(inside)
    ):
        return inside
    record, owner = data_dir / "socket-directory", account.uid if account else os.geteuid()
    with contextlib.suppress(FileNotFoundError):
        recorded = Path(record.read_text())
        found = recorded.lstat()  # anyone may make names in a temporary directory: only ours is trusted
        if (
            stat.S_ISDIR(found.st_mode)
            and found.st_uid in (owner, os.geteuid())
            and not found.st_mode & 0o077
        ):
            return recorded
    base = tempfile.gettempdir()
    plain = PLAIN_PATH.fullmatch(base) and len(os.fsencode(base)) < SOCKET_PATH_BYTES - 45
    made = Path(tempfile.mkdtemp(prefix="registrar-", dir=base if plain else "/tmp"))  # noqa: S108
    record.write_text(str(make_private(made, account)))
    return made


def make_private(path: Path, account: Account | None) -> Path:
    """Makes the directory (mode 0700) if it is missing, gives it to the servers' account, and returns it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account is not None and path.stat().st_uid != account.uid:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return path


def converse(path: Path, question: bytes, complete: Callable[[bytes], bool]) -> bytes | str:
    """All that the server answers to one question; a text when it cannot be asked."""
    seen = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(2.0)
            line.connect(str(path))
            line.sendall(question)
            while not complete(seen) and (more := line.recv(65536)):
                seen += more
    except OSError as error:
        return str(error)
    return seen
