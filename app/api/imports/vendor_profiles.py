"""Vendor profiles: how to read a supplier's files."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from app.api import answers
from app.api.contract.schema import body_of
from app.api.imports import rendering
from app.api.imports.models import ProfileIn, ProfileOut, ProfilePatch, VendorProfiles
from app.api.once import IdempotencyKey, answered_once
from app.api.requests import PageOfIds, ReadsOrders, RuntimeOf, WritesOrders, path_of, read
from app.services.imports import vendor_profiles

router = APIRouter(prefix="/v1/vendor-profiles", tags=["Imports"])


@router.post("", status_code=201, response_model=ProfileOut, openapi_extra=body_of(ProfileIn))
async def create_profile(
    request: Request, runtime: RuntimeOf, caller: WritesOrders, key: IdempotencyKey = None
) -> Response:
    """Stores a supplier's columns by name. Imports that name the profile are read with it."""
    given, digest = await read(request, ProfileIn)

    async with answered_once(request, runtime, caller, key, digest) as answer:
        if answer.is_due:
            async with vendor_profiles.create(runtime, caller, given.name, given.definition) as (tx, record):
                location = path_of(request, "get_profile", profile_id=str(record.id))
                await answer.give(tx, 201, location, rendering.profile(record))
    return answer.response


@router.get("", response_model=VendorProfiles)
async def list_profiles(
    runtime: RuntimeOf, caller: ReadsOrders, page: PageOfIds
) -> VendorProfiles | Response:
    """Lists names and sizes. Get one profile to see its definition."""
    found = await vendor_profiles.list_page(runtime, caller, page)
    return await answers.page(VendorProfiles, found, rendering.profile_summary)


@router.get("/{profile_id}")
async def get_profile(runtime: RuntimeOf, caller: ReadsOrders, profile_id: UUID) -> ProfileOut:
    return rendering.profile(await vendor_profiles.get(runtime, caller, profile_id))


@router.patch("/{profile_id}", openapi_extra=body_of(ProfilePatch))
async def update_profile(
    request: Request, runtime: RuntimeOf, caller: WritesOrders, profile_id: UUID
) -> ProfileOut:
    """Changes the given fields. Earlier imports keep the profile as it was."""
    given, _ = await read(request, ProfilePatch)
    values = given.model_dump(exclude_unset=True)
    return rendering.profile(await vendor_profiles.update(runtime, caller, profile_id, values))


@router.delete("/{profile_id}", status_code=204)
async def delete_profile(runtime: RuntimeOf, caller: WritesOrders, profile_id: UUID) -> None:
    await vendor_profiles.delete(runtime, caller, profile_id)
