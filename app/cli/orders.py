"""Commands for submitted orders: show, watch, retry, cancel.

An order is named by its id or by the caller's own reference. A reference that `submit` split into several
orders means all of them.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
import typer

from app.cli.api_client import Api, JsonObject
from app.cli.asking import Yes, asks, confirm
from app.cli.customers import customer_names
from app.cli.following import Timeout, watch
from app.cli.outcome import ExitCode, Stop, combine, judge_followed, judge_now, waits_for_a_person
from app.cli.references import find_order, find_orders
from app.cli.results import NEEDS_ATTENTION, WENT_WRONG, conclude, devices_in, show_failures
from app.cli.screen import ORDER_WORDS, Screen, amount, count_words, moment, number
from app.cli.surroundings import DEFAULT_URL, ORDERS_PANEL, ApiKey, ApiUrl, Json, surroundings
from app.cli.waiting import reasons_of, show_reasons
from app.domain.registration import RegistrationState

__all__ = ["OrderId", "app", "find_order"]

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
    """Show an order: its state, its counts, what holds it, and the devices that need attention.

    Ends with 5 if nothing moves until somebody does what is shown.
    """
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_orders(api, order)
        code = combine([judge_now(each) for each in found])
        if json:
            attention = [row for each in found for row in devices_in(api, each, NEEDS_ATTENTION)]
            screen.document({**_document(found, code), "attention": attention})
        else:
            for at, each in enumerate(found):
                if at:
                    screen.say()
                _show(screen, api, each)
            show_failures(screen, api, found, NEEDS_ATTENTION)
    return code


@app.command("watch", rich_help_panel=ORDERS_PANEL)
def watch_order(
    ctx: typer.Context,
    order: OrderId,
    timeout: Timeout = None,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Follow an order until it is over, or waits for the customer's consent.

    Ends with 0 when every device is registered, 2 when some are not, 3 when
    consent is missing, 5 when it is not over after --timeout.
    """
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        final = watch(screen, api, find_orders(api, order), timeout=timeout)
        conclude(screen, api, final, NEEDS_ATTENTION)
        code = combine([judge_followed(each) for each in final])
        if json:
            screen.document(_document(final, code))
    return code


