"""Ends a child process when its parent dies, however the parent dies.

Linux sends a signal that the child has asked for (PR_SET_PDEATHSIG). Other systems have no such signal: there
a child outlives a parent that is killed. Linux sends it when the *thread* that forked the child ends, so that
thread must live as long as the child.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
"""The C library, which has `prctl`; None on other systems. It is loaded here because between fork and exec
nothing may be looked up."""
if LIBC is not None:
    LIBC.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]


def die_with_parent(death_signal: int = signal.SIGKILL) -> Callable[[], None]:
    """Returns what a child calls after the fork, so that it gets `death_signal` when its parent dies.

    Call this in the parent, before the fork. A change of the account clears the request, so the child must
    change its account first.
    """
    parent = os.getpid()

    def ask() -> None:
        if LIBC is None:
            return
        LIBC.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the request
            os._exit(1)

    return ask
