"""Chooses the account that the servers run under: PostgreSQL refuses to run as root.

If this process is root, it chooses an ordinary account, and the one capability that the account needs to pass
directories that only root may enter. Otherwise the servers run under the account of this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.kernel.child_processes import LIBC, die_with_parent
from app.local.embedded.errors import EmbeddedUnavailable

if sys.platform != "win32":  # importable everywhere; starting anything needs unix sockets
    import pwd

BARE_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""The environment of the servers, without our secrets."""
_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAPABILITY_VERSION_3 = 0x20080522
if LIBC is not None:  # declared here: between fork and exec nothing may be looked up
    LIBC.capset.argtypes = [ctypes.c_char_p, ctypes.c_char_p]


@dataclass(frozen=True)
class Account:
    """An ordinary account for the servers of a process that is root."""

    uid: int
    gid: int
    capability: int | None
    """Lets the servers pass directories that only root may enter, such as root's home directory. The
    alternative would be to open those directories to everyone."""


def choose_account(data_dir: Path, programs: list[Path]) -> Account | None:
    """The account for these programs on this data; the same one at every start. None unless this process is
    root. Raises EmbeddedUnavailable."""
    if os.geteuid() != 0:
        return None
    owners = [path.stat().st_uid for path in (data_dir, data_dir / "run") if path.exists()]
    candidates = [
        *(_account_of(uid) for uid in owners if uid != 0),
        *map(_account_of, ("postgres", "nobody")),
    ]
    chosen = next((entry for entry in candidates if entry is not None), None)
    if chosen is None:
        raise EmbeddedUnavailable(
            "PostgreSQL refuses to run as root and there is neither a user postgres nor nobody. "
            "Run Registrar as an ordinary user, or set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
        )
    uid, gid = chosen.pw_uid, chosen.pw_gid
    blocked_program = any(not _may_enter(program, uid, gid) for program in programs)
    blocked = [
        place for path in (data_dir, *programs) for place in path.parents if not _may_enter(place, uid, gid)
    ]
    if not _may_enter(data_dir, uid, gid):
        blocked.append(data_dir)
    return Account(uid, gid, _capability(blocked_program, blocked) if blocked or blocked_program else None)


def _account_of(user: int | str) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    return None


def _may_enter(path: Path, uid: int, gid: int) -> bool:
    found = path.stat()
    shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
    return bool(found.st_mode >> shift & 1)


def _capability(execute: bool, blocked: list[Path]) -> int:
    """The smallest capability that suffices. Reading does, unless only root may execute a program."""
    held = 0
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        held = int(status.split("CapEff:")[1].split()[0], 16)
    for capability in [_CAP_DAC_OVERRIDE] if execute else [_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE]:
        if held >> capability & 1:
            return capability
    raise EmbeddedUnavailable(
        f"PostgreSQL refuses to run as root and no other account can enter {', '.join(map(str, blocked))}. "
        "Run Registrar as an ordinary user, or put its data directory and its virtual environment where "
        "others may pass, or set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
    )


def user_name(uid: int) -> str:
    """The name of a user id. PostgreSQL does not start without one. Raises EmbeddedUnavailable."""
    entry = _account_of(uid)
    if entry is None:
        raise EmbeddedUnavailable(
            f"User id {uid} has no name on this machine, and PostgreSQL does not start without one. "
            "Give it an entry in /etc/passwd, or set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
        )
    return entry.pw_name


def enter_as(account: Account | None, death_signal: int) -> Callable[[], None]:
    """Returns what a child does between fork and exec: it changes its account, then asks for `death_signal`
    when its parent dies. In this order, because a change of the account clears that request."""
    ask_for_signal = die_with_parent(death_signal)
    header, sets = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), b""
    if account is not None and account.capability is not None:
        sets = struct.pack("6I", *[1 << account.capability] * 3, 0, 0, 0)

    def enter() -> None:
        os.umask(0o077)
        if account is not None:
            if sets and LIBC is not None:
                LIBC.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
            if sets and LIBC is not None:
                LIBC.capset(header, sets)
                LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, account.capability, 0, 0)
        ask_for_signal()

    return enter
