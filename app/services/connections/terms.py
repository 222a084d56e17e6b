"""Rules for a customer's rows, and whether anything may be ordered for the customer at all.

Orders by JSON, imports and portal connections share them, so that all refuse the same row or none does.
"""

from collections.abc import Callable
from uuid import UUID

from app.db import customers
from app.domain.catalogue import Finding
from app.domain.connection import ConnectionMode
from app.domain.customer import OrderableCustomer
from app.domain.errors import FieldError, NotFound, Unprocessable
from app.domain.group_tag import tag_of
from app.domain.identity import CheckedDevice, Rules
from app.domain.planning import OrderRules
from app.kernel.settings import Settings
from app.kernel.transactions import PartnerTx
from app.platforms.base import Platform
from app.runtime import Runtime


def order_rules(runtime: Runtime, customer: OrderableCustomer, group_tag: str | None) -> OrderRules:
    """`group_tag`: the order's or the import's own. A portal file carries less than an API call."""
    platform, settings = runtime.platforms[customer.platform], runtime.settings
    tag = tag_of(group_tag, customer.default_group_tag)
    rules = Rules(
        platform.capabilities.identities,
        max_group_tag=settings.max_group_tag,
        objection=_objection(settings, platform, tag) if customer.mode is ConnectionMode.PORTAL else None,
    )
    return OrderRules(rules, batch_size(settings, platform), tag, platform.capabilities.one_spelling)


def _objection(
    settings: Settings, platform: Platform, group_tag: str
) -> Callable[[CheckedDevice], Finding | None] | None:
    """Finds what a device has that the platform's file cannot carry, by checking the cells to be written.

    `group_tag` applies to devices without their own.
    """
    format = platform.file
    if format is None:
        return None
    with_serial = settings.send_serial_with_hash

    def find(device: CheckedDevice) -> Finding | None:
        cells = format.cells(device.outgoing(with_serial=with_serial), device.group_tag or group_tag)
        return format.objection(cells)

    return find


def refuse_long_tag(settings: Settings, group_tag: str | None) -> None:
    """Checks the tag of an order or an import; a row's own tag becomes a finding instead."""
    limit = settings.max_group_tag
    if group_tag is not None and len(group_tag) > limit:
        detail = f"A group tag has at most {limit} characters."
        error = FieldError("/group_tag", "group_tag_too_long", detail)
        raise Unprocessable("validation_failed", detail, [error])


async def read_orderable(runtime: Runtime, tx: PartnerTx, customer_id: UUID) -> OrderableCustomer:
    """Raises NotFound, and Unprocessable if nothing can be ordered for the customer."""
    customer = await customers.get_orderable(tx, customer_id)
    if customer is None:
        raise NotFound("unknown_customer", f"There is no customer {customer_id}.")
    refuse_barred(runtime.platforms[customer.platform], customer.partner_role, customer.mode)
    return customer


def batch_size(settings: Settings, platform: Platform) -> int:
    """The most devices in one batch: the platform's limit, or the operator's if lower."""
    return min(platform.capabilities.max_devices, settings.max_batch_devices)


def bar_of(platform: Platform, role: str, mode: ConnectionMode) -> str | None:
    """Why nothing can be ordered, if so. Microsoft would only answer 403."""
    if mode is ConnectionMode.PORTAL or role not in platform.barred_roles:
        return None
    return f"{platform.title} does not offer its API to partners of the role {role}."


def refuse_barred(platform: Platform, role: str, mode: ConnectionMode) -> None:
    if barred := bar_of(platform, role, mode):
        raise Unprocessable("partner_role_cannot_use_api", barred)
