"""Partners, their API keys, and authentication of callers.

A key's prefix finds the row, and the whole key is compared by digest (`app.domain.api_key` has its form). Its
secret has 256 random bits, so a plain SHA-256 is no weaker than a slow password hash would be.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from app.db import partners
from app.db.ids import new_row_id
from app.domain import api_key
from app.domain.actor import Actor, ActorKind, Principal
from app.domain.characters import unsafe, unstorable
from app.domain.errors import Conflict, Forbidden, NotFound, Unauthenticated, Unprocessable
from app.domain.ids import PartnerId
from app.domain.partner import ApiKey, KnownKey, Partner
from app.domain.quota import Quota
from app.domain.scope import Scope
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.access import quotas

REFUSED_KEY = "Send `Authorization: Bearer <API key>` with a key that is neither revoked nor expired."


class PartnerRole(StrEnum):
    DIRECT_BILL = "direct_bill"
    INDIRECT_PROVIDER = "indirect_provider"
    INDIRECT_RESELLER = "indirect_reseller"
    DISTRIBUTOR = "distributor"
    OEM = "oem"


class Preset(StrEnum):
    """Purposes of a key. They become scopes when the key is made: later scopes are not added to it."""

    OPERATOR = "operator"
    INTEGRATION = "integration"
    READ_ONLY = "read-only"


PRESETS: Final[Mapping[Preset, tuple[Scope, ...]]] = {
    Preset.OPERATOR: tuple(Scope),
    # An order system orders, reads outcomes and receives events. Operators enter credentials of connections.
    Preset.INTEGRATION: tuple(scope for scope in Scope if scope is not Scope.CONNECTIONS_WRITE),
    Preset.READ_ONLY: tuple(
        scope for scope in Scope if scope.value.endswith(":read") and scope is not Scope.HASHES_READ
    ),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller. Only `authenticate` makes one."""

    partner_id: PartnerId
    partner_name: str
    partner_role: PartnerRole
    key_id: UUID
    key_prefix: str
    scopes: frozenset[str]
    key_name: str = ""
    key_expires_at: datetime | None = None

    @property
    def actor(self) -> Actor:
        return Actor(ActorKind.KEY, self.key_id)

    def require(self, scope: Scope) -> None:
        if scope not in self.scopes:
            raise Forbidden("scope_missing", f"This API key lacks the scope {scope.value}.")


@dataclass(frozen=True, slots=True)
class NewKey:
    prefix: str
    secret: str
    """The whole key. Shown once, never stored."""


NOTED_EVERY = timedelta(minutes=1)
"""Uses are recorded at most this often, so that reading does not turn into writing."""


