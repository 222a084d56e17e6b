"""The orders' commands after submitting: look, follow, find a device, try again, cancel.

An order is named by its id or by the caller's own reference, whichever comes to hand.
"""

from collections.abc import Iterable
from typing import Annotated
from uuid import UUID

import typer

from app.cli.api_client import Api, ApiRefusal, JsonObject
from app.cli.customers import customer_names
from app.cli.following import watch
from app.cli.outcome import ExitCode, Stop, judge_order, waits_for_a_person
from app.cli.results import NEEDS_ATTENTION, conclude, devices_in, reason, show_failures
from app.cli.screen import ORDER_WORDS, STATE_WORDS, Screen, amount, count_words, moment, number
from app.cli.surroundings import DEFAULT_URL, ORDERS_PANEL, ApiKey, ApiUrl, Ids, Json, surroundings

app = typer.Typer()

OrderId = Annotated[str, typer.Argument(help="The order's id, or its reference.")]


@app.command("order", rich_help_panel=ORDERS_PANEL)
def show_order(
    ctx: typer.Context,
    order: OrderId,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Show an order: its state, its counts, and the devices that need attention."""
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_order(api, order)
        if json:
            bad = devices_in(api, found, NEEDS_ATTENTION)
            screen.document({**found, "attention": list(bad)})
        else:
            _show(screen, api, found)
            show_failures(screen, api, [found], NEEDS_ATTENTION)
    return judge_order(found)


@app.command("watch", rich_help_panel=ORDERS_PANEL)
def watch_order(
    ctx: typer.Context,
    order: OrderId,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Follow an order until it is over, or waits for the customer's consent.

    Ends with 0 when every device is registered, 2 when some are not, 3 when consent is missing.
    """
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        final = watch(screen, api, [find_order(api, order)])
        conclude(screen, api, final, NEEDS_ATTENTION)
        if json:
            screen.document(final[0])
    return judge_order(final[0])


@app.command("find", rich_help_panel=ORDERS_PANEL)
def find_devices(
    ctx: typer.Context,
    serial_prefix: Annotated[str, typer.Argument(help="The beginning of a serial number.")],
    limit: Annotated[int, typer.Option(min=1, help="Devices to show at most, newest first.")] = 50,
    ids: Ids = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Find devices in all orders by the beginning of their serial number."""
    screen = Screen(json=json, ids=ids)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = list(api.items("/v1/registrations", limit=limit + 1, serial_prefix=serial_prefix))
        shown = found[:limit]
        if json:
            screen.document(shown)
            return ExitCode.DONE
        names = customer_names(api, (row["customer_id"] for row in shown))
        references = order_references(api, (row["order_id"] for row in shown))
    if not shown:
        screen.say(f"No order has a device whose serial number begins with {serial_prefix}.")
        return ExitCode.DONE
    rows = [
        (
            row["serial_number"],
            " ".join(filter(None, (row["manufacturer"], row["model"]))) or row["product_key"],
            names[row["customer_id"]],
            row["group_tag"],
            _outcome(row),
            references[row["order_id"]],
            row["order_id"],
        )
        for row in shown
    ]
    headers = ("Serial number", "Device", "Customer", "Group tag", "State", "Order", "Order id")
    screen.table(headers, rows, whole=("Serial number", "Customer", "Group tag", "Order"), ids=("Order id",))
    if len(found) > limit:
        screen.say(f"There are more: only the newest {number(limit)} are shown (--limit).")
    return ExitCode.DONE


@app.command("retry", rich_help_panel=ORDERS_PANEL)
def retry_order(
    ctx: typer.Context,
    order: OrderId,
    follow: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow it to its end.")] = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Try an order's failed devices again, after the cause has been mended."""
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_order(api, order)
        retried = api.post(f"/v1/orders/{found['id']}:retry-failed").body
        by_hand = waits_for_a_person(retried)
        what_follows = "can be uploaded again" if by_hand else "will be tried again"
        screen.say(f"{amount(retried['retried'], 'device')} {what_follows}.")
        if retried["without_hash"]:
            screen.say(
                f"{amount(retried['without_hash'], 'device')} can not be tried again: the hash has been "
                "deleted. Submit them in a new order."
            )
        last: JsonObject = retried
        if follow:
            (last,) = watch(screen, api, [retried])
            conclude(screen, api, [last], NEEDS_ATTENTION)
        elif by_hand:
            screen.say(f"Nothing moves by itself: `registrar portal files {found['id']}` shows the new file.")
        elif not json:
            screen.say(f"Follow it with `registrar watch {found['id']}`.")
    if json:
        screen.document(last)
    return judge_order(last) if follow else ExitCode.DONE


@app.command("cancel", rich_help_panel=ORDERS_PANEL)
def cancel_order(
    ctx: typer.Context,
    order: OrderId,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Cancel the devices of an order that have not been sent. What is on its way goes on."""
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_order(api, order)
        cancelled = api.post(f"/v1/orders/{found['id']}:cancel").body
        if json:
            screen.document(cancelled)
        else:
            _show(screen, api, cancelled)
    return ExitCode.DONE


def find_order(api: Api, wanted: str) -> JsonObject:
    """By id, else by the caller's own reference, which is unique."""
    try:
        id = UUID(wanted)
    except ValueError:
        for found in api.items("/v1/orders", limit=1, reference=wanted):
            return found
        raise Stop(
            f"There is no order with the id or reference {wanted}.", error_code="name_not_found"
        ) from None
    return api.get(f"/v1/orders/{id}").body


def order_references(api: Api, ids: Iterable[str]) -> dict[str, str]:
    """The owner's references for ids of orders; of one that is gone, its id."""
    references = {}
    for id in dict.fromkeys(ids):
        try:
            references[id] = str(api.get(f"/v1/orders/{id}").body["reference"])
        except ApiRefusal as refusal:
            if refusal.status != 404:
                raise
            references[id] = id
    return references


def _show(screen: Screen, api: Api, order: JsonObject) -> None:
    customer_id = order["customer_id"]
    name = customer_names(api, [customer_id])[customer_id]
    pairs = [
        ("Order", order["reference"]),
        ("Id", order["id"]),
        ("State", ORDER_WORDS[order["state"]]),
        ("Customer", name),
        ("Group tag", order["group_tag"]),
        ("Received", moment(order["created_at"])),
        ("Devices", number(order["counts"]["total"])),
    ]
    if order["purchase_order"]:
        pairs.insert(2, ("Purchase order", order["purchase_order"]))
    screen.facts([*pairs, *((f"  {words}", number(n)) for words, n in count_words(order["counts"]))])


def _outcome(row: JsonObject) -> str:
    words = STATE_WORDS[row["state"]]
    return f"{words}: {reason(row)}" if row["error_code"] else words
