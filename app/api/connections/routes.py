"""Connections: the partner's enrolments at Microsoft."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from app.api import answers
from app.api.connections import rendering
from app.api.connections.models import CheckOut, ConnectionIn, ConnectionOut, ConnectionPatch, Connections
from app.api.contract import fields
from app.api.contract.schema import body_of
from app.api.once import IdempotencyKey, answered_once
from app.api.requests import PageOfIds, ReadsConnections, RuntimeOf, WritesConnections, path_of, read
from app.services.connections import connections
from app.services.connections.connections import NewConnection

router = APIRouter(prefix="/v1/connections", tags=["Connections"])


@router.post("", status_code=201, response_model=ConnectionOut, openapi_extra=body_of(ConnectionIn))
async def create_connection(
    request: Request, runtime: RuntimeOf, caller: WritesConnections, key: IdempotencyKey = None
) -> Response:
    """Stores an enrolment and encrypts its credentials; then `:check` it. One whose orders are uploaded at a
    portal by hand has no credentials."""
    given, digest = await read(request, ConnectionIn)
    new = NewConnection(
        name=given.name,
        platform=given.platform,
        entra_tenant_id=given.entra_tenant_id,
        client_id=given.client_id,
        client_secret=given.client_secret,
        refresh_token=given.refresh_token,
        region=given.region,
        default_group_tag=given.default_group_tag,
    )

    async with answered_once(request, runtime, caller, key, digest) as answer:
        if answer.is_due:
            async with connections.create(runtime, caller, new) as (tx, record):
                location = path_of(request, "get_connection", connection_id=str(record.id))
                await answer.give(tx, 201, location, rendering.connection(record))
    return answer.response


@router.get("", response_model=Connections)
async def list_connections(
    runtime: RuntimeOf, caller: ReadsConnections, page: PageOfIds
) -> Connections | Response:
    found = await connections.list_page(runtime, caller, page)
    return await answers.page(Connections, found, rendering.connection)


@router.get("/{connection_id}")
async def get_connection(runtime: RuntimeOf, caller: ReadsConnections, connection_id: UUID) -> ConnectionOut:
    """`trouble` says what has to be fixed. Credentials are never shown."""
    return rendering.connection(await connections.get(runtime, caller, connection_id))


@router.patch("/{connection_id}", openapi_extra=body_of(ConnectionPatch))
async def update_connection(
    request: Request, runtime: RuntimeOf, caller: WritesConnections, connection_id: UUID
) -> ConnectionOut:
    """Changes the given fields. New credentials end a trouble. Another `client_id` or `entra_tenant_id` needs
    its credentials in the same call; tokens of the old one are no longer used. A credential that is null is
    removed."""
    given, _ = await read(request, ConnectionPatch)
    plain: dict[str, Any] = {
        name: getattr(given, name)
        for name in ("name", "region", "default_group_tag")
        if name in given.model_fields_set
    }
    record = await connections.update(
        runtime,
        caller,
        connection_id,
        plain=plain,
        entra_tenant_id=given.entra_tenant_id,
        client_id=given.client_id,
        client_secret=given.client_secret,
        refresh_token=given.refresh_token,
        emptied=[
            name
            for name in ("client_secret", "refresh_token")
            if name in given.model_fields_set and getattr(given, name) is None
        ],
    )
    return rendering.connection(record)


@router.post("/{connection_id}:check")
async def check_connection(runtime: RuntimeOf, caller: WritesConnections, connection_id: UUID) -> CheckOut:
    """Tests the connection at Microsoft with fresh tokens."""
    found = await connections.check(runtime, caller, connection_id)
    return CheckOut(
        ok=found.ok,
        proved=list(found.proved),
        code=found.code,
        said=found.said,
        remedy=fields.remedy(found.code),
    )
