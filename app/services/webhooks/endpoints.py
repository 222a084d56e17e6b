"""Webhook endpoints: created, changed and deleted."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.db import delivery_claims, events, webhook_secrets
from app.db.ids import new_row_id
from app.db.paging import Page, PageRequest
from app.domain.actor import Principal
from app.domain.address import UrlRefused
from app.domain.endpoint_health import EndpointState
from app.domain.errors import FieldError, Unprocessable
from app.domain.event import EventType
from app.domain.quota import Quota
from app.domain.subscription import stored_types
from app.domain.webhook import Endpoint
from app.kernel.telemetry import logger
from app.kernel.transactions import PartnerTx
from app.kernel.wakeups import WakeKind
from app.runtime import Runtime
from app.services.access import networks, quotas
from app.services.access.identities import Caller
from app.services.webhooks import endpoint_secrets, subscriptions
from app.services.webhooks.endpoint_secrets import lock, no_endpoint

log = logger("webhooks")


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    url: str
    event_types: Sequence[EventType]
    description: str | None = None


@asynccontextmanager
async def create_endpoint(
    runtime: Runtime, caller: Caller, new: NewEndpoint
) -> AsyncIterator[tuple[PartnerTx, Endpoint, str]]:
    """Creates an endpoint in a transaction that commits when the block ends.

    Yields the endpoint and its signing secret, which is shown only now. Raises Forbidden if the key may not
    read the events that the endpoint subscribes to.
    """
    subscriptions.require_types(caller, new.event_types)
    await _check_url(runtime, caller, new.url)
    now, endpoint_id = runtime.now(), new_row_id()
    secret, sealed = endpoint_secrets.new(runtime, caller, endpoint_id)
    async with runtime.transaction(caller) as tx:
        await quotas.require(tx, Quota.WEBHOOK_ENDPOINTS)
        await events.add_endpoint(
            tx,
            {
                "id": endpoint_id,
                "url": new.url,
                "description": new.description,
                "event_types": stored_types(new.event_types),
                "secret": sealed,
                "state": EndpointState.ENABLED.value,
                "created_at": now,
                "updated_at": now,
            },
        )
        record = await events.get_endpoint(tx, endpoint_id)
        assert record is not None
        yield tx, record, secret


async def _check_url(runtime: Runtime, principal: Principal, url: str) -> None:
    """Checks the URL's addresses early, to report faults at once. Each connection checks them again."""
    try:
        await runtime.outbound.check_host(url, await networks.look_at(runtime, principal))
    except UrlRefused as refused:
        raise Unprocessable(
            "url_refused", str(refused), [FieldError("/url", "url_refused", str(refused))]
        ) from refused


async def get_endpoint(runtime: Runtime, principal: Principal, endpoint_id: UUID) -> Endpoint:
    record = await find_endpoint(runtime, principal, endpoint_id)
    if record.is_deleted:
        raise no_endpoint(endpoint_id)
    return record


async def find_endpoint(runtime: Runtime, principal: Principal, endpoint_id: UUID) -> Endpoint:
    """Returns an endpoint, also a deleted one, for its deliveries."""
    async with runtime.reading(principal) as tx:
        record = await events.get_endpoint(tx, endpoint_id)
    if record is None:
        raise no_endpoint(endpoint_id)
    return record


async def list_endpoints(runtime: Runtime, principal: Principal, page: PageRequest) -> Page[Endpoint]:
    async with runtime.reading(principal) as tx:
        return await events.list_endpoints(tx, page)


async def update_endpoint(
    runtime: Runtime, caller: Caller, endpoint_id: UUID, values: dict[str, Any]
) -> Endpoint:
    """Changes URL, description, event types, or enabled/disabled.

    Raises Forbidden if the key may not read the events that the endpoint would receive, by its present types
    or by the new ones.
    """
    if "event_types" in values:
        subscriptions.require_types(caller, [EventType(type) for type in values["event_types"]])
    if "url" in values:
        await _check_url(runtime, caller, values["url"])
    now = runtime.now()
    if values.get("state") == EndpointState.ENABLED.value:
        values = {**values, "consecutive_failures": 0}
    if "event_types" in values:
        values = {**values, "event_types": stored_types(values["event_types"])}
    async with runtime.transaction(caller) as tx:
        endpoint = await lock(tx, endpoint_id)
        if "event_types" not in values and ("url" in values or values.get("state") == EndpointState.ENABLED):
            subscriptions.require_stored(caller, endpoint.event_types)
        await events.update_endpoint(tx, endpoint_id, {**values, "updated_at": now})
        if values.get("state") == EndpointState.ENABLED.value:
            await delivery_claims.end_pause(tx, endpoint_id)
            tx.wake(WakeKind.DELIVERIES)
        if values.get("state") == EndpointState.DISABLED.value:
            await events.exhaust_deliveries(tx, endpoint_id, now)
    return await get_endpoint(runtime, caller, endpoint_id)


async def delete_endpoint(runtime: Runtime, principal: Principal, endpoint_id: UUID) -> None:
    """Deletes an endpoint and ends its waiting deliveries. Its deliveries stay readable as long as others."""
    now = runtime.now()
    async with runtime.transaction(principal) as tx:
        await lock(tx, endpoint_id)
        await events.delete_endpoint(tx, endpoint_id, now)
        await webhook_secrets.forget(tx, endpoint_id)
        await events.exhaust_deliveries(tx, endpoint_id, now)
