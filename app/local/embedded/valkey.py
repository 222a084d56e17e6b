"""Valkey: its settings and its address.

Decides what an embedded Valkey keeps on disk and how much memory it may take, and asks it whether it
serves. It stands alone because it changes with Valkey and with what the queue asks of it, and with nothing
else.
"""

from __future__ import annotations

import signal
from pathlib import Path

from app.local.embedded.accounts import Account
from app.local.embedded.server import Server
from app.local.embedded.sockets import converse, make_private


class Valkey(Server):
    """Valkey with an append-only file. What it holds may be lost: the database rows are the truth."""

    name = "valkey"
    stop_signals = ((signal.SIGTERM, 15.0),)

    @property
    def socket_path(self) -> Path:
        return self._sockets / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}"

    def _programs(self) -> list[Path]:
        return [self.programs.valkey_server()]

    def _prepare(self, lease: int, account: Account | None) -> list[str]:
        self.socket_path.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "600",
            "dir": str(make_private(self.data_dir / "valkey", account)),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory": "256mb",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        return [str(self.programs.valkey_server()), *arguments]

    def _refusal(self) -> str | None:
        answer = converse(self.socket_path, b"PING\r\n", lambda seen: seen.endswith(b"\r\n"))
        if isinstance(answer, str):
            return answer
        return None if answer == b"+PONG\r\n" else answer.decode(errors="replace").strip() or "no answer"
