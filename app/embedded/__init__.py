"""PostgreSQL and Valkey from their wheels, so that one machine needs no set-up.

Decides that the two are opened and closed together, and which names the rest of Registrar uses: those in
`__all__`; the modules here are for each other. The package stands alone because it is about processes and
files only: it opens no database session, and whoever sets REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL
never executes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from app.embedded.errors import EmbeddedUnavailable, NoInstallation
from app.embedded.postgres import Postgres
from app.embedded.programs import Binaries, binaries
from app.embedded.server import Server
from app.embedded.valkey import Valkey

__all__ = [
    "Binaries",
    "Embedded",
    "EmbeddedUnavailable",
    "Endpoints",
    "NoInstallation",
    "Postgres",
    "Server",
    "Valkey",
    "binaries",
]


@dataclass(frozen=True)
class Endpoints:
    """Addresses that SQLAlchemy (asyncpg) and redis-py or arq accept as they are."""

    database_url: str
    redis_url: str


class Embedded:
    """Both servers of one data directory, for the length of a `with` block or until close()."""

    def __init__(self, postgres: Postgres, valkey: Valkey) -> None:
        self.postgres = postgres
        self.valkey = valkey

    @classmethod
    def open(cls, data_dir: Path, *, durable: bool = True, programs: Binaries | None = None) -> Self:
        """Start what does not run yet for this data directory and join what does.

        With `durable=False` (for tests) a power cut may lose or damage data; a killed process does not.
        Blocks until both answer. A joiner's servers end when the process that started them does.
        Raises EmbeddedUnavailable.
        """
        programs = programs or binaries()
        postgres = Postgres(data_dir, durable=durable, programs=programs)
        both = cls(postgres, Valkey(data_dir, durable=durable, programs=programs))
        try:
            both.valkey.start()
            both.postgres.start()
            both.valkey.start()  # looks again: its starter may have been dying when it was joined
        except BaseException:
            both.close()
            raise
        return both

    @property
    def endpoints(self) -> Endpoints:
        """Where the two servers are reached. Stays the same over a restart."""
        return Endpoints(self.postgres.url, self.valkey.url)

    @property
    def owned(self) -> bool:
        """Whether this process started either of them."""
        return self.postgres.owned or self.valkey.owned

    def close(self) -> None:
        """Stop what this process started, and nothing else. Safe to call twice."""
        self.postgres.stop()
        self.valkey.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
