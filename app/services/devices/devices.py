"""Devices: lists, single devices, and the backfill for outcomes from before the table of devices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError

from app.db import devices, devices_backfill, registration_lists, serial_search
from app.db.devices import Filter
from app.db.paging import Page, PageRequest
from app.db.sqlstate import LOCK_NOT_AVAILABLE, sqlstate_of
from app.domain.actor import Principal
from app.domain.devices import KnownDevice, SerialNumberSearch
from app.domain.errors import FieldError, NotFound, Unprocessable
from app.domain.registration import Registration
from app.kernel.telemetry import logger
from app.runtime import Runtime

log = logger("devices")

SHOWN_REGISTRATIONS: Final = 100
"""The most registrations shown of one device, the newest first."""
CHUNK: Final = 2_000
"""Registrations in one transaction of the backfill."""
CHUNKS: Final = 1_000
"""Chunks in one round; the next round continues."""

_ONLY_PREFIX: Final = (
    "This installation finds serial numbers only by their beginning: use serial_prefix. "
    "GET /v1/limits has `serial_number_search`."
)


@dataclass(frozen=True, slots=True)
class DevicePage:
    page: Page[KnownDevice]
    complete: bool
    """False while the backfill is still adding devices."""


@dataclass(frozen=True, slots=True)
class DeviceView:
    device: KnownDevice
    registrations: Sequence[Registration]
    """Newest first, at most SHOWN_REGISTRATIONS."""


async def list_page(runtime: Runtime, principal: Principal, page: PageRequest, filter: Filter) -> DevicePage:
    """Raises Unprocessable for a fragment of a serial number if the database cannot search for one."""
    async with runtime.reading(principal) as tx:
        by_trigrams = False
        if filter.serial_contains is not None:
            by_trigrams = await serial_search.mode(tx.session) is SerialNumberSearch.FRAGMENT
            if not by_trigrams:
                wrong = FieldError("serial_contains", "invalid_parameter", _ONLY_PREFIX)
                raise Unprocessable("invalid_parameter", _ONLY_PREFIX, [wrong])
        # First: if it is complete now, the page that is read next has all devices.
        complete = await devices_backfill.is_complete(tx)
        found = await devices.list_page(tx, page, filter, by_trigrams=by_trigrams)
    return DevicePage(found, complete)


async def get(runtime: Runtime, principal: Principal, device_id: UUID) -> DeviceView:
    async with runtime.reading(principal) as tx:
        device = await devices.get(tx, device_id)
        if device is None:
            raise NotFound("not_found", f"There is no device {device_id}.")
        ids = await devices.registrations_of(tx, device, limit=SHOWN_REGISTRATIONS)
        rows = await registration_lists.by_ids(tx, ids)
    return DeviceView(device, rows)


async def backfill(runtime: Runtime, *, chunk: int = CHUNK, chunks: int = CHUNKS) -> int:
    """Adds the devices of registrations from before the table of devices; returns how many it read.

    Each chunk is one transaction, which also records the progress for the next round.
    """
    read = 0
    for _ in range(chunks):
        try:
            async with runtime.system_transaction() as tx:
                found = await devices_backfill.add_some(tx, chunk)
        except DBAPIError as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise
            found = None  # an outcome is being corrected at this moment; the next round continues
        if found is None:
            break
        read += found
        if found < chunk:
            log.info("devices_complete")
            break
    if read:
        log.info("devices_added", registrations=read)
    return read
