"""Lookups that need no partner's data: platforms, error codes, health and the caller's own identity."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.api.requests import AnyCaller, RuntimeOf
from app.api.service.models import CodeOut, Codes, Health, Me, OwnKey, PlatformOut, Platforms, Readiness
from app.domain.catalogue import CATALOGUE, Code
from app.domain.errors import NotFound
from app.domain.former_codes import present_name
from app.domain.scope import Scope
from app.services.operations import health

router = APIRouter()
open_router = APIRouter()
"""Routes without authentication."""


@router.get("/v1/platforms", tags=["Catalogues"])
async def list_platforms(runtime: RuntimeOf, caller: AnyCaller) -> Platforms:
    """Where devices can be registered, with each platform's limits."""
    return Platforms(
        items=[
            PlatformOut(
                name=platform.name,
                title=platform.title,
                max_devices=platform.capabilities.max_devices,
                identities=sorted(platform.capabilities.identities),
                profiles=platform.capabilities.profiles,
                channel=platform.capabilities.channel,
                group_tags=platform.capabilities.group_tags,
                automated=platform.automated,
                portal=platform.file is not None,
                retired=platform.capabilities.retired,
                note=platform.note,
            )
            for platform in runtime.platforms.values()
        ]
    )


@open_router.get("/v1/error-codes", tags=["Catalogues"])
async def list_error_codes() -> Codes:
    """Every error code, with what to do about it. Codes never change their meaning."""
    return Codes(items=[_code(entry) for entry in CATALOGUE.values()])


@open_router.get("/v1/error-codes/{code}", tags=["Catalogues"])
async def get_error_code(code: Annotated[str, Path(max_length=100)]) -> CodeOut:
    """One code, with what to do about it. The `type` of every problem leads here."""
    entry = CATALOGUE.get(present_name(code))
    if entry is None:
        raise NotFound("not_found", "There is no such error code.")
    return _code(entry)


def _code(entry: Code) -> CodeOut:
    return CodeOut(
        code=entry.code,
        category=entry.category,
        severity=entry.severity,
        advice=entry.advice,
        title=entry.title,
        remedy=entry.remedy,
    )


@router.get("/v1/me", tags=["Catalogues"])
async def show_me(caller: AnyCaller) -> Me:
    """The key of this call: its partner and what it may do."""
    return Me(
        partner_id=caller.partner_id,
        partner_name=caller.partner_name,
        partner_role=caller.partner_role.value,
        scopes=[scope for scope in Scope if scope in caller.scopes],
        key=OwnKey(prefix=caller.key_prefix, name=caller.key_name, expires_at=caller.key_expires_at),
    )


@open_router.get("/healthz", tags=["Service"])
async def show_health() -> Health:
    """Whether the process answers. Does not check what it depends on."""
    return Health()


@open_router.get(
    "/readyz",
    tags=["Service"],
    responses={503: {"model": Readiness, "description": "Something is missing."}},
)
async def show_readiness(
    runtime: RuntimeOf,
    request: Request,
    response: Response,
    everything: Annotated[
        str | None,
        Query(alias="all", description="Given (`?all`): Redis and workers count as well."),
    ] = None,
) -> Readiness:
    """Whether this process can take orders: database, schema, and not about to stop.

    For load balancers. Orders are taken without Redis and without a worker, so these count only with `?all`.
    """
    with_all = everything is not None and everything.lower() not in {"false", "0", "no"}
    found = await (health.look(runtime) if with_all else health.look_at_database(runtime))
    stopping = bool(getattr(request.app.state, "stopping", False))
    ready = (found.complete if with_all else found.takes_orders) and not stopping
    response.status_code = 200 if ready else 503
    return Readiness(
        ready=ready,
        stopping=stopping,
        database=found.database,
        schema=found.schema,
        redis=found.redis if with_all else None,
        worker=found.worker if with_all else None,
    )
