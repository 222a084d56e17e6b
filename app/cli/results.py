"""Sentences about how orders ended: counts, devices that need attention, and the next step.

Used after submitting, watching and trying again, so that the same outcome always reads the same. Only
devices that went wrong are fetched, and only as many as a person reads.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from app.cli.api_client import Api, JsonObject
from app.cli.customers import consent_advice, customer_names
from app.cli.device_file import Part
from app.cli.outcome import waits_for_a_person
from app.cli.screen import ORDER_WORDS, SHOWN_ROWS, STATE_WORDS, Screen, amount, count_words, number
from app.domain.catalogue import CATALOGUE
from app.domain.order import FINAL, OrderState
from app.domain.registration import RegistrationState

WENT_WRONG: Final = (RegistrationState.CONFLICT, RegistrationState.FAILED, RegistrationState.UNKNOWN)
"""Devices that were sent, or were to be sent, and are not registered."""
NEEDS_ATTENTION: Final = (RegistrationState.INVALID, *WENT_WRONG)


def conclude(
    screen: Screen,
    api: Api,
    orders: Sequence[JsonObject],
    states: Sequence[RegistrationState],
    parts: Sequence[Part] = (),
) -> None:
    """Prints how orders ended, what failed, and what to do next.

    `parts` are those of the orders' file, if it is available.
    """
    for order in orders:
        words = ORDER_WORDS[order["state"]]
        screen.say(f"Order {order['reference']}: {words}.", style="bold")
        screen.facts((f"  {text}", number(count)) for text, count in count_words(order["counts"]))
    show_failures(screen, api, orders, states, parts)
    held = [order for order in orders if order["state"] == OrderState.HELD]
    if held:
        customer_id = held[0]["customer_id"]
        name = customer_names(api, [customer_id])[customer_id]
        waiting = sum(order["counts"]["held"] for order in held)
        screen.say()
        if held[0].get("portal"):
            screen.say(
                f"{amount(waiting, 'device')} wait for the consent of {name}, which you record by hand:"
            )
            screen.say(f"`registrar portal consent {customer_id} --note ...`")
        else:
            screen.say(f"{amount(waiting, 'device')} will be sent automatically as soon as {name} consents.")
            screen.say(consent_advice(name))
    for order in filter(waits_for_a_person, orders):
        screen.say()
        screen.say(f"Upload it by hand: `registrar portal files {order['id']}` shows how.")
    retryable = [order for order in orders if any(order["counts"][state] for state in WENT_WRONG)]
    for order in retryable:
        if order["state"] in FINAL:
            screen.say(f"When the cause is fixed: `registrar retry {order['id']}`")


def show_failures(
    screen: Screen,
    api: Api,
    orders: Sequence[JsonObject],
    states: Sequence[RegistrationState],
    parts: Sequence[Part] = (),
) -> None:
    total = sum(order["counts"][state] for order in orders for state in states)
    if not total:
        return
    rows: list[JsonObject] = []
    for order in orders:
        rows += devices_in(api, order, states, limit=SHOWN_ROWS)
    of_order = {order["id"]: part for order, part in zip(orders, parts, strict=False)}
    places = [_place(row, of_order.get(row["order_id"])) for row in rows[:SHOWN_ROWS]]
    # A `line_ref` that is more than the row's number is the caller's own.
    own = any(row["line_ref"] not in (None, place["Row"]) for row, place in zip(rows, places, strict=False))
    heads = ["Line", "Row"] if parts else ["Row"]
    shown = [
        (
            *(place[head] for head in heads),
            *((row["line_ref"],) if own else ()),
            row["serial_number"] or row["product_key"],
            STATE_WORDS[row["state"]],
            reason(row),
        )
        for row, place in zip(rows, places, strict=False)
    ]
    heads += ["Line reference"] if own else []
    screen.say()
    screen.table((*heads, "Device", "State", "Why"), shown, whole=(*heads, "Device"))
    if total > len(shown):
        screen.say(f"... and {number(total - len(shown))} more: `registrar order {orders[0]['id']} --json`")
    screen.remedies((row["error_code"], row["remedy"]) for row in rows[:SHOWN_ROWS])


def _place(row: JsonObject, part: Part | None) -> dict[str, str]:
    """A device's place: in its file if that is available, otherwise in its order."""
    found = None if part is None else part.row_of(row["row"])
    if found is None:
        return {"Line": "", "Row": str(row["row"])}
    return {"Line": str(found.line), "Row": str(found.number)}


def devices_in(
    api: Api, order: JsonObject, states: Sequence[RegistrationState], *, limit: int | None = None
) -> Iterator[JsonObject]:
    """The order's devices in these states, state by state. Skips states without any."""
    for state in states:
        if order["counts"][state]:
            yield from api.items(f"/v1/orders/{order['id']}/registrations", state=state.value, limit=limit)


def reason(row: JsonObject) -> str:
    """Our code in words; also Microsoft's where ours says little."""
    code = row["error_code"]
    if code is None:
        return ""
    known = CATALOGUE.get(code)
    words = row["error_detail"] or (known.title if known else code)
    upstream = row["upstream"]
    said = " ".join(filter(None, (upstream["code"], upstream["name"])))
    return f"{words} ({said})" if said and said not in words else str(words)
