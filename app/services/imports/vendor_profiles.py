"""Vendor profiles: checked, and stored as the partner wrote them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from app.db import vendor_profiles
from app.db.ids import new_row_id
from app.db.paging import Page, PageRequest
from app.domain.actor import Principal
from app.domain.errors import Conflict, FieldError, NotFound, Unprocessable
from app.domain.quota import Quota
from app.domain.vendor_profile import ProfileSummary, VendorProfile
from app.intake.profiles import Profile, ProfileError
from app.kernel.transactions import PartnerTx
from app.runtime import Runtime
from app.services.access import quotas


def _checked(definition: dict[str, Any]) -> dict[str, Any]:
    """Raises Unprocessable with the place and the fault."""
    try:
        return Profile.accept(definition).as_json()
    except ProfileError as error:
        found = FieldError("/definition" + error.pointer, error.code, error.words)
        raise Unprocessable("validation_failed", error.words, [found]) from error


def _taken(name: str) -> Conflict:
    return Conflict("already_exists", f"There is a vendor profile {name!r} already.")


@asynccontextmanager
async def create(
    runtime: Runtime, principal: Principal, name: str, definition: dict[str, Any]
) -> AsyncIterator[tuple[PartnerTx, VendorProfile]]:
    """Creates a vendor profile in a transaction that commits when the block ends.

    Raises Unprocessable, also `quota_exceeded`, and Conflict for a name that is taken."""
    checked, id = _checked(definition), new_row_id()
    try:
        async with runtime.transaction(principal) as tx:
            await quotas.require(tx, Quota.VENDOR_PROFILES)
            await vendor_profiles.add(tx, id=id, name=name, definition=checked, now=runtime.now())
            yield tx, await _get(tx, id)
    except IntegrityError as error:
        raise _taken(name) from error


async def _get(tx: PartnerTx, profile_id: UUID) -> VendorProfile:
    record = await vendor_profiles.get(tx, profile_id)
    if record is None:
        raise NotFound("not_found", f"There is no vendor profile {profile_id}.")
    return record


async def get(runtime: Runtime, principal: Principal, profile_id: UUID) -> VendorProfile:
    async with runtime.reading(principal) as tx:
        return await _get(tx, profile_id)


async def list_page(runtime: Runtime, principal: Principal, page: PageRequest) -> Page[ProfileSummary]:
    """Returns the profiles without their definitions."""
    async with runtime.reading(principal) as tx:
        return await vendor_profiles.list_page(tx, page)


async def update(
    runtime: Runtime, principal: Principal, profile_id: UUID, values: dict[str, Any]
) -> VendorProfile:
    """Changes a profile. Imports uploaded before keep the profile as it was."""
    if "definition" in values:
        values = {**values, "definition": _checked(values["definition"])}
    try:
        async with runtime.transaction(principal) as tx:
            await _get(tx, profile_id)
            changed = {**values, "updated_at": runtime.now()}
            await vendor_profiles.update(tx, profile_id, changed)
            return await _get(tx, profile_id)
    except IntegrityError as error:
        raise _taken(values["name"]) from error


async def delete(runtime: Runtime, principal: Principal, profile_id: UUID) -> None:
    async with runtime.transaction(principal) as tx:
        if not await vendor_profiles.delete(tx, profile_id):
            raise NotFound("not_found", f"There is no vendor profile {profile_id}.")
