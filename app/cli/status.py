"""`registrar status`: one screen that shows whether all is well, and what to do if not.

It asks the API, so that it works without access to the database. Its exit code is for monitoring.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import typer
from rich.table import Table
from rich.text import Text

from app.cli.api_client import ApiRefusal, JsonObject, Unreachable
from app.cli.outcome import ExitCode, Stop
from app.cli.screen import Screen, amount, moment, number, plain
from app.cli.surroundings import DEFAULT_URL, ORDERS_PANEL, ApiKey, ApiUrl, Json, surroundings
from app.domain.quota import QUOTAS

app = typer.Typer()

NOT_READY: Final = 503
SHOWN: Final = 10
"""The most connections, endpoints and stuck batches or imports that are shown."""

_OK, _NOTE, _ATTENTION, _DOWN = "ok", "", "look", "DOWN"
_STYLES: Final = {_OK: "green", _NOTE: "", _ATTENTION: "bold yellow", _DOWN: "bold red"}
_CODES: Final = {"ok": ExitCode.DONE, "attention": ExitCode.PARTIAL, "down": ExitCode.ERROR}
_HEADLINES: Final = {
    "ok": ("All is well.", "bold green"),
    "attention": ("Everything runs, and something needs attention.", "bold yellow"),
    "down": ("Something is down.", "bold red"),
}
_STANDING: Final = {quota.value for quota, terms in QUOTAS.items() if terms.retry_after is None}
"""Quotas whose use does not fall by itself."""
_WORK: Final = {"held": "held for consent", "queued": "waiting to be sent", "in_flight": "under way"}


@dataclass(frozen=True, slots=True)
class _Line:
    mark: str
    name: str
    words: str


@app.command("status", rich_help_panel=ORDERS_PANEL)
def show_status(
    ctx: typer.Context, api_url: ApiUrl = DEFAULT_URL, api_key: ApiKey = None, json: Json = False
) -> int:
    """Show whether all is well: the service's parts, waiting work, and what needs attention.

    Ends with 0 when all is well, 1 when something is down or the API does not
    answer, 2 when everything runs and something needs attention.
    """
    screen = Screen(json=json)
    try:
        with surroundings(ctx).api(api_url, api_key) as api:
            found = api.look("/v1/status").body
    except (Unreachable, ApiRefusal) as stop:
        if isinstance(stop, ApiRefusal) and stop.status != NOT_READY:
            raise
        return _without_answer(screen, stop)
    if json:
        screen.document(found)
    else:
        _show(screen, found)
    return _CODES[found["level"]]


def _without_answer(screen: Screen, stop: Stop) -> int:
    """The status if the API or its database does not answer."""
    reached = isinstance(stop, ApiRefusal)
    if screen.json:
        problem = {"title": stop.words, "advice": list(stop.advice)}
        screen.document({"level": "down", "api": reached, "problem": problem})
        return ExitCode.ERROR
    _headline(screen, "down")
    name = "Database" if reached else "API"
    _lines(screen, [_Line(_DOWN, name, " ".join((stop.words, *stop.advice)))])
    return ExitCode.ERROR


def _show(screen: Screen, found: JsonObject) -> None:
    _headline(screen, found["level"])
    now = datetime.fromisoformat(found["at"])
    _lines(screen, [*_parts(found, now), *_work(found, now), *_needy(found, now)])
    pairs = [(reason["code"], reason["remedy"]) for reason in found["waiting_for"]]
    pairs += [(each["trouble"], each["remedy"]) for each in found["connections"]]
    pressing = {reason["code"] for reason in found["waiting_for"] if reason["advice"] == "person"}
    pressing |= {each["trouble"] for each in found["connections"]}
    screen.remedies(pair for pair in pairs if pair[0] in pressing)


def _headline(screen: Screen, level: str) -> None:
    words, style = _HEADLINES[level]
    screen.say(words, style=style)
    screen.say()


def _parts(found: JsonObject, now: datetime) -> Iterator[_Line]:
    schema, workers = found["schema"], found["workers"]
    yield _Line(_OK if found["database"] else _DOWN, "Database", "answers")
    words = schema["at"] if schema["ok"] else f"{schema['at']}, needs {schema['wanted']}: `registrar migrate`"
    yield _Line(_OK if schema["ok"] else _DOWN, "Schema", words)
    redis = found["redis"]
    yield _Line(
        _OK if redis else _DOWN, "Redis", "answers" if redis else "does not answer: work waits for it"
    )
    seen = [worker["seen_at"] for worker in workers["items"]]
    if workers["ok"]:
        words = f"{number(workers['alive'])} alive, last heartbeat {_ago(seen[0], now)}"
    else:
        words = f"none is alive, the last was seen {_ago(seen[0], now)}" if seen else "none has been seen"
    yield _Line(_OK if workers["ok"] else _DOWN, "Workers", words)


def _work(found: JsonObject, now: datetime) -> Iterator[_Line]:
    if not found["work"]:
        yield _Line(_NOTE, "Work", "nothing is open")
    for work in found["work"]:
        words = f"{amount(work['devices'], 'device')} {_WORK[work['state']]}, the oldest for"
        yield _Line(_NOTE, "Work", f"{words} {_ago(work['oldest_at'], now, ago=False)}")
    for reason in found["waiting_for"]:
        mark = _ATTENTION if reason["advice"] == "person" else _NOTE
        since = f", for {_ago(reason['since'], now, ago=False)}" if reason["since"] else ""
        until = f", until {moment(reason['until'])}" if reason["until"] else ""
        words = f"{reason['title']} ({amount(reason['devices'], 'device')}{since}{until})"
        yield _Line(mark, "Waits for", words)
    for name, key, one, oldest in (
        ("Imports", "imports", "file", "oldest_due_at"),
        ("Webhooks", "deliveries", "delivery", "oldest_at"),
    ):
        if found[key]["waiting"]:
            many = "deliveries" if one == "delivery" else None
            words = f"{amount(found[key]['waiting'], one, many)} waiting, the oldest for"
            yield _Line(_NOTE, name, f"{words} {_ago(found[key][oldest], now, ago=False)}")


def _needy(found: JsonObject, now: datetime) -> Iterator[_Line]:
    """Connections and endpoints that need attention or were asked to wait."""
    lines = [_connection(each, now) for each in found["connections"]]
    if not lines and found["connections_total"]:
        yield _Line(
            _OK, "Connections", f"{amount(found['connections_total'], 'connection')}, none in trouble"
        )
    lines += [
        _Line(
            _ATTENTION,
            "Webhook",
            f"{each['host']} is {each['state']}, {amount(each['consecutive_failures'], 'failure')} in a row",
        )
        for each in found["webhooks"]
    ]
    lines += [_quota(each) for each in found.get("quotas", ())]  # the API of the previous release has none
    for each in found["stuck"]:
        since = _ago(each["due_at"], now, ago=False)
        words = f"{each['name']} is stuck in {each['state']} for {since} ({each['id']})"
        lines.append(_Line(_ATTENTION, each["kind"].capitalize(), words))
    yield from lines[:SHOWN]
    if len(lines) > SHOWN:
        yield _Line(_ATTENTION, "More", f"{number(len(lines) - SHOWN)} not shown: --json shows all")


def _quota(each: JsonObject) -> _Line:
    """A nearly full quota is a note; a full one that does not free itself needs attention."""
    name, used, limit = each["quota"], each["used"], each["limit"]
    full = used >= limit and name in _STANDING
    words = f"{name}: {number(used)} of {number(limit)} used"
    if full:
        words += "; remove what is not needed, or the operator raises it: `registrar partner quota`"
    return _Line(_ATTENTION if full else _NOTE, "Quota", words)


def _connection(each: JsonObject, now: datetime) -> _Line:
    said = []
    if each["trouble"]:
        said.append(f"{each['trouble']} for {_ago(each['trouble_since'], now, ago=False)}")
    if each["breaker"] == "open":
        said.append("Microsoft does not answer, the breaker is open")
    if each["blocked_until"]:
        said.append(f"no calls before {moment(each['blocked_until'])}")
    mark = _ATTENTION if each["trouble"] or each["breaker"] == "open" else _NOTE
    return _Line(mark, "Connection", f"{each['name']}: {'; '.join(said)}")


def _ago(text: str, now: datetime, *, ago: bool = True) -> str:
    """How long before `now`, in the largest useful unit."""
    seconds = max(int((now - datetime.fromisoformat(text)).total_seconds()), 0)
    for unit, one in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * unit:
            words = amount(seconds // unit, one)
            break
    else:
        words = amount(seconds, "second")
    return f"{words} ago" if ago else words


def _lines(screen: Screen, lines: Sequence[_Line]) -> None:
    """Prints marks and aligned names. Long words wrap on a terminal, and stay on one line elsewhere."""
    if not screen.console.is_terminal:
        width = max(len(line.name) for line in lines)
        for line in lines:
            screen.say(f"{line.mark:<4}  {line.name:<{width}}  {line.words}".rstrip())
        return
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        style = _STYLES[line.mark]
        grid.add_row(
            Text(line.mark, style=style), Text(plain(line.name), style="bold"), Text(plain(line.words))
        )
    screen.console.print(grid)
