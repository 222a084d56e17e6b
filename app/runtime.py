"""Opens everything that a process needs and wires it together; opens all transactions.

API, workers, command line and tests all use `Runtime.open(settings)`, and close it at the end. A transaction
ends before its result is used, and its wake-ups are sent after the commit.
"""

import asyncio
import contextlib
import gc
import os
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from random import Random
from typing import NamedTuple, Self
from uuid import UUID, uuid4

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db import driver, schema, sealing, walls
from app.db import engine as database
from app.db.clock import READ_EVERY, DatabaseClock
from app.db.sqlstate import sqlstate_of
from app.domain.actor import Principal
from app.domain.address import Allowance
from app.domain.errors import Busy
from app.domain.ids import PartnerId
from app.domain.presence import Presence
from app.domain.quota import Quota
from app.kernel.budgets import Budgets, policy_for
from app.kernel.call_rates import CallRates
from app.kernel.environment import SettingsRefused
from app.kernel.fair_turns import Turns
from app.kernel.outbound import Outbound
from app.kernel.queue import Queue
from app.kernel.secrets import NO_KEY, Secrets, key_file
from app.kernel.settings import Settings
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx, SystemTx, Tx
from app.microsoft.http import Microsoft
from app.platforms.base import Abilities, Platform, TokenFor, discover, open_all

log = logger("runtime")

CLOCK_PATIENCE = 2.0
"""Seconds that a start waits for the database's time, because the API also starts without a database."""
INVALID_PARAMETER = "22023"
"""PostgreSQL's SQLSTATE for a `role` that does not exist."""


NO_REDIS = "unix:///nonexistent/registrar"
"""The address of Redis for commands that need none: nothing answers there."""


class NoInstallation(RuntimeError):
    """A process lacks what it needs to run, or a platform's settings are wrong.

    The text says what to do.
    """


class Purpose(Enum):
    """What a process opens an installation for."""

    LOOK = "look"  # a command on the database: Redis and the secret key may be missing
    SERVE = "serve"
    CREATE = "create"  # makes a secret key if there is none


class TokenSlot(NamedTuple):
    """The key of a cached token. A changed tenant or app makes the connection's old tokens unreachable."""

    connection_id: UUID
    wanted: TokenFor
    tenant_id: UUID
    client_id: str


