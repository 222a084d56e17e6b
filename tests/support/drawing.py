"""The number of random inputs that tests draw: some in `make test`, all in `make drawn`."""

import os
from typing import Final

from hypothesis import HealthCheck, settings

ALL: Final = os.environ.get("DRAW") == "all"
USUAL: Final = 100
"""hypothesis's own number, for tests that say none."""


def examples(count: int) -> int:
    """The number for a test that draws `count` of them where time does not matter."""
    return count if ALL else max(count // 4, 2)


def load() -> None:
    """No input has to be judged in a given time: the machine may be busy. `make test` draws the same ones at
    each run, so that it tells of a change and not of luck."""
    settings.register_profile(
        "registrar",
        max_examples=examples(USUAL),
        deadline=None,
        derandomize=not ALL,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("registrar")
