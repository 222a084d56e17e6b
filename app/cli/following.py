"""Following orders to their end, live.

It asks as often as the API says, survives a restart of the API, and ends when every order is over or
only waits for the customer's consent. On a terminal it draws a bar for each state that occurs;
elsewhere it writes a line when something has changed.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from app.cli.api_client import Api, JsonObject, Unreachable
from app.cli.outcome import ExitCode, Stop, waits_for_a_person
from app.cli.screen import STATE_WORDS, Screen, amount, count_words, number
from app.domain.order import FINAL, OrderState

PAUSE_S: Final = 2.0
"""Seconds between looks when the API names none."""
PATIENCE_S: Final = 300.0
"""Seconds of silence after which following is given up: longer than a restart or an update."""


def watch(screen: Screen, api: Api, orders: Sequence[JsonObject]) -> list[JsonObject]:
    """Looks at the orders until each is over or held, and returns them as they are then."""
    current = {order["id"]: order for order in orders}
    try:
        return _follow(screen, api, current)
    except KeyboardInterrupt:
        ids = " ".join(id for id, order in current.items() if not _rests(order))
        raise Stop(
            "No longer watching; the order goes on.",
            *(f"`registrar watch {id}` follows it again." for id in ids.split()),
            code=ExitCode.INTERRUPTED,
        ) from None


def _follow(screen: Screen, api: Api, current: dict[str, JsonObject]) -> list[JsonObject]:
    with _Progress(screen) as progress:
        progress.show(current.values())
        while moving := [id for id, order in current.items() if not _rests(order)]:
            pause = 0.0
            for id in moving:
                current[id], asked = _look(screen, api, id)
                pause = max(pause, asked)
            progress.show(current.values())
            if not all(map(_rests, current.values())):
                api.sleep(pause)
    return list(current.values())


def _rests(order: JsonObject) -> bool:
    """Over, or nothing happens before somebody does something."""
    return order["state"] in FINAL or order["state"] == OrderState.HELD or waits_for_a_person(order)


def _look(screen: Screen, api: Api, order_id: str) -> tuple[JsonObject, float]:
    """The order, and seconds until the next look. A silent API is waited for, PATIENCE_S at most."""
    waited = 0.0
    while True:
        try:
            answer = api.get(f"/v1/orders/{order_id}")
            return answer.body, answer.retry_after or PAUSE_S
        except Unreachable:
            if waited >= PATIENCE_S:
                raise
            if not waited:
                screen.say("The API does not answer at the moment; the order goes on. Trying again ...")
            pause = min(2.0 + waited, 30.0)
            api.sleep(pause)
            waited += pause


class _Progress:
    """Shows the sum of the orders' counts."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.bars: dict[str, TaskID] = {}
        self.line = ""
        self.live = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[words]}", markup=False, justify="right"),
            console=screen.console,
            transient=True,
            disable=not screen.console.is_terminal,
        )

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
        """A state that once occurred keeps its bar, so that nothing jumps."""
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
