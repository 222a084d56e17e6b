"""Completes settings that lack a URL, with PostgreSQL and Valkey from the data directory."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from app.kernel.settings import Settings
from app.local.embedded import Postgres, Valkey
from app.runtime import NoInstallation, Purpose, require_key


def require_installation(settings: Settings, purpose: Purpose) -> None:
    """Raises NoInstallation if a database or a secret key would have to be created. Creates nothing."""
    if purpose is Purpose.CREATE:
        return
    here = settings.data_dir
    if not settings.database_url and not Postgres.is_made(here):
        raise NoInstallation(
            "There is no installation here. `registrar migrate` makes one in "
            f"{here.absolute()}; for another one set REGISTRAR_DATABASE_URL or REGISTRAR_DATA_DIR."
        )
    if purpose is Purpose.LOOK:
        return
    require_key(settings)
    if not settings.redis_url and not here.exists():
        raise NoInstallation(
            "There is no Redis: set REGISTRAR_REDIS_URL, or run `registrar migrate`, which makes a Valkey in "
            f"{here.absolute()}."
        )


@contextmanager
def complete(settings: Settings, purpose: Purpose) -> Iterator[Settings]:
    """Starts a server for each missing URL, or joins the one that runs. Yields the settings with both URLs.

    At the end it stops the servers that it started. LOOK creates no Valkey: if there is none, the URL of
    Redis stays missing. Raises NoInstallation or EmbeddedUnavailable.
    """
    require_installation(settings, purpose)
    found: dict[str, object] = {"spool_dir": settings.spool}  # follows from the missing URL
    with ExitStack() as stack:
        for name, kind in (("database_url", Postgres), ("redis_url", Valkey)):
            if getattr(settings, name):
                continue
            if kind is Valkey and purpose is Purpose.LOOK and not Valkey.is_made(settings.data_dir):
                continue
            server = kind(settings.data_dir, durable=settings.durable)
            stack.callback(server.stop)
            server.start()
            found[name] = server.url
        yield settings.model_copy(update=found)
