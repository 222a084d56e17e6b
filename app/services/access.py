"""A connection's way to Microsoft: credentials opened when needed, tokens shared within a process.

A refresh token is redeemed by one process at a time, because Microsoft may revoke it at that
moment, and the rotated one is stored before the access token that came with it is used: a crash
afterwards must not cost the partner its connection.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy.exc import DBAPIError

from app.db import connections
from app.db.sql import Record
from app.domain.ids import PartnerId
from app.domain.upstream import ConnectionTrouble, Said, Unreachable
from app.microsoft.tokens import Tokens
from app.platforms.base import TokenKind
from app.runtime import Runtime
from app.telemetry import logger

log = logger("access")

TOKEN_LEASE = timedelta(seconds=60)
"""Longer than a token call and storing its result may take together."""
WAIT_FOR_TOKEN = 20.0
"""Seconds to wait for another process that is redeeming."""
EARLY = timedelta(minutes=5)
"""An access token (3,599 s) is renewed this long before it ends."""
STORE_ATTEMPTS = 40
STORE_PAUSE = 0.5
"""20 s of trying to store a rotated refresh token: a restart of PostgreSQL is shorter."""


def client_secret_context(partner_id: PartnerId) -> str:
    return f"connection.client_secret:{partner_id}"


def refresh_token_context(partner_id: PartnerId) -> str:
    return f"connection.refresh_token:{partner_id}"


@dataclass
class ConnectionAccess:
    """`app.platforms.base.Access` for one connection's record."""

    runtime: Runtime
    partner_id: PartnerId
    record: Record
    fresh: bool = False
    """Ask Microsoft for new tokens even if good ones are at hand: `:check` must prove them."""

    @property
    def connection_id(self) -> UUID:
        return self.record["id"]  # type: ignore[no-any-return]

    @property
    def entra_tenant_id(self) -> UUID:
        return self.record["entra_tenant_id"]  # type: ignore[no-any-return]

    @property
    def partner_role(self) -> str:
        return str(self.record["partner_role"])

    @property
    def has_delegated(self) -> bool:
        return self.record["refresh_token"] is not None

    async def token(self, kind: TokenKind) -> str:
        cache = self.runtime.token_cache
        slot = (self.connection_id, kind)
        async with cache.locks[slot]:
            known = cache.tokens.get(slot)
            if known is not None and not self.fresh and known[1] - EARLY > self.runtime.now():
                return known[0]
            tokens = await (self._app_token() if kind is TokenKind.APP else self._redeem())
            cache.tokens[slot] = (tokens.access_token, self.runtime.now() + tokens.expires_in)
            return tokens.access_token

    def forget_token(self, kind: TokenKind) -> None:
        self.runtime.token_cache.tokens.pop((self.connection_id, kind), None)

    def _client_secret(self) -> str:
        return self.runtime.secrets.open_text(
            self.record["client_secret"], context=client_secret_context(self.partner_id)
        )

    async def _app_token(self) -> Tokens:
        return await self.runtime.microsoft.tokens.for_app(
            tenant_id=self.entra_tenant_id,
            client_id=self.record["client_id"],
            client_secret=self._client_secret(),
        )

    async def _redeem(self) -> Tokens:
        owner = uuid4()
        sealed = await self._claim(owner)
        if sealed is None:
            await self._store(owner, None)
            raise ConnectionTrouble("credential_missing")
        context = refresh_token_context(self.partner_id)
        rotated: bytes | None = None
        try:
            tokens = await self.runtime.microsoft.tokens.redeem(
                tenant_id=self.entra_tenant_id,
                client_id=self.record["client_id"],
                client_secret=self._client_secret(),
                refresh_token=self.runtime.secrets.open_text(sealed, context=context),
            )
            if tokens.refresh_token is not None:
                rotated = self.runtime.secrets.seal(tokens.refresh_token, context=context)
        finally:
            await asyncio.shield(self._store(owner, rotated))
        return tokens

    async def _claim(self, owner: UUID) -> bytes | None:
        async with asyncio.timeout(WAIT_FOR_TOKEN) as limit:
            while not limit.expired():
                async with self.runtime.transaction(self.partner_id) as tx:
                    row = await connections.claim_token(
                        tx.session,
                        self.partner_id,
                        self.connection_id,
                        owner=owner,
                        now=self.runtime.now(),
                        lease=TOKEN_LEASE,
                    )
                if row is not None:
                    return row["refresh_token"]  # type: ignore[no-any-return]
                await asyncio.sleep(0.1)
        raise Unreachable(Said(description="another process is redeeming the refresh token"))

    async def _store(self, owner: UUID, rotated: bytes | None) -> None:
        for attempt in range(1, STORE_ATTEMPTS + 1):
            try:
                async with self.runtime.transaction(self.partner_id) as tx:
                    await connections.release_token(
                        tx.session,
                        self.partner_id,
                        self.connection_id,
                        owner=owner,
                        rotated=rotated,
                        now=self.runtime.now(),
                    )
                return
            except (DBAPIError, OSError):
                if rotated is None or attempt == STORE_ATTEMPTS:
                    raise
                log.warning("rotated_token_not_stored_yet", connection_id=str(self.connection_id))
                await asyncio.sleep(STORE_PAUSE)


async def open_access(
    runtime: Runtime, partner_id: PartnerId, connection_id: UUID, *, fresh: bool = False
) -> ConnectionAccess:
    async with runtime.transaction(partner_id) as tx:
        record = await connections.get(tx.session, partner_id, connection_id)
    if record is None:
        raise LookupError("the connection has gone")
    return ConnectionAccess(runtime, partner_id, record, fresh)


TROUBLE_PAUSE = timedelta(minutes=1)
"""How long a connection in trouble is left alone before one call tries whether it is mended."""


async def note_trouble(
    runtime: Runtime, partner_id: PartnerId, connection_id: UUID, trouble: ConnectionTrouble
) -> datetime:
    """Writes down what a person has to mend; returns when to try again."""
    now = runtime.now()
    not_before = now + TROUBLE_PAUSE
    async with runtime.transaction(partner_id) as tx:
        is_news = await connections.note_trouble(
            tx.session,
            partner_id,
            connection_id,
            code=trouble.code,
            said=str(trouble.said),
            not_before=not_before,
            now=now,
        )
    if is_news:
        log.error("connection_in_trouble", connection_id=str(connection_id), code=trouble.code)
    return not_before
