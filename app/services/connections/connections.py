"""Connections: enrolments at Microsoft. Credentials go in, never out."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from app.db import connections, group_tags
from app.db.ids import new_row_id
from app.db.leases import TOKENS
from app.db.paging import Page, PageRequest
from app.domain.actor import Principal
from app.domain.connection import Connection, ConnectionIdentity, ConnectionMode
from app.domain.errors import Conflict, FieldError, NotFound, Unprocessable
from app.domain.quota import Quota
from app.domain.upstream import ConnectionTrouble, Said, UpstreamFailure
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.access import quotas
from app.services.access.identities import Caller
from app.services.connections import troubles
from app.services.connections.access import (
    client_secret_place,
    is_trouble,
    note_trouble,
    open_access,
    refresh_token_place,
)
from app.services.connections.terms import refuse_barred
from app.services.consents.consents import doubt_all

_CREDENTIALS = ("client_id", "client_secret", "refresh_token")


@dataclass(frozen=True, slots=True)
class NewConnection:
    name: str
    entra_tenant_id: UUID
    client_id: str | None
    """None, like the secret, only for a portal connection."""
    client_secret: str | None
    default_group_tag: str
    refresh_token: str | None = None
    region: str | None = None
    platform: str = "partner_center"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of `:check`: proved facts in words, or the failure with its code."""

    ok: bool
    proved: Sequence[str]
    code: str | None = None
    said: str | None = None


@asynccontextmanager
async def create(
    runtime: Runtime, caller: Caller, new: NewConnection
) -> AsyncIterator[tuple[PartnerTx, Connection]]:
    """Creates a connection in a transaction that commits when the block ends.

    Raises Unprocessable for a platform that the partner cannot use or credentials that nothing would use;
    Conflict for a taken name; `quota_exceeded`."""
    mode = _mode_of(runtime, caller, new)
    now, connection_id = runtime.now(), new_row_id()
    values = {
        "id": connection_id,
        "name": new.name,
        "platform": new.platform,
        "mode": mode,
        "entra_tenant_id": new.entra_tenant_id,
        "client_id": new.client_id,
        "region": new.region,
        "default_group_tag": new.default_group_tag,
        **_sealed(runtime, caller, connection_id, new.client_secret, new.refresh_token),
        "customers_due_at": now,
        "created_at": now,
        "updated_at": now,
    }
    try:
        async with runtime.transaction(caller) as tx:
            await quotas.require(tx, Quota.CONNECTIONS)
            await connections.add(tx, values)
            record = await connections.get(tx, connection_id)
            assert record is not None
            yield tx, record
    except IntegrityError as error:
        raise await _taken(runtime, caller, new.name) from error


def _mode_of(runtime: Runtime, caller: Caller, new: NewConnection) -> ConnectionMode:
    """Decides permanently, by platform and role, whether Registrar calls the API or a person uploads
    files. An API connection needs credentials; a portal connection must have none."""
    platform = runtime.platforms.get(new.platform)
    if platform is None:
        raise Unprocessable("unknown_platform", f"There is no platform {new.platform!r}.")
    if platform.is_driven_for(caller.partner_role):
        missing = [name for name in ("client_id", "client_secret") if getattr(new, name) is None]
        if missing:
            errors = [FieldError(f"/{name}", "validation_failed", "It is missing.") for name in missing]
            raise Unprocessable("validation_failed", f"{platform.title} needs credentials.", errors)
        return ConnectionMode.API
    if platform.file is not None:
        _refuse_credentials([name for name in _CREDENTIALS if getattr(new, name) is not None])
        return ConnectionMode.PORTAL
    refuse_barred(platform, caller.partner_role, ConnectionMode.API)
    raise Unprocessable("platform_not_automated", platform.note)


def _refuse_credentials(given: Sequence[str]) -> None:
    if given:
        words = "Leave it out: a portal connection has no credentials, as a person uploads its orders' files."
        errors = [FieldError(f"/{name}", "validation_failed", words) for name in given]
        raise Unprocessable("validation_failed", "A portal connection has no credentials.", errors)


async def _taken(runtime: Runtime, principal: Principal, name: str) -> Conflict:
    async with runtime.transaction(principal) as tx:
        existing = await connections.get_by_name(tx, name)
    links = {"connection_id": str(existing.id)} if existing is not None else {}
    return Conflict("already_exists", f"There is a connection called {name!r} already.", links=links)


