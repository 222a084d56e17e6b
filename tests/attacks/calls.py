"""Calls: as many as the attacker's threads can make."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.attacks.attack import Attack, Target

LOOPS = 20


def in_loops(target: Target, method: str, path: str, loops: int = LOOPS) -> Counter[str]:
    """The same call again and again, in so many threads."""

    def loop(_: int) -> Counter[str]:
        answers: Counter[str] = Counter()
        with target.client() as client:
            while not target.over:
                try:
                    answers[str(client.request(method, path).status_code)] += 1
                except httpx.TransportError as error:
                    answers[type(error).__name__] += 1
        return answers

    with ThreadPoolExecutor(loops) as pool:
        return sum(pool.map(loop, range(loops)), Counter())


def _lists(target: Target) -> Counter[str]:
    return in_loops(target, "GET", "/v1/orders?page_size=1000")


ATTACKS = [Attack("lists", f"reads the longest page of orders in {LOOPS} loops", _lists)]
