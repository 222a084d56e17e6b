"""Serves the API, with the intake process beside it: what `registrar api` runs (docs/adr/0024).

The program is loaded once. Then the process forks twice: the front answers the clients; the keeper restarts
the intake process whenever it ends; and the intake process handles calls with large bodies. Both end with the
front.
"""

import asyncio
import contextlib
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

import uvicorn
import uvloop
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from app.api.http.intake_relay import RETRY_AFTER, Channel
from app.api.http.intake_server import NICENESS, IntakeServer, prepare
from app.api.http.intake_wire import LIMIT
from app.api.http.protocol import BoundedHttp
from app.domain.errors import Busy
from app.kernel import metrics, telemetry
from app.kernel.child_processes import die_with_parent
from app.kernel.settings import Settings, load_or_exit
from app.kernel.telemetry import logger
from app.main import build
from app.runtime import Runtime, settle

log = logger("intake")

FAILED: Final = 1
"""The exit code of a process that could not start."""
GRACE_S: Final = 20
"""Seconds for running calls to finish when the API is told to stop. Supervisors usually wait 30."""
INTAKE_GRACE_S: Final = 3.0
"""Further seconds for the intake process, which has nothing left to do then."""
INTAKE_CONNECTIONS: Final = 5
"""The most database connections of the intake process."""
FIRST_PAUSE_S: Final = 0.1
"""Seconds before an intake process that ended is restarted. Doubled each time in a row."""
LONGEST_PAUSE_S: Final = 5.0
FIRST_TO_GO: Final = 500
"""Added to the process's share of memory, in thousandths, when Linux chooses which process to kill."""
STEADY_S: Final = 60.0
"""After running this long it counts as started: the next pause is the first one again."""


def main() -> None:
    settings = load_or_exit()
    app = build(settings)
    intake = IntakeProcess.start(
        name=lambda: telemetry.configure(**settings.logging, process="intake"),
        take_calls=lambda control: _take_calls(app, settings, control),
    )
    app.state.intake = intake
    metrics.watch_intake(intake.process_id, intake.restarts)
    try:
        _run_server(app, settings)
    finally:
        intake.end()


def _run_server(app: FastAPI, settings: Settings) -> None:
    """Answers calls until it is told to stop. If the API cannot start, uvicorn ends with 3, which `registrar`
    uses for missing consent."""
    try:
        uvicorn.run(
            app,
            host=settings.api_host,
            port=settings.api_port,
            # Bounds connections, heads and slow bodies; uvicorn's own protocol does not.
            http=BoundedHttp,
            ws="none",
            loop="uvloop",
            # The API reads X-Forwarded-For itself, from REGISTRAR_TRUSTED_PROXIES alone.
            proxy_headers=False,
            server_header=False,
            # The API writes its own line per request, with the correlation id.
            access_log=False,
            log_config=None,  # `build` has set up logging
            timeout_graceful_shutdown=GRACE_S,
        )
    except SystemExit as ended:
        sys.exit(FAILED if ended.code == STARTUP_FAILURE else ended.code)


def _take_calls(app: FastAPI, settings: Settings, control: socket.socket) -> None:
    """The intake process, from its beginning to its end."""
    metrics.count_elsewhere()
    prepare(app)

    async def open_runtime() -> Runtime:
        own = settings.model_copy(update={"database_pool_size": INTAKE_CONNECTIONS})
        return await Runtime.open(own, process="intake")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(IntakeServer(app, control, open_runtime).serve())


