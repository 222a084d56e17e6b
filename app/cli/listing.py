"""`registrar list`, `batches` and `find`: the newest orders, an order's batches, and devices by search."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from app.cli.api_client import Api, JsonObject
from app.cli.customers import customer_names, find_customer
from app.cli.orders import OrderId
from app.cli.outcome import ExitCode, Stop
from app.cli.references import find_orders, order_references, orders_of
from app.cli.results import reason
from app.cli.screen import STATE_WORDS, Screen, moment, number
from app.cli.surroundings import DEFAULT_URL, ORDERS_PANEL, ApiKey, ApiUrl, Ids, Json, surroundings
from app.domain.order import OrderState

app = typer.Typer()

SHORT_WORDS: Final[dict[str, str]] = {
    "held": "waiting for consent",
    "in_progress": "in progress",
    "completed": "completed",
    "completed_with_errors": "completed with errors",
    "failed": "failed",
    "cancelled": "cancelled",
}
BATCH_WORDS: Final[dict[str, str]] = {
    "held": "waiting for consent",
    "queued": "waiting for its turn",
    "submitting": "being sent",
    "submitted": "being registered",
    "settled": "over",
    "cancelled": "cancelled",
}
FRAGMENT: Final = 3
"""Fewest characters for a search inside serial numbers. Fewer match only the beginning."""
PKID: Final = re.compile(r"\d{13}")
_SPAN: Final = re.compile(r"(\d{1,5})\s*([hdw])")
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

CustomerOption = Annotated[
    str | None, typer.Option("--customer", help="The customer's id, Entra tenant, domain or name.")
]
Since = Annotated[str | None, typer.Option(help="A day (2026-11-28), a time in UTC, or a span: 12h, 7d, 2w.")]


@app.command("list", rich_help_panel=ORDERS_PANEL)
def list_orders(
    ctx: typer.Context,
    state: Annotated[
        OrderState | None,
        typer.Option(metavar="STATE", help=f"Only orders in this state: {', '.join(OrderState)}."),
    ] = None,
    customer: CustomerOption = None,
    reference: Annotated[str | None, typer.Option(help="Only the order of this reference.")] = None,
    purchase_order: Annotated[str | None, typer.Option(help="Only orders of this purchase order.")] = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="The most orders to show.")] = 20,
    ids: Ids = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """List the orders, newest first."""
    screen = Screen(json=json, ids=ids)
    with surroundings(ctx).api(api_url, api_key) as api:
        filters = {
            "customer_id": find_customer(api, customer)["id"] if customer else None,
            "purchase_order": purchase_order,
            "state": None if state is None else state.value,
            "since": moment_of(since),
        }
        if reference is None:
            found = list(api.items("/v1/orders", limit=limit + 1, **filters))
        else:
            found = list(_of_reference(api, reference, filters))
        shown = found[:limit]
        if json:
            screen.document(shown)
            return ExitCode.DONE
        names = customer_names(api, (order["customer_id"] for order in shown))
    if not shown:
        screen.say("No order matches.")
        return ExitCode.DONE
    rows = [
        (
            order["reference"],
            names[order["customer_id"]],
            SHORT_WORDS.get(order["state"], order["state"]),
            order["counts"]["total"],
            moment(order["created_at"]).removesuffix(" UTC"),
            order["purchase_order"],
            order["id"],
        )
        for order in shown
    ]
    headers = ("Reference", "Customer", "State", "Devices", "Received (UTC)", "Purchase order", "Id")
    screen.table(headers, rows, whole=headers, ids=("Id",))
    if len(found) > limit:
        screen.say(f"There are more: only the newest {number(limit)} are shown (--limit).")
    return ExitCode.DONE


def _of_reference(api: Api, reference: str, filters: dict[str, str | None]) -> Iterator[JsonObject]:
    """The order, or the parts that `submit` made of it, if they pass the filters as well."""
    for order in orders_of(api, reference):
        passing = api.items("/v1/orders", limit=1, reference=order["reference"], **filters)
        yield from passing


def moment_of(text: str | None) -> str | None:
    """A time as the API takes it. Raises Stop."""
    if text is None:
        return None
    now = datetime.now(UTC)
    if span := _SPAN.fullmatch(text.strip().lower()):
        return (now - int(span[1]) * _UNITS[span[2]]).isoformat()
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Stop(
            f"'{text}' is not a time.",
            "Give a day (2026-11-28), a time in UTC (2026-11-28T10:00), or a span (12h, 7d, 2w).",
            error_code="command_misused",
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


@app.command("batches", rich_help_panel=ORDERS_PANEL)
def list_batches(
    ctx: typer.Context,
    order: OrderId,
    ids: Ids = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """List the batches of an order and their states."""
    screen = Screen(json=json, ids=ids)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = [
            batch
            for each in find_orders(api, order)
            for batch in reversed(list(api.items("/v1/batches", order_id=each["id"])))
        ]
    if json:
        screen.document(found)
        return ExitCode.DONE
    if not found:
        screen.say("The order has no batch: no device of it was valid.")
        return ExitCode.DONE
    rows = [
        (
            batch["group_tag"],
            BATCH_WORDS.get(batch["state"], batch["state"]),
            batch["counts"]["total"],
            batch["submissions"],
            moment(batch["created_at"]),
            moment(batch["due_at"]) if batch["settled_at"] is None else "",
            moment(batch["settled_at"]) if batch["settled_at"] else "",
            _waits_for(batch),
            batch["id"],
        )
        for batch in found
    ]
    headers = ("Group tag", "State", "Devices", "Sent", "Made", "Next step", "Over", "Waits for", "Batch")
    screen.table(headers, rows, whole=headers[:-2], ids=("Batch",))
    return ExitCode.DONE


def _waits_for(batch: JsonObject) -> str:
    """What holds it. Older APIs do not say."""
    reasons = batch.get("waiting_for") or []
    words = (each.get("title") or each.get("code") for each in reasons if isinstance(each, dict))
    return "; ".join(str(each) for each in words if each)


@app.command("find", rich_help_panel=ORDERS_PANEL)
def find_devices(
    ctx: typer.Context,
    serial: Annotated[
        str | None, typer.Argument(help="Part of a serial number (3 characters or more), or a whole PKID.")
    ] = None,
    pkid: Annotated[str | None, typer.Option("--pkid", help="The whole PKID.")] = None,
    line: Annotated[str | None, typer.Option("--line", help="Your own line, exactly.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most devices to show, newest first.")] = 50,
    ids: Ids = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Find devices in all orders by part of the serial number, by PKID, or by your own line."""
    screen = Screen(json=json, ids=ids)
    if not any((serial, pkid, line)):
        raise Stop(
            "The command does not say what to find.",
            "Give a part of a serial number, --pkid or --line.",
            error_code="command_misused",
        )
    with surroundings(ctx).api(api_url, api_key) as api:
        found = _find(api, serial, {"product_key": pkid, "line_ref": line}, limit + 1)
        shown = found[:limit]
        if json:
            screen.document(shown)
            return ExitCode.DONE
        names = customer_names(api, (row["customer_id"] for row in shown))
        references = order_references(api, (row["order_id"] for row in shown))
    if not shown:
        screen.say("No order has such a device.")
        return ExitCode.DONE
    rows = [
        (
            row["serial_number"],
            " ".join(filter(None, (row["manufacturer"], row["model"]))) or row["product_key"],
            names[row["customer_id"]],
            row["group_tag"],
            _outcome(row),
            references[row["order_id"]],
            row["row"],
            row["order_id"],
        )
        for row in shown
    ]
    headers = ("Serial number", "Device", "Customer", "Group tag", "State", "Order", "Row", "Order id")
    whole = ("Serial number", "Customer", "Group tag", "Order")
    screen.table(headers, rows, whole=whole, ids=("Order id",))
    if len(found) > limit:
        screen.say(f"There are more: only the newest {number(limit)} are shown (--limit).")
    return ExitCode.DONE


def _find(api: Api, serial: str | None, filters: dict[str, str | None], limit: int) -> list[JsonObject]:
    path = "/v1/registrations"
    if serial is None:
        return list(api.items(path, limit=limit, **filters))
    serial = serial.strip()
    if len(serial) < FRAGMENT:
        return list(api.items(path, limit=limit, serial_prefix=serial, **filters))
    found: list[JsonObject] = []
    if PKID.fullmatch(serial) and filters["product_key"] is None:
        found = list(api.items(path, limit=limit, **{**filters, "product_key": serial}))
    seen = {row["id"] for row in found}
    if len(found) < limit:
        more = api.items(path, limit=limit, serial_contains=serial, **filters)
        found += [row for row in more if row["id"] not in seen]
    return found


def _outcome(row: JsonObject) -> str:
    words = STATE_WORDS[row["state"]]
    return f"{words}: {reason(row)}" if row["error_code"] else words
