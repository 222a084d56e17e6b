"""Sentences about what orders wait for: what, since when, until when, and what to do about it."""

from collections.abc import Iterable, Sequence

from app.cli.api_client import JsonObject
from app.cli.screen import Screen, amount, for_a_terminal, moment, plain

Reasons = Sequence[JsonObject]


def reasons_of(orders: Iterable[JsonObject]) -> list[JsonObject]:
    """The reasons of several orders, each once with all its devices. Older APIs have none."""
    found: dict[str, JsonObject] = {}
    for order in orders:
        for reason in order.get("waiting_for") or ():
            known = found.get(reason["code"])
            if known is None:
                found[reason["code"]] = dict(reason)
            else:
                known["devices"] += reason["devices"]
    return list(found.values())


def show_reasons(screen: Screen, reasons: Iterable[JsonObject]) -> None:
    for reason in reasons:
        screen.say()
        screen.say(f"Waiting: {plain(reason['title'])}.", style="bold yellow")
        since, until, detail = reason["since"], reason["until"], reason["detail"]
        pairs = [("  Devices", amount(reason["devices"], "device"))]
        if since:
            pairs.append(("  Since", moment(since)))
        pairs.append(("  Until", moment(until) if until else _open_end(reason)))
        if detail:
            pairs.append(("  Detail", detail))
        pairs.append(("  What to do", for_a_terminal(reason["remedy"])))
        screen.facts(pairs)


def _open_end(reason: JsonObject) -> str:
    return "somebody has acted" if reason["advice"] == "person" else "not known"