@app.command("retry", rich_help_panel=ORDERS_PANEL)
def retry_order(
    ctx: typer.Context,
    order: OrderId,
    row: Annotated[
        list[int] | None, typer.Option("--row", min=1, help="Only this row; may be given several times.")
    ] = None,
    line: Annotated[
        list[str] | None, typer.Option("--line", help="Only this line of yours; may be given several times.")
    ] = None,
    state: Annotated[
        list[RegistrationState] | None,
        typer.Option(
            "--state", metavar="STATE", help="Only devices that are failed, in conflict or unknown."
        ),
    ] = None,
    code: Annotated[
        list[str] | None, typer.Option("--code", help="Only devices with this error code.")
    ] = None,
    follow: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow it to its end.")] = False,
    timeout: Timeout = None,
    yes: Yes = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Try an order's failed devices again, after the cause has been fixed.

    All of them, or those that match every option.
    """
    screen = Screen(json=json)
    choice = _choice(row, line, state, code)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_orders(api, order)
        if row and len(found) > 1:
            raise Stop(
                f"{order} was split into {len(found)} orders, and each has a row {row[0]}.",
                "Name one of them: " + ", ".join(each["reference"] for each in found),
                error_code="name_ambiguous",
            )
        chosen = found
        if asks(yes=yes) or len(found) > 1:
            wanted = [(each, _retryable(api, each, choice)) for each in found]
            if total := sum(devices for _, devices in wanted):
                confirm(f"Try {amount(total, 'device')} of {_named(order, found)} again?", yes=yes)
            # If there are none, the API says why.
            chosen = [each for each, devices in wanted if devices] or found[:1]
        retried = [_retry(screen, api, each, choice) for each in chosen]
        last: Sequence[JsonObject] = retried
        if follow:
            last = watch(screen, api, retried, timeout=timeout)
            conclude(screen, api, last, NEEDS_ATTENTION)
        elif not json:
            for each in retried:
                _what_next(screen, each)
    if json:
        screen.document(_document(last, ExitCode.DONE))
    return combine([judge_followed(each) for each in last]) if follow else ExitCode.DONE


def _choice(
    rows: list[int] | None,
    lines: list[str] | None,
    states: list[RegistrationState] | None,
    codes: list[str] | None,
) -> dict[str, Any]:
    """The body of `:retry-failed`; empty for all devices."""
    given = {"rows": rows, "line_refs": lines, "states": states, "codes": codes}
    return {name: wanted for name, wanted in given.items() if wanted}


def _retryable(api: Api, order: JsonObject, choice: dict[str, Any]) -> int:
    """How many devices would be retried, as far as the API can tell."""
    if not choice:
        return sum(order["counts"][state] for state in WENT_WRONG)
    fields = (("rows", "row"), ("line_refs", "line_ref"), ("states", "state"), ("codes", "error_code"))
    return sum(
        all(name not in choice or device[field] in choice[name] for name, field in fields)
        for device in devices_in(api, order, WENT_WRONG)
    )


def _retry(screen: Screen, api: Api, order: JsonObject, choice: dict[str, Any]) -> JsonObject:
    body = orjson.dumps(choice) if choice else None
    retried = api.post(f"/v1/orders/{order['id']}:retry-failed", body).body
    what_follows = "can be uploaded again" if waits_for_a_person(retried) else "will be tried again"
    screen.say(f"{amount(retried['retried'], 'device')} {what_follows}.")
    named = len(choice.get("rows") or choice.get("line_refs") or ())
    if retried["retried"] < named:
        screen.say("The other chosen devices have not failed, or do not match every option.")
    if retried["without_hash"]:
        screen.say(
            f"{amount(retried['without_hash'], 'device')} cannot be tried again: the hash has been "
            "deleted. Submit them in a new order."
        )
    return retried


def _what_next(screen: Screen, order: JsonObject) -> None:
    if waits_for_a_person(order):
        screen.say(f"Upload the new file: `registrar portal files {order['id']}` shows it.")
    else:
        screen.say(f"Follow it with `registrar watch {order['id']}`.")


@app.command("cancel", rich_help_panel=ORDERS_PANEL)
def cancel_order(
    ctx: typer.Context,
    order: OrderId,
    yes: Yes = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Cancel the devices of an order that have not been sent. Devices already sent go on."""
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_orders(api, order)
        waiting = [(each, _unsent(each)) for each in found]
        total = sum(devices for _, devices in waiting)
        if total:
            confirm(f"Cancel {amount(total, 'device')} of {_named(order, found)}?", yes=yes)
        # If there are none, the API says why.
        chosen = [each for each, devices in waiting if devices] or found[:1]
        cancelled = [api.post(f"/v1/orders/{each['id']}:cancel").body for each in chosen]
        if json:
            screen.document(_document(cancelled, ExitCode.DONE))
        else:
            for at, each in enumerate(cancelled):
                if at:
                    screen.say()
                _show(screen, api, each)
    return ExitCode.DONE


def _unsent(order: JsonObject) -> int:
    return sum(order["counts"][state] for state in (RegistrationState.HELD, RegistrationState.QUEUED))


def _named(wanted: str, found: Sequence[JsonObject]) -> str:
    """The name that was given, and how many orders it stands for."""
    if len(found) > 1:
        return f"{wanted} ({amount(len(found), 'order')})"
    return str(found[0]["reference"])


def _document(orders: Sequence[JsonObject], code: ExitCode) -> JsonObject:
    """One order as the API shows it; several parts as a list."""
    if len(orders) == 1:
        return dict(orders[0])
    return {"exit_code": int(code), "orders": list(orders)}


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
    show_reasons(screen, reasons_of([order]))
