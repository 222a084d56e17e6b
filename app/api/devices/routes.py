"""Devices: what is known now about each, over all orders."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from app.api import answers
from app.api.contract import fields
from app.api.contract.models import Output, PageOf
from app.api.contract.texts import Sought
from app.api.contract.times import Timestamp
from app.api.http.turns import take_heavy
from app.api.orders import rendering
from app.api.orders.models import RegistrationOut
from app.api.requests import PageOfIds, ReadsOrders, RuntimeOf
from app.db.devices import Filter
from app.domain.devices import DeviceState, KnownDevice
from app.domain.registration import RegistrationState
from app.services.devices import devices
from app.services.devices.devices import SHOWN_REGISTRATIONS

router = APIRouter(prefix="/v1", tags=["Devices"])


class LastRegistrationOut(Output):
    """The registration with the latest outcome, as it is now."""

    id: UUID
    order_id: UUID
    group_tag: str | None
    state: RegistrationState
    error_code: str | None
    remedy: str | None = Field(description="What to do about `error_code`.")


class DeviceOut(Output):
    id: UUID
    customer_id: UUID
    state: DeviceState = Field(
        description="By Microsoft's last definite answer for this customer. `registered`: the customer has "
        "it, through you or others. `conflict`: another company has it. Without a definite answer: "
        "`not_registered`, the last attempt failed; `unknown`, its outcome is not known. A failure after a "
        "definite answer changes nothing here: see `last_registration`."
    )
    state_at: Timestamp = Field(description="When the answer behind `state` came.")
    serial_number: str | None
    manufacturer: str | None
    model: str | None
    product_key: str | None
    first_outcome_at: Timestamp
    last_outcome_at: Timestamp
    last_registration: LastRegistrationOut | None = Field(
        description="The one with the latest outcome; it may be under way again meanwhile. Null while the "
        "order is being removed."
    )


class DeviceDetail(DeviceOut):
    registrations: list[RegistrationOut] = Field(
        description=f"Of all orders for this customer, newest first, at most {SHOWN_REGISTRATIONS}."
    )


class Devices(PageOf):
    items: list[DeviceOut]
    complete: bool = Field(
        description="False for a while after the upgrade that brought devices: those with older outcomes are "
        "still being added, so a device that is missing here may have been registered."
    )


@router.get("/devices", response_model=Devices)
async def list_devices(
    request: Request,
    runtime: RuntimeOf,
    caller: ReadsOrders,
    page: PageOfIds,
    customer_id: UUID | None = None,
    state: DeviceState | None = None,
    serial_number: Annotated[Sought | None, Query(description="The whole serial number.")] = None,
    serial_prefix: Annotated[
        Sought | None, Query(description="The beginning of the serial number, as it is written.")
    ] = None,
    serial_contains: Annotated[
        Sought | None,
        Query(
            min_length=3,
            description="Any part of the serial number, capital or small letters, 3 characters or more; only "
            "where `GET /v1/limits` has `serial_number_search: fragment`, else 422.",
        ),
    ] = None,
    product_key: Annotated[Sought | None, Query(description="The whole PKID.")] = None,
) -> Devices | Response:
    """One device for each identity of a customer that has had an outcome, newest first.

    A usual PKID identifies a device; otherwise its serial number, manufacturer and model do, as ordered. A
    device that was ordered once with its model and once without is listed twice. For filters without an
    index, a page looks through 100,000 devices: it may have no items and a `next_page_token`.
    """
    wanted = Filter(customer_id, state, serial_number, serial_prefix, serial_contains, product_key)
    if wanted.searches:
        await take_heavy(request, runtime, caller)
    found = await devices.list_page(runtime, caller, page, wanted)
    return await answers.page(Devices, found.page, _device, complete=found.complete)


@router.get("/devices/{device_id}")
async def get_device(runtime: RuntimeOf, caller: ReadsOrders, device_id: UUID) -> DeviceDetail:
    """One device with its registrations."""
    found = await devices.get(runtime, caller, device_id)
    rows = [rendering.registration(row) for row in found.registrations]
    return DeviceDetail(**dict(_device(found.device)), registrations=rows)


def _device(device: KnownDevice) -> DeviceOut:
    known = fields.same(device, DeviceOut, but=("last_registration",))
    return DeviceOut(**known, last_registration=_last(device))


def _last(device: KnownDevice) -> LastRegistrationOut | None:
    if device.last_id is None or device.last_order_id is None or device.last_state is None:
        return None
    return LastRegistrationOut(
        id=device.last_id,
        order_id=device.last_order_id,
        group_tag=device.last_group_tag,
        state=device.last_state,
        error_code=device.last_error_code,
        remedy=fields.remedy(device.last_error_code),
    )
