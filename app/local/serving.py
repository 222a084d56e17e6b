"""Runs the API or a worker as a child, on databases of this machine that live as long as it does."""

import os
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

from app.kernel.child_processes import die_with_parent
from app.kernel.settings import Settings
from app.local.databases import complete
from app.runtime import Purpose

PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP")
KILLED = 128
"""Added to a signal's number for the exit code of a program that the signal ended, as in a shell."""


def serve(settings: Settings, arguments: Sequence[str]) -> int:
    """Runs the program until it ends and returns its exit code. Passes signals on to it.

    Raises NoInstallation or EmbeddedUnavailable.
    """
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        if process is None:
            raise SystemExit(KILLED + number)  # the databases are still starting
        process.send_signal(number)

    for number in (getattr(signal, name) for name in PASSED_ON):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: keep running
            signal.signal(number, pass_on)
    with complete(settings, Purpose.SERVE) as known:
        process = subprocess.Popen(
            arguments,
            env={**os.environ, **_added(settings, known)},
            start_new_session=True,  # so that Ctrl-C reaches it only from here
            preexec_fn=die_with_parent(),
        )
        code = process.wait()
    return code if code >= 0 else KILLED - code


def _added(settings: Settings, known: Settings) -> dict[str, str]:
    """The settings that the child's environment lacks."""
    added = {} if settings.spool_dir else {"REGISTRAR_SPOOL_DIR": str(known.spool_dir or "")}
    if not settings.database_url:
        added["REGISTRAR_DATABASE_URL"] = str(known.database_url)
    if not settings.redis_url:
        added["REGISTRAR_REDIS_URL"] = str(known.redis_url)
    return added
