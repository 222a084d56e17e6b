"""Names for an order on the command line: its id, its reference, or the one `submit` split into parts.

`submit` cuts a file that is longer than one order may be: the reference R then stands for R-1, R-2, and so
on. They count as parts of one file only when they look like nothing else: one customer, purchase order and
group tag, no gap in their numbers, and every part but the last as long as an order may be. An order of
exactly this reference is always meant first.
"""

from collections.abc import Iterable
from itertools import count
from uuid import UUID

from app.cli.api_client import Api, ApiRefusal, JsonObject
from app.cli.outcome import Stop
from app.domain.order import MAX_DEVICES


def find_orders(api: Api, wanted: str) -> list[JsonObject]:
    """By id, by reference, or all parts of the reference. Raises Stop when there is none."""
    wanted = wanted.strip()
    try:
        id = UUID(wanted)
    except ValueError:
        found = orders_of(api, wanted)
        if found:
            return found
        raise Stop(
            f"There is no order with the id or reference {wanted}.",
            "`registrar list` shows the newest orders.",
            error_code="name_not_found",
        ) from None
    return [api.get(f"/v1/orders/{id}").body]


def find_order(api: Api, wanted: str) -> JsonObject:
    """As `find_orders`, where only one order can be meant."""
    found = find_orders(api, wanted)
    if len(found) > 1:
        raise Stop(
            f"{wanted} was split into {len(found)} orders. Give one of them:",
            *(f"  {order['reference']}" for order in found),
            error_code="name_ambiguous",
        )
    return found[0]


def orders_of(api: Api, reference: str) -> list[JsonObject]:
    """The order with this reference, otherwise its parts, otherwise none."""
    exact = _of(api, reference)
    return [exact] if exact is not None else _parts(api, reference)


def _of(api: Api, reference: str) -> JsonObject | None:
    return next(api.items("/v1/orders", limit=1, reference=reference), None)


def _parts(api: Api, reference: str) -> list[JsonObject]:
    parts: list[JsonObject] = []
    for number in count(1):
        part = _of(api, f"{reference}-{number}")
        if part is None or (parts and _terms(part) != _terms(parts[0])):
            break
        parts.append(part)
        if part["counts"]["total"] != MAX_DEVICES:
            break  # only the last one is shorter
    # A single short one was ordered under that name.
    return parts if parts and parts[0]["counts"]["total"] == MAX_DEVICES else []


def _terms(order: JsonObject) -> tuple[object, ...]:
    """The values that all parts of one file have in common."""
    return order["customer_id"], order["purchase_order"], order["group_tag"]


def order_references(api: Api, ids: Iterable[str]) -> dict[str, str]:
    """References for ids of orders; the id itself if the order is gone."""
    references = {}
    for id in dict.fromkeys(ids):
        try:
            references[id] = str(api.get(f"/v1/orders/{id}").body["reference"])
        except ApiRefusal as refusal:
            if refusal.status != 404:
                raise
            references[id] = id
    return references
