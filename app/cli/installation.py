"""The installation itself, for commands that do not go through the API: settings and database.

Everything it opens takes a second to import, so that happens only when such a command runs. What can
be wrong with an installation is told here in words: a setting, a database that is away, a schema that
is behind.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.cli.outcome import Stop
from app.domain.errors import NotFound, Refusal
from app.settings import Settings

if TYPE_CHECKING:
    from app.runtime import Runtime

Result = TypeVar("Result")


def load_settings() -> Settings:
    """From the environment. Raises Stop naming every wrong setting, and never its value.

    Also what only the opening of the installation would find: a server that is started says it with a
    driver's traceback, a minute of log further down.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        lines = []
        for part in error.errors(include_input=False, include_context=False, include_url=False):
            words = part["msg"].removeprefix("Value error, ")
            name = "_".join(str(step) for step in part["loc"][:1]).upper()
            lines.append(f"REGISTRAR_{name}: {words}" if name else words)
        raise Stop("The settings are not usable.", *lines) from None
    except SettingsError as error:
        raise Stop("The settings are not usable.", str(error)) from None
    _check_url("REGISTRAR_DATABASE_URL", settings.database_url)
    _check_url("REGISTRAR_MIGRATION_DATABASE_URL", settings.migration_database_url)
    if settings.redis_url and urlsplit(settings.redis_url).scheme not in ("redis", "rediss", "unix"):
        raise Stop(
            "REGISTRAR_REDIS_URL is not a Redis URL.", "It looks like redis://user:password@host:6379/0."
        )
    if settings.secret_keys:
        from app.secrets import SecretError, Secrets

        try:
            Secrets.from_base64([key.get_secret_value() for key in settings.secret_keys])
        except SecretError as error:
            raise Stop(
                "REGISTRAR_SECRET_KEYS can not be used.",
                f"{error}.",
                "`openssl rand -base64 32` makes a key.",
            ) from None
    return settings


def quiet(settings: Settings) -> None:
    """Logs of a command: on the error stream, and only what matters unless asked for more."""
    from app import telemetry

    level = settings.log_level if "log_level" in settings.model_fields_set else "WARNING"
    telemetry.configure(level=level, as_json=False, process="registrar")


def use_installation(work: Callable[["Runtime"], Awaitable[Result]]) -> Result:
    """Opens the installation, runs `work`, closes it. The schema must be the program's."""
    return _run(load_settings(), work, any_schema=False)


def migrate_installation() -> str:
    """Brings the database to this program's schema and returns the revision."""
    settings = load_settings()

    async def work(runtime: "Runtime") -> str:
        from app.runtime import migrate

        return await migrate(runtime.settings)

    # The application's login may not exist before the first migration: the owner's does.
    owner = settings.migration_database_url or settings.database_url
    return _run(settings.model_copy(update={"database_url": owner}), work, any_schema=True)


@contextmanager
def keep_databases() -> Iterator[tuple[Path, str]]:
    """The embedded servers, started or joined: where PostgreSQL's programs are, and its URL for them."""
    from app.embedded import Embedded, EmbeddedUnavailable

    settings = load_settings()
    quiet(settings)
    if settings.database_url:
        raise Stop(
            "REGISTRAR_DATABASE_URL names a PostgreSQL of its own.", "This runs the embedded one, without it."
        )
    try:
        with Embedded.open(settings.data_dir, durable=settings.durable) as embedded:
            # libpq knows no drivers.
            url = embedded.endpoints.database_url.replace("postgresql+asyncpg:", "postgresql:")
            yield embedded.postgres.programs.postgres, url
    except EmbeddedUnavailable as error:
        raise Stop(str(error)) from None


def _run(settings: Settings, work: Callable[["Runtime"], Awaitable[Result]], *, any_schema: bool) -> Result:
    from app.embedded import EmbeddedUnavailable
    from app.runtime import Runtime
    from app.secrets import SecretError

    quiet(settings)

    async def opened() -> Result:
        runtime = await Runtime.open(settings, process="registrar-cli")
        try:
            await _check_schema(runtime, settings, any_schema=any_schema)
            return await work(runtime)
        finally:
            await runtime.close()

    try:
        return asyncio.run(opened())
    except NotFound as refusal:
        raise Stop(
            refusal.detail, "`registrar partner list` and `registrar api-key list` show what there is."
        ) from None
    except Refusal as refusal:
        raise Stop(refusal.detail) from None
    except (EmbeddedUnavailable, SecretError) as error:
        raise Stop(str(error)) from None


def _check_url(name: str, url: str | None) -> None:
    """The mistakes that would otherwise show as a driver's error. Never quotes: there is a password."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        sane = parts.scheme.partition("+")[0] in ("postgresql", "postgres") and (parts.port or 1) > 0
    except ValueError:
        sane = False
    if not sane:
        raise Stop(
            f"{name} is not a PostgreSQL URL.", "It looks like postgresql://user:password@host/database."
        )


def _embedded_in(settings: Settings) -> str:
    """Said where a person may have meant another database, such as the sandbox's."""
    return (
        f"It is the embedded one in {settings.data_dir}. Another one, such as a sandbox's, "
        "is chosen with REGISTRAR_DATA_DIR."
    )


async def _check_schema(runtime: "Runtime", settings: Settings, *, any_schema: bool) -> None:
    from app.services import health

    version = await runtime.schema_version()
    if version is None:
        raise Stop(
            "The database does not answer.",
            "Check that it runs, and that REGISTRAR_DATABASE_URL names the right host, user and password.",
        )
    if any_schema:
        return
    if version == "none":
        where = () if settings.database_url else (_embedded_in(settings),)
        raise Stop("The database has no tables yet.", "Make them with `registrar migrate`.", *where)
    found = await health.look(runtime)
    if not found.schema_serves:
        raise Stop(
            f"The database's schema is {found.schema}.", "Bring it up to date with `registrar migrate`."
        )
