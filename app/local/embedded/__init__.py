"""PostgreSQL and Valkey from their wheels, so that one machine needs no set-up.

The package starts processes and keeps files. It opens no database session and knows no settings. Other
packages use the names in `__all__` only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from app.local.embedded.errors import EmbeddedUnavailable
from app.local.embedded.postgres import Postgres
from app.local.embedded.programs import Binaries, binaries
from app.local.embedded.server import Server
from app.local.embedded.valkey import Valkey

__all__ = [
    "Binaries",
    "Embedded",
    "EmbeddedUnavailable",
    "Endpoints",
    "Postgres",
    "Server",
    "Valkey",
    "binaries",
]


@dataclass(frozen=True)
class Endpoints:
    """The addresses of both servers, for SQLAlchemy (asyncpg), redis-py and arq."""

    database_url: str
    redis_url: str


class Embedded:
    """Both servers of one data directory. A context manager; close() ends it too."""

    def __init__(self, postgres: Postgres, valkey: Valkey) -> None:
        self.postgres = postgres
        self.valkey = valkey

    @classmethod
    def open(cls, data_dir: Path, *, durable: bool = True, programs: Binaries | None = None) -> Self:
        """Starts the servers of this data directory, or joins those that run. Blocks until both answer.

        A server that was joined ends with the process that started it. With `durable=False` (for tests) a
        power cut may lose or damage data; a killed process does not. Raises EmbeddedUnavailable.
        """
        programs = programs or binaries()
        postgres = Postgres(data_dir, durable=durable, programs=programs)
        both = cls(postgres, Valkey(data_dir, durable=durable, programs=programs))
        try:
            both.valkey.start()
            both.postgres.start()
            both.valkey.start()  # again: the process that ran it may have been ending when it was joined
        except BaseException:
            both.close()
            raise
        return both

    @property
    def endpoints(self) -> Endpoints:
        """The addresses of both servers. They stay the same over a restart."""
        return Endpoints(self.postgres.url, self.valkey.url)

    @property
    def owned(self) -> bool:
        """Whether this process started either of them."""
        return self.postgres.owned or self.valkey.owned

    def close(self) -> None:
        """Stops the servers that this process started. Safe to call twice."""
        self.postgres.stop()
        self.valkey.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