class KeyFault(StrEnum):
    """Reasons why an API key was refused: for the operator, never for the caller."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    MISMATCHED = "mismatched"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class RefusedKey:
    reason: KeyFault
    prefix: str | None = None
    """The public part of the key; None if it has none."""
    partner_id: PartnerId | None = None
    """The partner whose key has this prefix."""


async def authenticate(runtime: Runtime, key: str) -> Caller:
    """Returns the caller behind a key. Raises Unauthenticated, with the same words for every fault."""
    found = await identify(runtime, key)
    if isinstance(found, RefusedKey):
        raise Unauthenticated("unauthenticated", REFUSED_KEY)
    return found


async def identify(runtime: Runtime, key: str) -> Caller | RefusedKey:
    """Returns the caller behind a key, or the reason for refusing it."""
    prefix = api_key.prefix_of(key)
    if prefix is None:
        return RefusedKey(KeyFault.MALFORMED)
    now = runtime.now()
    async with runtime.lookup() as session:
        row = await partners.find_key(session, prefix)
    if row is None:
        return RefusedKey(KeyFault.UNKNOWN, prefix)
    fault = _fault_of(row, key, now)
    if fault is not None:
        return RefusedKey(fault, prefix, row.partner_id)
    if row.last_used_at is None or now - row.last_used_at > NOTED_EVERY:
        async with runtime.system_transaction() as tx:
            await partners.note_key_used(tx, row.id, now)
    return Caller(
        row.partner_id,
        row.partner_name,
        PartnerRole(row.partner_role),
        row.id,
        row.prefix,
        frozenset(row.scopes),
        row.name,
        row.expires_at,
    )


def _fault_of(row: KnownKey, key: str, now: datetime) -> KeyFault | None:
    if not hmac.compare_digest(bytes(row.secret_digest), _digest(key)):
        return KeyFault.MISMATCHED
    if row.revoked_at is not None:
        return KeyFault.REVOKED
    if row.expires_at is not None and row.expires_at <= now:
        return KeyFault.EXPIRED
    return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def mint() -> NewKey:
    prefix = secrets.token_hex(4)
    secret = base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()
    return NewKey(prefix, api_key.compose(prefix, secret))


async def create_partner(runtime: Runtime, name: str, role: PartnerRole) -> PartnerId:
    """Raises Conflict for a name that is taken, Unprocessable for an empty or misleading one."""
    partner_id = PartnerId(new_row_id())
    if not name.strip():
        raise Unprocessable("invalid_parameter", "A partner needs a name.")
    require_safe(name)
    try:
        async with runtime.system_transaction() as tx:
            await partners.add(tx, id=partner_id, name=name.strip(), role=role.value, now=runtime.now())
    except IntegrityError as error:
        raise Conflict("already_exists", f"There is a partner called {name!r} already.") from error
    return partner_id


def require_safe(name: str) -> None:
    """Raises Unprocessable for a name with control characters, which mislead its readers."""
    if (said := unsafe(name.strip())) is not None:
        raise Unprocessable("value_has_control_characters", f"The name cannot be used. {said}")


async def find_partner(runtime: Runtime, name_or_id: str) -> Partner:
    """Finds a partner for the operator's command line. Raises NotFound."""
    if unstorable(name_or_id) is not None:
        raise NotFound("not_found", f"There is no partner {name_or_id!r}.")
    async with runtime.system_transaction() as tx:
        row = await partners.get_by_name(tx, name_or_id)
        if row is None:
            try:
                row = await partners.get(tx, PartnerId(UUID(name_or_id)))
            except ValueError:
                row = None
    if row is None:
        raise NotFound("not_found", f"There is no partner {name_or_id!r}.")
    return row


async def list_partners(runtime: Runtime) -> list[Partner]:
    async with runtime.system_transaction() as tx:
        return await partners.list_all(tx)


async def create_key(
    runtime: Runtime,
    principal: Principal,
    *,
    name: str,
    scopes: Sequence[Scope] = PRESETS[Preset.OPERATOR],
    expires_at: datetime | None = None,
) -> NewKey:
    """Creates a key for the command line, which asks for scopes and expiry. Raises `quota_exceeded`."""
    if not name.strip():
        raise Unprocessable("invalid_parameter", "A key needs a name that says what it is for.")
    require_safe(name)
    key = mint()
    async with runtime.transaction(principal) as tx:
        await store_key(tx, key, name, [scope.value for scope in scopes], expires_at, runtime.now())
    return key


async def store_key(
    tx: PartnerTx,
    key: NewKey,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
    now: datetime,
) -> UUID:
    """Stores the key and returns the id of its row. Raises `quota_exceeded`."""
    await quotas.require(tx, Quota.API_KEYS)
    key_id = new_row_id()
    await partners.add_key(
        tx,
        id=key_id,
        name=name,
        prefix=key.prefix,
        secret_digest=_digest(key.secret),
        scopes=list(scopes),
        expires_at=expires_at,
        now=now,
    )
    return key_id


async def list_keys(runtime: Runtime, principal: Principal) -> list[ApiKey]:
    async with runtime.reading(principal) as tx:
        return await partners.list_keys(tx)


async def revoke_key(runtime: Runtime, principal: Principal, prefix: str) -> None:
    """Revokes a key from the next call on. Raises NotFound."""
    async with runtime.transaction(principal) as tx:
        if not await partners.revoke_key(tx, prefix, runtime.now()):
            raise NotFound("not_found", f"There is no valid API key {prefix!r} of this partner.")
