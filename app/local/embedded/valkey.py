"""An embedded Valkey: its settings, its address, whether it serves."""

from __future__ import annotations

import signal
from pathlib import Path

from app.local.embedded.accounts import Account
from app.local.embedded.server import Server
from app.local.embedded.sockets import converse, make_private


class Valkey(Server):
    """Valkey with an append-only file. Losing what it holds loses no work: the queue is in PostgreSQL."""

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
