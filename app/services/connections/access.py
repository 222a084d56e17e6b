"""A connection's access to Microsoft: opens credentials when needed, shares tokens within a process.

Only one process at a time redeems a refresh token, because Microsoft may revoke the token at that moment.
The new refresh token is stored before the access token that came with it is used, so that a crash afterwards
does not cost the partner its connection.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy.exc import DBAPIError

from app.db import connections, leases
from app.db.leases import RowClaim
from app.domain.actor import ActingFor, Principal
from app.domain.connection import Connection, ConnectionMode
from app.domain.errors import Unprocessable
from app.domain.hold import STOPS_SOME
from app.domain.ids import PartnerId
from app.domain.upstream import NOT_UNDERSTOOD, ConnectionTrouble, Said, Unreachable, UpstreamFailure
from app.kernel.budgets import ConnectionGate
from app.kernel.secrets import Place, SecretError
from app.kernel.settings import Settings
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.microsoft.http import LOGIN_TIMEOUT_S
from app.microsoft.tokens import Tokens
from app.platforms.base import Abilities, Platform, Registers, TokenFor, TokenKind
from app.runtime import Runtime, TokenSlot
from app.services.connections import troubles
from app.services.connections.troubles import Noted

log = logger("access")

EARLY = timedelta(minutes=5)
"""An access token (3,599 s) is renewed this long before it expires."""
STORE_ATTEMPTS = 40
STORE_PAUSE = 0.5
"""Tries to store a rotated refresh token for 20 s: longer than a restart of PostgreSQL takes."""
TOKEN_LEASE = timedelta(seconds=2 * LOGIN_TIMEOUT_S + STORE_ATTEMPTS * STORE_PAUSE + 5)
"""Longer than both requests of a login and storing their result can take, so that no other process redeems
the same token meanwhile. The sweep ends the claim of a dead worker earlier."""
WAIT_FOR_TOKEN = 20.0
"""The most seconds to wait for another process that is redeeming."""
WAIT_SHARE = 3
"""The wait takes at most this part of a step. If a step timed out while waiting, the outcome of a batch would
be unknown although it was never sent."""


def token_lease(settings: Settings) -> timedelta:
    """TOKEN_LEASE, or less if the settings give calls less time."""
    login = min(LOGIN_TIMEOUT_S, settings.upstream_timeout_s)
    return TOKEN_LEASE - timedelta(seconds=2 * (LOGIN_TIMEOUT_S - login))


def client_secret_place(partner_id: PartnerId, connection_id: UUID) -> Place:
    former = f"connection.client_secret:{partner_id}"
    return Place("connections", "client_secret", partner_id, str(connection_id), former)


def refresh_token_place(partner_id: PartnerId, connection_id: UUID) -> Place:
    former = f"connection.refresh_token:{partner_id}"
    return Place("connections", "refresh_token", partner_id, str(connection_id), former)


@dataclass
class ConnectionAccess:
    """`app.platforms.base.Access` for one connection."""

    runtime: Runtime
    principal: Principal
    record: Connection
    fresh: bool = False
    """Fetch a new token even if a valid one is cached: `:check` must prove that it works."""
    _renewed: set[TokenFor] = field(default_factory=set)

    @property
    def partner_id(self) -> PartnerId:
        return self.principal.partner_id

    @property
    def connection_id(self) -> UUID:
        return self.record.id

    @property
    def gate(self) -> ConnectionGate:
        return self.runtime.budgets.gate(self.connection_id, self.runtime.now)

    @property
    def entra_tenant_id(self) -> UUID:
        return self.record.entra_tenant_id

    @property
    def platform(self) -> Platform:
        return self.runtime.platforms[self.record.platform]

    @property
    def abilities(self) -> Abilities:
        return self.runtime.abilities[self.record.platform]

    @property
    def registers(self) -> Registers:
        registers = self.abilities.registers
        assert registers is not None  # every platform that is driven has it
        return registers

    @property
    def _identity(self) -> tuple[UUID, str]:
        return self.entra_tenant_id, self._client_id

    @property
    def has_delegated(self) -> bool:
        return self.record.refresh_token is not None

    @property
    def unprovable(self) -> str | None:
        """Code of the trouble that a good answer does not disprove: lists need no refresh token, tags do."""
        return None if self.has_delegated else "credential_missing"

    async def token(self, wanted: TokenFor) -> str:
        if not self.record.client_secret:
            said = Said(description="the connection has no client secret; enter one")
            raise ConnectionTrouble("credential_missing", said)
        cache = self.runtime.token_cache
        slot = self._slot(wanted)
        delegated = wanted.kind is TokenKind.DELEGATED
        taken_away = delegated and not self.has_delegated
        async with cache.locks[slot]:
            known = cache.tokens.get(slot)
            proved = not self.fresh or wanted in self._renewed
            if known is not None and proved and not taken_away and known[1] - EARLY > self.runtime.now():
                return known[0]
            tokens = await (self._redeem(wanted) if delegated else self._app_token(wanted))
            cache.tokens[slot] = (tokens.access_token, self.runtime.now() + tokens.expires_in)
            self._renewed.add(wanted)
            return tokens.access_token

    def forget_token(self, wanted: TokenFor) -> None:
        self.runtime.token_cache.tokens.pop(self._slot(wanted), None)

    def _slot(self, wanted: TokenFor) -> TokenSlot:
        return TokenSlot(self.connection_id, wanted, *self._identity)

    def _open(self, sealed: bytes, place: Place) -> str:
        """Opens a credential. One that no secret key opens counts as missing: it must be entered again."""
        try:
            return self.runtime.secrets.open_text(sealed, place)
        except SecretError as error:
            log.error("credential_not_opened", connection_id=str(self.connection_id), reason=str(error))
            said = Said(description=f"the stored credential does not open: {error}; enter it again")
            raise ConnectionTrouble("credential_missing", said) from error

    @property
    def _client_id(self) -> str:
        assert self.record.client_id is not None  # a portal connection has no access
        return self.record.client_id

    def _client_secret(self) -> str:
        assert self.record.client_secret is not None  # `token` has checked
        place = client_secret_place(self.partner_id, self.connection_id)
        return self._open(self.record.client_secret, place)

    async def _app_token(self, wanted: TokenFor) -> Tokens:
        return await self.runtime.microsoft.tokens.for_app(
            tenant_id=wanted.tenant_id,
            scope=wanted.scope,
            client_id=self._client_id,
            client_secret=self._client_secret(),
        )

    async def _redeem(self, wanted: TokenFor) -> Tokens:
        owner = uuid4()
        sealed = await self._claim(owner)
        redeeming = asyncio.create_task(self._redeem_and_store(wanted, owner, sealed))
        try:
            return await asyncio.shield(redeeming)
        except asyncio.CancelledError:
            # Microsoft may have revoked the old token by now, so a cancelled call waits until the new one is
            # stored. The token service's deadlines and STORE_ATTEMPTS bound this wait.
            await asyncio.wait([redeeming])
            if not redeeming.cancelled():
                redeeming.exception()
            raise

    async def _redeem_and_store(self, wanted: TokenFor, owner: UUID, sealed: bytes | None) -> Tokens:
        if sealed is None:
            await self._release(owner)
            raise ConnectionTrouble("credential_missing")
        place = refresh_token_place(self.partner_id, self.connection_id)
        rotated: bytes | None = None
        try:
            tokens = await self.runtime.microsoft.tokens.redeem(
                tenant_id=wanted.tenant_id,
                scope=wanted.scope,
                client_id=self._client_id,
                client_secret=self._client_secret(),
                refresh_token=self._open(sealed, place),
            )
            if tokens.refresh_token is not None:
                rotated = self.runtime.secrets.seal(tokens.refresh_token, place)
        finally:
            if rotated is None:
                await self._release(owner)
            else:
                await self._store(owner, sealed, rotated)
        return tokens

    async def _claim(self, owner: UUID) -> bytes | None:
        loop = asyncio.get_running_loop()
        settings = self.runtime.settings
        ends = loop.time() + min(WAIT_FOR_TOKEN, settings.step_timeout_s / WAIT_SHARE)
        while loop.time() < ends:
            async with self.runtime.transaction(self.principal) as tx:
                row = await connections.claim_token(
                    tx,
                    self.connection_id,
                    owner=owner,
                    worker_id=self.runtime.presence.worker_id,
                    now=self.runtime.now(),
                    lease=token_lease(settings),
                )
            if row is not None:
                if (row.entra_tenant_id, row.client_id) != self._identity:
                    await self._release(owner)
                    raise Unreachable(Said(description="the connection was changed meanwhile"))
                return row.refresh_token
            await asyncio.sleep(0.1)
        raise Unreachable(Said(description="another process is redeeming the refresh token"))

    async def _release(self, owner: UUID) -> None:
        async with self.runtime.transaction(self.principal) as tx:
            await leases.give_up(tx, leases.TOKENS, RowClaim(self.connection_id, owner))

    async def _store(self, owner: UUID, redeemed: bytes, rotated: bytes) -> None:
        for attempt in range(1, STORE_ATTEMPTS + 1):
            try:
                async with self.runtime.transaction(self.principal) as tx:
                    stored = await connections.store_token(
                        tx,
                        self.connection_id,
                        owner=owner,
                        redeemed=redeemed,
                        rotated=rotated,
                        now=self.runtime.now(),
                    )
                if not stored:
                    # An operator has entered another token, or another process has stored its own.
                    log.warning("rotated_token_not_needed", connection_id=str(self.connection_id))
                return
            except (DBAPIError, OSError):
                if attempt == STORE_ATTEMPTS:
                    raise
                log.warning("rotated_token_not_stored_yet", connection_id=str(self.connection_id))
                await asyncio.sleep(STORE_PAUSE)


async def open_access(
    runtime: Runtime, principal: Principal, connection_id: UUID, *, fresh: bool = False
) -> ConnectionAccess:
    """Raises Unprocessable for a portal connection."""
    async with runtime.transaction(principal) as tx:
        return await read_access(runtime, tx, connection_id, fresh=fresh)


async def read_access(
    runtime: Runtime, tx: PartnerTx, connection_id: UUID, *, fresh: bool = False
) -> ConnectionAccess:
    """Like `open_access`, in the caller's transaction."""
    record = await connections.get(tx, connection_id)
    if record is None:
        raise LookupError("the connection no longer exists")
    if record.mode is ConnectionMode.PORTAL or runtime.abilities[record.platform].registers is None:
        # The only way to Microsoft is closed for a connection that people serve by hand.
        platform = runtime.platforms[record.platform]
        raise Unprocessable(
            "partner_role_cannot_use_api" if platform.automated else "platform_not_automated",
            f"This is a portal connection: Registrar does not call {platform.title} for it.",
        )
    return ConnectionAccess(runtime, ActingFor(tx.partner_id, tx.actor), record, fresh)


TROUBLE_PAUSE = timedelta(minutes=1)
"""How long calls of a connection in trouble pause before one call tests whether it works again."""


def is_trouble(failure: UpstreamFailure) -> bool:
    """Whether somebody has to fix the connection, not just repeat the call."""
    return isinstance(failure, ConnectionTrouble) or failure.code == NOT_UNDERSTOOD


async def note_trouble(
    runtime: Runtime,
    principal: Principal,
    connection_id: UUID,
    trouble: UpstreamFailure,
    *,
    began: datetime,
) -> datetime:
    """Records what somebody has to fix; returns when to retry what needs the whole connection.

    A call that `began` before the connection was repaired proves nothing: it is retried at once.
    """
    now = runtime.now()
    not_before = now + TROUBLE_PAUSE
    stops_all = trouble.code not in STOPS_SOME
    async with runtime.transaction(principal) as tx:
        noted = await troubles.begin(
            tx, connection_id, trouble, not_before=not_before if stops_all else None, began=began, now=now
        )
    if noted in (Noted.NEW, Noted.CHANGED):
        log.error("connection_in_trouble", connection_id=str(connection_id), code=trouble.code)
    return now if noted is Noted.OUTDATED else not_before