@dataclass
class TokenCache:
    """Access tokens of this process, in memory only."""

    tokens: dict[TokenSlot, tuple[str, datetime]] = field(default_factory=dict)
    locks: defaultdict[TokenSlot, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def forget(self, connection_id: UUID) -> None:
        for slot in [slot for slot in self.tokens if slot.connection_id == connection_id]:
            del self.tokens[slot]


SWITCH_INTERVAL = 0.0001
"""Seconds for which a thread with a large order, page or file keeps Python's lock while the event loop waits
for it. An answer waits dozens of times. Measured on two cores beside orders of 10,000 devices: half of a
neighbour's answers took more than 112 ms at 1 ms, and more than 42 ms at this."""
RETRY_AFTER_READ = 5
"""Seconds before a read that took too long may be retried."""


@dataclass
class Runtime:
    settings: Settings
    engine: AsyncEngine
    queue: Queue
    budgets: Budgets
    call_rates: CallRates
    turns: Turns
    secrets: Secrets
    microsoft: Microsoft
    outbound: Outbound
    platforms: dict[str, Platform]
    abilities: dict[str, Abilities]
    """By platform. One without an API has none."""
    clock: DatabaseClock
    presence: Presence
    """This process's name in claims, and the heartbeats if it is a worker."""
    now: Callable[[], datetime]
    """The time, the same for all processes; tests change it."""
    random: Callable[[], float] = field(default=Random().random)  # noqa: S311 - jitter, nothing secret
    token_cache: TokenCache = field(default_factory=TokenCache, repr=False)
    _quotas: Mapping[Quota, int] = field(init=False, repr=False)
    """Default limits, read from the settings once, because every transaction carries them."""
    _sealing_due: float = field(default=0.0, repr=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack, repr=False)
    _walls_are_up: bool = False
    """Checked before the first transaction, and before each one while the schema is too old."""

    def __post_init__(self) -> None:
        self._quotas = self.settings.quotas

    @classmethod
    async def open(
        cls, settings: Settings, *, process: str = "registrar", purpose: Purpose = Purpose.SERVE
    ) -> Self:
        """Opens everything. The settings must have the URLs of PostgreSQL and Redis.

        Raises NoInstallation, SecretError, WallsDown or SQLAlchemy's errors, with words for an operator.
        """
        check_installation(settings, purpose)
        assert settings.database_url is not None
        redis_url = settings.redis_url or NO_REDIS
        async with AsyncExitStack() as stack:
            engine = database.open_engine(
                settings.database_url, pool_size=settings.database_pool_size, name=process
            )
            stack.push_async_callback(engine.dispose)
            queue = Queue(redis_url)
            stack.push_async_callback(queue.close)
            clock = DatabaseClock()
            shared = Budgets.open(redis_url, policy_for(settings), clock.now)
            stack.push_async_callback(shared.close)
            microsoft = Microsoft.open(settings)
            stack.push_async_callback(microsoft.close)
            outbound = Outbound.build(
                timeout=settings.webhook_timeout_s,
                allowed=[Allowance.parse(network) for network in settings.webhook_allowed_networks],
                allow_http=settings.webhook_allow_http,
                ca_file=settings.webhook_ca_file,
            )
            stack.push_async_callback(outbound.close)
            platforms, abilities = _platforms(settings, microsoft)
            opened = cls(
                settings=settings,
                engine=engine,
                queue=queue,
                budgets=shared,
                call_rates=CallRates(shared.redis, settings.requests_per_minute),
                turns=Turns.of(settings),
                secrets=_secrets(settings, purpose),
                microsoft=microsoft,
                outbound=outbound,
                platforms=platforms,
                clock=clock,
                presence=Presence(_process_name(), settings.silence),
                now=clock.now,
                abilities=abilities,
                _stack=stack.pop_all(),
            )
        await opened._read_clock()
        if purpose is not Purpose.CREATE:  # a migration may be what makes them
            await opened._check_walls_at_start(tell=purpose is Purpose.SERVE)
        return opened

    async def _read_clock(self) -> None:
        """Reads the database's time before anything is written. If the database is down, the clock is read
        with its first answer, which still comes before any write."""
        with contextlib.suppress(*database.OUTAGES):  # TimeoutError is an OSError
            async with asyncio.timeout(CLOCK_PATIENCE), self.engine.connect() as session:
                await self.clock.read(session)

    async def _check_sealing(self, tx: Tx) -> None:
        """Checks whether values are bound to their rows yet. Once they are, they always are."""
        if self.secrets.binds_to_rows or self.clock.steady() < self._sealing_due:
            return
        self._sealing_due = self.clock.steady() + READ_EVERY
        self.secrets.binds_to_rows = await sealing.binds_to_rows(tx)

    async def _check_walls_at_start(self, *, tell: bool) -> None:
        """Checks row-level security before anything is read. `tell`: log lesser weaknesses too.

        If the database is unavailable, each transaction checks again until it is there.
        """
        try:
            async with asyncio.timeout(CLOCK_PATIENCE):
                await self._require_walls()
                if tell and self._walls_are_up:
                    async with self.engine.connect() as session:
                        for statement in await walls.weaknesses(session):
                            log.warning("public_can_connect", remedy=statement)
        except walls.WallsDown:
            await self.close()
            raise
        except database.OUTAGES as error:  # TimeoutError is an OSError
            log.info("row_security_not_checked_yet", error=type(error).__name__)

    async def _require_walls(self) -> None:
        """Raises WallsDown if a partner could see another's rows."""
        async with self.engine.connect() as session:
            self._walls_are_up = await walls.are_up(session)

    async def close(self) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def transaction(self, principal: Principal) -> AsyncIterator[PartnerTx]:
        """A transaction that sees only the principal's partner's rows. Wake-ups are sent after the commit."""
        async with self._share(principal.partner_id), self._begin() as (session, now):
            await database.become_partner(session, principal.partner_id)
            tx = self._partner_tx(session, now, principal)
            await self._check_sealing(tx)
            yield tx
        await self._after_commit(tx)

    @asynccontextmanager
    async def reading(self, principal: Principal) -> AsyncIterator[PartnerTx]:
        """A transaction for a call that only reads. Raises Busy if a statement takes too long: it is
        cancelled, because all partners share the database."""
        patience = self.settings.read_timeout_s
        try:
            async with self._share(principal.partner_id), self._begin() as (session, now):
                await database.become_reader(session, principal.partner_id, patience)
                yield self._partner_tx(session, now, principal)
        except DBAPIError as error:
            if sqlstate_of(error) != database.TOOK_TOO_LONG:
                raise
            words = f"Reading took longer than {patience:g} seconds and was stopped."
            raise Busy("read_took_too_long", words, retry_after=RETRY_AFTER_READ) from error

    def _partner_tx(self, session: AsyncConnection, now: datetime, principal: Principal) -> PartnerTx:
        return PartnerTx(
            session=session,
            now=now,
            quotas=self._quotas,
            partner_id=principal.partner_id,
            actor=principal.actor,
        )

    def _share(self, partner_id: PartnerId) -> AbstractAsyncContextManager[None]:
        """Waits for the partner's turn at the database connections, so that none uses up the pool."""
        return self.turns.connections.turn(
            partner_id, lambda _: PoolTimeoutError("no database connection came free")
        )

    @asynccontextmanager
    async def system_transaction(self) -> AsyncIterator[SystemTx]:
        """A transaction over all partners: for claims, sweeps, authentication and the operator."""
        async with self._begin() as (session, now):
            await database.become_system(session)
            tx = SystemTx(session=session, now=now, quotas=self._quotas)
            await self._check_sealing(tx)
            yield tx
        await self._after_commit(tx)

    @asynccontextmanager
    async def lookup(self) -> AsyncIterator[AsyncConnection]:
        """A connection for one statement outside any transaction, which names its partner itself."""
        await self._check_walls()
        async with self.engine.connect() as session:
            yield session

    async def _check_walls(self) -> None:
        if self._walls_are_up:
            return
        try:
            await self._require_walls()
        except walls.WallsDown as error:
            log.error("row_security_broken", reason=str(error))
            raise

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[tuple[AsyncConnection, datetime]]:
        await self._check_walls()
        async with driver.transaction(self.engine) as session:
            if self.clock.is_due:
                await self.clock.read(session)
            yield session, self.now()

    async def _after_commit(self, tx: Tx) -> None:
        """Does what must wait for the commit."""
        for tell in tx.committed:
            tell()
        if tx.wake_ups:
            await self.queue.send(tx.wake_ups, self.now())

    async def schema_version(self) -> str | None:
        """The database's revision, "none" before the first migration; None if it does not answer."""
        try:
            async with self.engine.connect() as session:
                await database.become_nobody(session)
                return await schema.current(session)
        except DBAPIError as error:
            # The first migration creates our role; PostgreSQL reports a missing one as a wrong parameter.
            return "none" if sqlstate_of(error) == INVALID_PARAMETER else None
        except OSError:
            return None


def settle() -> None:
    """Tunes the interpreter for a serving process. Call it once, when everything is imported and open.

    Freezes loaded objects, so that the garbage collector stops scanning them. Otherwise it scans them again
    and again while ten thousand rows come and go, which took a fifth of an order's time.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_INTERVAL)


async def migrate(settings: Settings) -> str:
    """Brings the database to this program's schema and returns the revision."""
    url = settings.migration_database_url or settings.database_url
    assert url is not None
    return await schema.migrate(url)


def check_installation(settings: Settings, purpose: Purpose) -> None:
    """Raises NoInstallation if a URL or the secret key is missing. Creates nothing."""
    servers = [("REGISTRAR_DATABASE_URL", settings.database_url)]
    if purpose is Purpose.SERVE:
        servers.append(("REGISTRAR_REDIS_URL", settings.redis_url))
    if missing := [name for name, url in servers if not url]:
        raise NoInstallation(
            f"Set {' and '.join(missing)}. Without that, only the `registrar` command starts PostgreSQL and "
            "Valkey, from their wheels; the image has none."
        )
    if purpose is Purpose.SERVE:
        require_key(settings)


def require_key(settings: Settings) -> None:
    """Raises NoInstallation if there is no secret key. Creates none."""
    if not settings.secret_keys and not key_file(settings.data_dir).exists():
        raise NoInstallation(f"{NO_KEY[0].upper()}{NO_KEY[1:]}.")


def _process_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


def _platforms(settings: Settings, microsoft: Microsoft) -> tuple[dict[str, Platform], dict[str, Abilities]]:
    try:
        found = discover(settings.more_platforms)
        return found, open_all(found, settings, microsoft)
    except SettingsRefused as refused:
        raise NoInstallation(str(refused)) from None


def _secrets(settings: Settings, purpose: Purpose) -> Secrets:
    found = _keys(settings, purpose)
    found.binds_to_rows = False  # until the database has been asked
    return found


def _keys(settings: Settings, purpose: Purpose) -> Secrets:
    if settings.secret_keys:
        return Secrets.from_base64([key.get_secret_value() for key in settings.secret_keys])
    if purpose is Purpose.CREATE or key_file(settings.data_dir).exists():
        return Secrets.from_data_dir(settings.data_dir)
    return Secrets.absent()