class IntakeProcess:
    """The intake process and its keeper, as the front holds them.

    Each call gets its own socket pair, one end of which is sent over the control socket. So there is no path
    that another program could open, and calls wait there while the process is being restarted.
    """

    def __init__(self, keeper: int, control: socket.socket, shared: "_Shared") -> None:
        self._keeper = keeper
        self._control = control
        self._shared = shared
        self._has_ended = False

    @classmethod
    def start(
        cls, *, name: Callable[[], None], take_calls: Callable[[socket.socket], None]
    ) -> "IntakeProcess":
        """Forks the process. Call it before there are threads or an event loop.

        `name` gives the log lines of the other two their name.
        """
        settle()
        ours, theirs = socket.socketpair()
        shared, die_with_us = _Shared(), die_with_parent()
        keeper = os.fork()
        if keeper == 0:
            try:
                ours.close()
                die_with_us()
                name()
                _keep(take_calls, theirs, shared)
            finally:
                os._exit(1)
        theirs.close()
        ours.setblocking(False)
        return cls(keeper, ours, shared)

    def process_id(self) -> int:
        return self._shared.process_id

    def restarts(self) -> int:
        return self._shared.restarts

    @property
    def is_there(self) -> bool:
        """Without its keeper nothing restarts the intake process, and the front does the work itself."""
        if not self._has_ended and _has_ended(self._keeper):
            self._has_ended = True
            log.error("intake_keeper_gone", remedy="Restart the API: large orders slow other calls now.")
        return not self._has_ended

    async def open(self) -> Channel:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"c"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise Busy("large_bodies_waiting", retry_after=RETRY_AFTER) from None
        ours.setblocking(False)
        return await asyncio.open_unix_connection(sock=ours, limit=LIMIT)

    def end(self) -> None:
        """Lets the intake process finish, and kills it if that takes too long."""
        if self._has_ended:
            return
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        until = time.monotonic() + INTAKE_GRACE_S
        while not (ended := _has_ended(self._keeper)) and time.monotonic() < until:
            time.sleep(0.01)
        if not ended:
            os.kill(self._keeper, signal.SIGKILL)  # and with it the intake process
            os.waitpid(self._keeper, 0)
        self._has_ended = True


def _has_ended(process: int) -> bool:
    try:
        return os.waitpid(process, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


class _Shared:
    """The keeper's report to the front in shared memory: the process id, and the number of earlier
    processes."""

    _FORM: Final = struct.Struct("qq")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, self._FORM.size)

    @property
    def process_id(self) -> int:
        return int(self._FORM.unpack_from(self._memory)[0])

    @property
    def restarts(self) -> int:
        return int(self._FORM.unpack_from(self._memory)[1])

    def tell(self, process_id: int, restarts: int) -> None:
        self._FORM.pack_into(self._memory, 0, process_id, restarts)


def _keep(take_calls: Callable[[socket.socket], None], control: socket.socket, shared: _Shared) -> NoReturn:
    """Restarts the intake process until it ends normally, when the front closes its end."""
    os.nice(NICENESS)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # signals are for the front, which ends this process afterwards
    restarts, pause = 0, FIRST_PAUSE_S
    while True:
        begun, die_with_us = time.monotonic(), die_with_parent()
        process = os.fork()
        if process == 0:
            die_with_us()
            _run(take_calls, control)
        shared.tell(process, restarts)
        _, status = os.waitpid(process, 0)
        if status == 0:
            os._exit(0)
        restarts += 1
        shared.tell(0, restarts)
        log.error("intake_process_ended", status=os.waitstatus_to_exitcode(status))
        if time.monotonic() - begun >= STEADY_S:
            pause = FIRST_PAUSE_S
        if _front_ends_within(control, pause):
            os._exit(0)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def _run(take_calls: Callable[[socket.socket], None], control: socket.socket) -> NoReturn:
    with contextlib.suppress(OSError):  # if memory runs out, this process and not the front should be killed
        Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO))
    try:
        take_calls(control)
        os._exit(0)
    except BaseException as error:
        log.error("intake_process_failed", exc_info=error)
        raise
    finally:
        os._exit(1)


def _front_ends_within(control: socket.socket, seconds: float) -> bool:
    ending = select.poll()
    ending.register(control, getattr(select, "POLLRDHUP", select.POLLHUP))
    return bool(ending.poll(1000 * seconds))


if __name__ == "__main__":
    main()
