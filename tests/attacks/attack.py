"""The definition of an attack and its target."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx

import tests.attacks as package


@dataclass(frozen=True, slots=True)
class Target:
    """What the attacker A has: the address of the service, and its own account there."""

    url: str
    key: str
    """With every scope."""
    connection_id: str
    customers: tuple[str, ...]
    seconds: float
    """How long the attack goes on; it is killed soon afterwards."""
    begun: float

    @property
    def over(self) -> bool:
        return time.monotonic() - self.begun >= self.seconds

    @property
    def host(self) -> str:
        return httpx.URL(self.url).host

    @property
    def port(self) -> int:
        port = httpx.URL(self.url).port
        assert port is not None
        return port

    def client(self, *, timeout: float = 30.0) -> httpx.Client:
        """A client with A's key; closed by its user."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=timeout,
            trust_env=False,
        )


Step = Callable[[httpx.Client, int], Iterable[str]]
"""One step of a loop, with the loop's client and the step's number: what it was answered, in words."""


def in_loops(target: Target, loops: int, step: Step, *, timeout: float = 30.0) -> Counter[str]:
    """Repeats the step in a number of threads until the time is over. Each loop has its own client and counts
    its steps from its own number."""

    def loop(first: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        with target.client(timeout=timeout) as client:
            for number in count(first):
                if target.over:
                    break
                try:
                    answers.update(step(client, number))
                except httpx.TransportError as error:
                    answers[type(error).__name__] += 1
        return answers

    with ThreadPoolExecutor(loops) as pool:
        return sum(pool.map(loop, range(loops)), Counter())


def status_of(client: httpx.Client, method: str, path: str, **given: Any) -> str:
    """The status of the answer, or how the call broke off."""
    try:
        return str(client.request(method, path, **given).status_code)
    except httpx.TransportError as error:
        return type(error).__name__


@dataclass(frozen=True, slots=True)
class Attack:
    name: str
    words: str
    """What A does, for the table: a clause without a subject ("sends ...")."""
    run: Callable[[Target], Counter[str]]
    """Attacks until `target.over`; gives back what it was answered, counted in words ("422", "cut off").

    Runs in a separate process with the lowest priority, so that the measurement is of the service and not of
    the attacker's own use of the processor. Must bound its memory and traffic.
    """


def attacks() -> dict[str, Attack]:
    """All attacks of this package, by name."""
    found: dict[str, Attack] = {}
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if module.name.endswith("__main__"):
            continue
        for attack in getattr(importlib.import_module(module.name), "ATTACKS", ()):
            assert attack.name not in found, attack.name
            found[attack.name] = attack
    return found
