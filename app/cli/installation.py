"""The installation's settings and database, for commands that do not use the API.

What it opens takes a second to import, so that happens only when such a command runs. It explains what can be
wrong with an installation: a setting, a database that does not answer, an old schema.

Without a URL, these commands start or join the embedded databases (`app.local`). The image has neither those
nor that package.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from app.cli.outcome import Stop
from app.domain.errors import NotFound, Refusal
from app.kernel.environment import SettingsRefused, unknown_names
from app.kernel.settings import SECRET_SETTINGS, Settings, load

if TYPE_CHECKING:
    from app.runtime import Purpose, Runtime

Result = TypeVar("Result")


def check_names() -> None:
    """Raises Stop if the environment has an unknown `REGISTRAR_...` name: a misspelt
    REGISTRAR_API_URL would send orders to another installation."""
    if lines := unknown_names(os.environ, Settings.model_fields, SECRET_SETTINGS):
        raise Stop(lines[0], *lines[1:])


def load_settings() -> Settings:
    """From the environment. Raises Stop naming every wrong setting, and never its value."""
    try:
        return load()
    except SettingsRefused as refused:
        raise Stop(refused.lines[0], *refused.lines[1:]) from None


def has_local() -> bool:
    """Whether this installation can run embedded databases. The image cannot."""
    return find_spec("app.local") is not None


def needs_local(settings: Settings) -> bool:
    """Whether a URL is missing that `app.local` can fill in."""
    return has_local() and not (settings.database_url and settings.redis_url)


def require_installation(settings: Settings) -> None:
    """Raises Stop if a server would find no database, no Redis or no key."""
    from app.runtime import NoInstallation, Purpose, check_installation

    try:
        if needs_local(settings):
            from app.local import databases

            databases.require_installation(settings, Purpose.SERVE)
        else:
            check_installation(settings, Purpose.SERVE)
    except NoInstallation as error:
        raise Stop(str(error)) from None


def serve_here(settings: Settings, arguments: Sequence[str]) -> int:
    """Runs a server on the databases of this machine. Returns its exit code."""
    from app.local.embedded import EmbeddedUnavailable
    from app.local.serving import serve
    from app.runtime import NoInstallation

    try:
        return serve(settings, arguments)
    except (EmbeddedUnavailable, NoInstallation) as error:
        raise Stop(str(error)) from None


def quiet(settings: Settings) -> None:
    """Logs to stderr, and only warnings unless a level is set."""
    from app.kernel import telemetry

    level = settings.log_level if "log_level" in settings.model_fields_set else "WARNING"
    telemetry.configure(level=level, as_json=False, process="registrar")


def use_installation(work: Callable[["Runtime"], Awaitable[Result]]) -> Result:
    """Opens the installation, runs `work`, closes it. The schema must be the program's. Creates nothing."""
    return _run(load_settings(), work, create=False)


def migrate_installation() -> str:
    """Brings the database to this program's schema and returns the revision."""
    settings = load_settings()

    async def work(runtime: "Runtime") -> str:
        from app.runtime import migrate

        return await migrate(runtime.settings)

    # The application's login may not exist before the first migration: the owner's does.
    owner = settings.migration_database_url or settings.database_url
    return _run(settings.model_copy(update={"database_url": owner}), work, create=True)


@contextmanager
def keep_databases(*, create: bool) -> Iterator[tuple[Path, str]]:
    """Starts or joins the embedded servers. Yields where PostgreSQL's programs are, and the URL for them.

    Raises Stop if there are no databases yet, unless they are to be created.
    """
    settings = load_settings()
    quiet(settings)
    if not has_local():
        raise Stop("The image has no databases of its own.", "Set REGISTRAR_DATABASE_URL instead.")
    from app.local.embedded import Embedded, EmbeddedUnavailable, Postgres

    if settings.database_url:
        raise Stop(
            "REGISTRAR_DATABASE_URL names a PostgreSQL of its own.", "This runs the embedded one, without it."
        )
    if not create and not Postgres.is_made(settings.data_dir):
        raise Stop(
            f"There is no installation in {settings.data_dir.absolute()}.",
            "REGISTRAR_DATA_DIR names another directory; `registrar databases --create` makes empty ones.",
        )
    try:
        with Embedded.open(settings.data_dir, durable=settings.durable) as embedded:
            # libpq does not know SQLAlchemy's driver names.
            url = embedded.endpoints.database_url.replace("postgresql+asyncpg:", "postgresql:")
            yield embedded.postgres.programs.postgres, url
    except EmbeddedUnavailable as error:
        raise Stop(str(error)) from None


@contextmanager
def _complete(settings: Settings, purpose: "Purpose") -> Iterator[Settings]:
    """Yields the settings, with URLs of embedded databases where none are set."""
    if not needs_local(settings):
        yield settings
        return
    from app.local.databases import complete
    from app.local.embedded import EmbeddedUnavailable

    try:
        with complete(settings, purpose) as known:
            yield known
    except EmbeddedUnavailable as error:
        raise Stop(str(error)) from None


def _run(settings: Settings, work: Callable[["Runtime"], Awaitable[Result]], *, create: bool) -> Result:
    from app.db.walls import WallsDown
    from app.kernel.secrets import SecretError
    from app.runtime import NoInstallation, Purpose, Runtime

    quiet(settings)
    purpose = Purpose.CREATE if create else Purpose.LOOK

    async def opened(known: Settings) -> Result:
        runtime = await Runtime.open(known, process="registrar-cli", purpose=purpose)
        try:
            await _check_schema(runtime, settings, any_schema=create)
            return await work(runtime)
        finally:
            await runtime.close()

    try:
        with _complete(settings, purpose) as known:
            return asyncio.run(opened(known))
    except NotFound as refusal:
        raise Stop(
            refusal.detail,
            "`registrar partner list` and `registrar api-key list` show what there is.",
            error_code="name_not_found",
        ) from None
    except Refusal as refusal:
        if refusal.code == "invalid_parameter":  # its remedy is about the `errors` of the API
            raise Stop(refusal.detail) from None
        raise Stop(refusal.detail, refusal.remedy, error_code=refusal.code) from None
    except (NoInstallation, SecretError, WallsDown) as error:
        raise Stop(str(error)) from None


def _embedded_in(settings: Settings) -> str:
    """Advice for somebody who may have meant another database, such as the sandbox's."""
    return (
        f"It is the embedded one in {settings.data_dir}. Another one, such as a sandbox's, "
        "is chosen with REGISTRAR_DATA_DIR."
    )


async def _check_schema(runtime: "Runtime", settings: Settings, *, any_schema: bool) -> None:
    from app.services.operations import health

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
        raise Stop("The database has no tables yet.", "Create them with `registrar migrate`.", *where)
    found = await health.look(runtime)
    if not found.schema_serves:
        raise Stop(
            f"The database's schema is {found.schema}.", "Bring it up to date with `registrar migrate`."
        )