def _sealed(
    runtime: Runtime,
    principal: Principal,
    connection_id: UUID,
    client_secret: str | None,
    refresh_token: str | None,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if client_secret is not None:
        values["client_secret"] = runtime.secrets.seal(
            client_secret, client_secret_place(principal.partner_id, connection_id)
        )
    if refresh_token is not None:
        values["refresh_token"] = runtime.secrets.seal(
            refresh_token, refresh_token_place(principal.partner_id, connection_id)
        )
        values["refresh_token_at"] = runtime.now()
    return values


async def get(runtime: Runtime, principal: Principal, connection_id: UUID) -> Connection:
    async with runtime.reading(principal) as tx:
        record = await connections.get(tx, connection_id)
    if record is None:
        raise NotFound("unknown_connection", f"There is no connection {connection_id}.")
    return record


async def list_page(runtime: Runtime, principal: Principal, page: PageRequest) -> Page[Connection]:
    async with runtime.reading(principal) as tx:
        return await connections.list_page(tx, page)


async def update(
    runtime: Runtime,
    principal: Principal,
    connection_id: UUID,
    *,
    plain: dict[str, Any],
    entra_tenant_id: UUID | None = None,
    client_id: str | None = None,
    client_secret: str | None,
    refresh_token: str | None,
    emptied: Collection[str] = (),
) -> Connection:
    """Changes names, identity and credentials. New credentials end a trouble: the next call tries them.

    A change of tenant or app needs new credentials in the same call; after a change of tenant, consents and
    group tags are looked up again. Raises Unprocessable for missing credentials, and for any credentials of a
    portal connection.
    """
    credentials = {"client_id": client_id, "client_secret": client_secret, "refresh_token": refresh_token}
    given = [name for name, value in credentials.items() if value is not None or name in emptied]
    portal = (await get(runtime, principal, connection_id)).mode is ConnectionMode.PORTAL
    if given and portal:
        _refuse_credentials(given)
    sealed = _sealed(runtime, principal, connection_id, client_secret, refresh_token)
    identity = {"entra_tenant_id": entra_tenant_id, "client_id": client_id}
    named = {name: value for name, value in identity.items() if value is not None}
    values = {**plain, **named, **sealed, **_emptied(emptied), "updated_at": runtime.now()}
    if "refresh_token" in values:
        # Ends the claim, so that a call that is redeeming the old token does not overwrite the new one.
        values |= TOKENS.ended
    try:
        async with runtime.transaction(principal) as tx:
            before = await connections.hold_identity(tx, connection_id, for_change=True)
            if before is None:
                raise NotFound("unknown_connection", f"There is no connection {connection_id}.")
            changed = {name for name, value in named.items() if value != getattr(before, name)}
            if changed and not portal:
                _refuse_without_secrets(changed, before, {*sealed, *emptied})
                values |= {"checked_at": None}
            new_tenant = "entra_tenant_id" in changed and not portal
            if new_tenant:
                values |= {"customers_read_at": None}
            await connections.update(tx, connection_id, values)
            if new_tenant:
                await group_tags.forget_of_connection(tx, connection_id, runtime.now())
                await doubt_all(runtime, tx, connection_id)
            if sealed:
                await troubles.end(tx, connection_id, runtime.now())
                await troubles.pull_all_forward(runtime, tx, connection_id)
    except IntegrityError as error:
        raise Conflict("already_exists", "There is already a connection with this name.") from error
    if sealed or emptied:
        runtime.token_cache.forget(connection_id)
    if "client_secret" in emptied:
        missing = ConnectionTrouble("credential_missing", Said(description="the client secret was removed"))
        await note_trouble(runtime, principal, connection_id, missing, began=runtime.now())
    return await get(runtime, principal, connection_id)


def _emptied(names: Collection[str]) -> dict[str, Any]:
    """Columns without their credentials. An empty value means no client secret: the previous release does not
    know a connection with an app and NULL as its secret."""
    values: dict[str, Any] = {}
    if "client_secret" in names:
        values["client_secret"] = b""
    if "refresh_token" in names:
        values |= {"refresh_token": None, "refresh_token_at": None}
    return values


def _refuse_without_secrets(
    changed: Collection[str], before: ConnectionIdentity, sealed: Collection[str]
) -> None:
    """Refuses a change of app or tenant without new secrets: the stored ones would go to the wrong app or
    tenant."""
    needed = ["client_secret", *(["refresh_token"] if before.has_refresh_token else [])]
    what = " and ".join(sorted(changed))
    errors = [
        FieldError(f"/{name}", "validation_failed", f"It has to be sent again when {what} changes.")
        for name in needed
        if name not in sealed
    ]
    if errors:
        detail = f"Send {' and '.join(needed)} in the same call: the stored ones belong to the old {what}."
        raise Unprocessable("validation_failed", detail, errors)


async def check(runtime: Runtime, principal: Principal, connection_id: UUID) -> Check:
    """Asks Microsoft with fresh tokens, even while a breaker is open. Success ends a trouble and every pause,
    so that waiting work continues at once; a failure is recorded."""
    began = runtime.now()
    await get(runtime, principal, connection_id)
    access = await open_access(runtime, principal, connection_id, fresh=True)
    checks = access.abilities.checks
    if checks is None:
        raise Unprocessable("platform_cannot_tell", f"{access.platform.title} cannot check a connection.")
    try:
        proved = await checks.check(access)
    except UpstreamFailure as failure:
        if is_trouble(failure):
            await note_trouble(runtime, principal, connection_id, failure, began=began)
        return Check(ok=False, proved=(), code=failure.code, said=str(failure.said) or None)
    unprovable = access.unprovable
    async with runtime.transaction(principal) as tx:
        now = runtime.now()
        await troubles.end(tx, connection_id, now, unless_code=unprovable)
        await connections.update(tx, connection_id, {"checked_at": now})
        await troubles.pull_all_forward(runtime, tx, connection_id, but_code=unprovable)
    return Check(ok=True, proved=proved)
