"""Follows orders to their end, live.

It asks as often as the API says and survives a restart of the API. It ends when every order is over or waits
only for the customer's consent, or after `--timeout`. On a terminal it draws a bar for each state that
occurs; elsewhere it writes a line when something has changed. It says what holds the orders when that begins,
and again from time to time.
"""

import re
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from app.cli.api_client import Api, JsonObject, Unreachable
from app.cli.outcome import ExitCode, Stop, waits_for_a_person
from app.cli.screen import STATE_WORDS, Screen, amount, count_words, number
from app.cli.waiting import reasons_of, show_reasons
from app.domain.hold import HOLDS, HoldReason
from app.domain.order import FINAL, OrderState

PAUSE_S: Final = 2.0
"""Seconds between looks when the API names none."""
PATIENCE_S: Final = 300.0
"""Seconds without an answer after which it ends: longer than a restart or an upgrade takes."""
REMINDER_S: Final = 300.0
"""Seconds after which the reasons that hold the orders are repeated."""
SAID_AT_THE_END: Final = HOLDS[HoldReason.CONSENT].codes | HOLDS[HoldReason.PORTAL].codes
"""Reasons that end it. The final output says more about them."""


def seconds(text: str) -> float:
    """`90`, `90s`, `10m`, `1h30m` as seconds."""
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(rf"{number}|(?:{number}h)?(?:{number}m)?(?:{number}s)?", text)
    if not text or found is None:
        raise typer.BadParameter("Write a number of seconds, or a duration like 90s, 10m or 1h30m.")
    plain, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return plain + 3600 * hours + 60 * minutes + rest


Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        parser=seconds,
        metavar="DURATION",
        show_default=False,
        help="Stop following after this time (seconds, or 90s, 10m, 1h30m) and end with 5. Default: never.",
    ),
]


def watch(
    screen: Screen, api: Api, orders: Sequence[JsonObject], *, timeout: float | None = None
) -> list[JsonObject]:
    """Watches the orders until each is over or held, at most `timeout` seconds, and returns their last
    state."""
    current = {order["id"]: order for order in orders}
    try:
        return _follow(screen, api, current, timeout)
    except KeyboardInterrupt:
        ids = " ".join(id for id, order in current.items() if not _rests(order))
        raise Stop(
            "No longer watching; the order goes on.",
            *(f"`registrar watch {id}` follows it again." for id in ids.split()),
            code=ExitCode.INTERRUPTED,
        ) from None


def _follow(
    screen: Screen, api: Api, current: dict[str, JsonObject], timeout: float | None
) -> list[JsonObject]:
    waited = 0.0
    holds = _Holds(screen)
    with _Progress(screen) as progress:
        progress.show(current.values())
        holds.show(current.values(), waited)
        while moving := [id for id, order in current.items() if not _rests(order)]:
            began, pause = time.monotonic(), 0.0
            for id in moving:
                patience = PATIENCE_S if timeout is None else min(PATIENCE_S, timeout - waited)
                current[id], asked = look(screen, api, f"/v1/orders/{id}", patience)
                pause = max(pause, asked)
            waited += time.monotonic() - began
            progress.show(current.values())
            holds.show(current.values(), waited)
            if all(map(_rests, current.values())):
                break
            if timeout is not None and waited >= timeout:
                break
            pause = pause if timeout is None else min(pause, timeout - waited)
            api.sleep(pause)
            waited += pause
    if not all(map(_rests, current.values())):
        _give_up(screen, current, waited)
    return list(current.values())


def _give_up(screen: Screen, current: dict[str, JsonObject], waited: float) -> None:
    open_orders = [order for order in current.values() if not _rests(order)]
    screen.say()
    screen.say(f"Not over after {_duration(waited)}; the order goes on.", style="bold")
    show_reasons(screen, reasons_of(open_orders))
    screen.say()
    for order in open_orders:
        screen.say(f"`registrar watch {order['id']}` follows it again.")


def _duration(waited: float) -> str:
    minutes, rest = divmod(round(waited), 60)
    if not minutes:
        return amount(rest, "second")
    return amount(minutes, "minute") if not rest else f"{amount(minutes, 'minute')} {amount(rest, 'second')}"


class _Holds:
    """Prints what holds the orders when it changes, and again after each REMINDER_S."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.said: tuple[str, ...] = ()
        self.said_at = 0.0

    def show(self, orders: Collection[JsonObject], waited: float) -> None:
        reasons = [each for each in reasons_of(orders) if each["code"] not in SAID_AT_THE_END]
        pressing = [each for each in reasons if each["advice"] != "none"]
        codes = tuple(each["code"] for each in pressing)
        if codes != self.said:
            if not codes:
                self.screen.say("Nothing holds the order any more; it goes on.")
            show_reasons(self.screen, pressing)
            self.said, self.said_at = codes, waited
        elif waited - self.said_at >= REMINDER_S and not all(map(_rests, orders)):
            self.screen.say()
            self.screen.say(f"Still waiting after {_duration(waited)}.")
            show_reasons(self.screen, reasons)
            self.said_at = waited


def _rests(order: JsonObject) -> bool:
    """Whether it is over, or waits for somebody to act."""
    return order["state"] in FINAL or order["state"] == OrderState.HELD or waits_for_a_person(order)


def look(screen: Screen, api: Api, path: str, patience: float = PATIENCE_S) -> tuple[JsonObject, float]:
    """The answer, and seconds until the next look. Waits for an API that does not answer, at most `patience`
    seconds."""
    waited = 0.0
    while True:
        try:
            answer = api.get(path)
            return answer.body, answer.retry_after or PAUSE_S
        except Unreachable:
            if waited >= patience:
                raise
            if not waited:
                screen.say("The API does not answer at the moment; the work goes on. Trying again ...")
            pause = min(2.0 + waited, 30.0)
            api.sleep(pause)
            waited += pause


def bars(screen: Screen) -> Progress:
    """Live bars with words beside them; shown on terminals only."""
    return Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[words]}", markup=False, justify="right"),
        console=screen.console,
        transient=True,
        disable=not screen.console.is_terminal,
    )


class _Progress:
    """Shows the sum of the orders' counts."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.bars: dict[str, TaskID] = {}
        self.line = ""
        self.live = bars(screen)

    def __enter__(self) -> "_Progress":
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def show(self, orders: Collection[JsonObject]) -> None:
        counts: Counter[str] = Counter()
        for order in orders:
            counts.update(order["counts"])
        total = counts.pop("total")
        if self.screen.console.is_terminal:
            self._draw(counts, total)
        else:
            self._write(counts, total)

    def _draw(self, counts: Counter[str], total: int) -> None:
        """A state that has occurred keeps its bar, so that the others do not move."""
        for state, words in STATE_WORDS.items():
            if counts[state] and state not in self.bars:
                self.bars[state] = self.live.add_task(words, total=total, words="")
            if state in self.bars:
                shown = f"{number(counts[state])} of {number(total)}"
                self.live.update(self.bars[state], completed=counts[state], words=shown)

    def _write(self, counts: Counter[str], total: int) -> None:
        line = ", ".join(f"{number(count)} {words}" for words, count in count_words(counts))
        if line != self.line:
            self.line = line
            self.screen.say(f"{amount(total, 'device')}: {line}")
