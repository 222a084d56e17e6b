"""Opens connections to PostgreSQL: encrypted as libpq would, and correct behind a pooler too.

A pooler in transaction mode (PgBouncer) gives each transaction another server connection. State that a
connection keeps between transactions is then wrong: named prepared statements are missing or somebody else's,
and start-up parameters are refused or silently ignored. So the first connection detects whether there is a
pooler. Behind one, statements have no names, and only parameters that poolers track are sent. In either case,
everything that matters is set inside each transaction (`app.db.engine`), and a transaction that sets no role
begins with the role of the parameters (`app.db.driver`).
"""

from typing import Any
from urllib.parse import urlencode

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.db.driver import Bound, Direct, bound_to
from app.kernel import transport

TRACKED = frozenset({"application_name", "timezone"})
"""Start-up parameters that poolers keep for each client."""
NO_STATEMENT_OUTLIVES_ITS_TRANSACTION = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}


def normalise_url(url: str) -> URL:
    """A PostgreSQL URL for the driver we use, without the parameters that `arguments_of` translates."""
    parsed = make_url(url)
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError(f"Registrar needs PostgreSQL, not {parsed.get_backend_name()}")
    said = [name for name in parsed.query if name not in transport.PASSED_ON]
    return parsed.set(drivername="postgresql+asyncpg").difference_update_query(said)


def arguments_of(url: str) -> dict[str, Any]:
    """The driver's arguments for the URL's query parameters.

    The driver reads libpq's parameters only from a URL, so it gets a URL with nothing else in it.
    """
    said = transport.parameters(url)
    arguments: dict[str, Any] = {}
    if transport.trusts_system(url):
        arguments["ssl"] = transport.system_context(url)
        arguments["direct_tls"] = said.get("sslnegotiation") == "direct"
    elif tls := transport.tls_parameters(url):
        arguments["dsn"] = f"postgresql://?{urlencode(tls)}"
    if timeout := said.get("connect_timeout"):
        arguments["timeout"] = float(timeout)
    if options := said.get("options"):
        arguments["server_settings"] = {"options": options}
    return arguments


def make_engine(url: str, *, parameters: dict[str, str] | None = None, **options: Any) -> AsyncEngine:
    """An engine for the configured URL; `parameters` are sent when a connection starts."""
    arguments = {"timeout": 10, **options.pop("connect_args", {}), **arguments_of(url)}
    arguments["server_settings"] = {**(parameters or {}), **arguments.get("server_settings", {})}
    engine = create_async_engine(normalise_url(url), connect_args=arguments, **options)
    event.listen(engine.sync_engine, "do_connect", _Pooler((parameters or {}).get("role")))
    return engine


class _Pooler:
    """Runs before each connection of an engine: detects a pooler once, and connects accordingly."""

    def __init__(self, role: str | None) -> None:
        """`role`: the role of transactions that set none themselves."""
        self._role = role
        self._found: bool | None = None

    def __call__(self, dialect: Any, _record: object, arguments: Any, named: dict[str, Any]) -> None:
        careful = {
            **named,
            **NO_STATEMENT_OUTLIVES_ITS_TRANSACTION,
            "server_settings": {k: v for k, v in named["server_settings"].items() if k in TRACKED},
        }
        if self._found is None:
            self._found = _is_behind_pooler(dialect, arguments, careful)
        if self._found:
            named.update(careful)
        if self._role is not None:
            named["connection_class"] = bound_to(self._role, Bound if self._found else Direct)


def _is_behind_pooler(dialect: Any, arguments: Any, named: dict[str, Any]) -> bool:
    """Whether there is a pooler: it answers the start-up itself, so the process id that it reports is not
    that of the process that runs our statements."""
    probe = dialect.connect(*arguments, **named)
    try:
        cursor = probe.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        (process,) = cursor.fetchone()
        return bool(process != probe.driver_connection.get_server_pid())
    finally:
        probe.close()
