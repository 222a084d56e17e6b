"""Which account the servers run under, and how a child of ours becomes it: PostgreSQL refuses to run as root.

Decides the uid and gid when this process is root, and the one capability that account needs to pass
directories only root may enter. It stands alone because it changes with the operating system: accounts,
permissions, capabilities and the signal a child gets when its parent dies are settled here only.
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

from app.embedded.errors import EmbeddedUnavailable

if sys.platform != "win32":  # importable everywhere; starting anything needs unix sockets
    import pwd

_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if _LIBC is not None:  # bound here: between fork and exec nothing may be looked up
    _LIBC.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    _LIBC.capset.argtypes = [ctypes.c_char_p, ctypes.c_char_p]


@dataclass(frozen=True)
class Account:
    """The ordinary account the servers run under when this process is root.

    `capability` lets them pass directories only root may enter (its home directory, say), instead
    of opening those directories for everyone.
    """

    uid: int
    gid: int
    capability: int | None


def choose_account(data_dir: Path, programs: list[Path]) -> Account | None:
    """None when this process is not root: then the servers run as it does. Stable from start to start."""
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
    """The smallest capability that passes: reading suffices unless a program itself is root's alone."""
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
    """The name of a user id, without which PostgreSQL does not start. Raises EmbeddedUnavailable."""
    entry = _account_of(uid)
    if entry is None:
        raise EmbeddedUnavailable(
            f"User id {uid} has no name on this machine, and PostgreSQL does not start without one. "
            "Give it an entry in /etc/passwd, or set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
        )
    return entry.pw_name


def enter_as(account: Account | None, death_signal: int) -> Callable[[], None]:
    """What a child does between fork and exec: change account, then ask to be told when its parent dies.

    In this order, because changing the account clears the request. The parent may be dead already by then.
    """
    parent = os.getpid()
    header, sets = struct.pack("Ii", 0x20080522, 0), b""
    if account is not None and account.capability is not None:
        sets = struct.pack("6I", *[1 << account.capability] * 3, 0, 0, 0)

    def enter() -> None:
        os.umask(0o077)
        if account is not None:
            if sets and _LIBC is not None:
                _LIBC.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
            if sets and _LIBC is not None:
                _LIBC.capset(header, sets)
                _LIBC.prctl(47, 2, account.capability, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
        if _LIBC is not None:
            _LIBC.prctl(1, death_signal, 0, 0, 0)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)

    return enter
