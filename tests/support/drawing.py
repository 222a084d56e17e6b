"""The number of random inputs in tests: some in `make test`, all in `make drawn`."""

import os
from typing import Final

from hypothesis import HealthCheck, settings

ALL: Final = os.environ.get("DRAW") == "all"
USUAL: Final = 100
"""hypothesis's default, for tests that name no number."""


def examples(count: int) -> int:
    """The number for a test that draws `count` of them in `make drawn`."""
    return count if ALL else max(count // 4, 2)


def load() -> None:
    """No input has a time limit, because the machine may be busy. `make test` draws the same ones at each
    run, so that a failure points to a change and not to chance."""
    settings.register_profile(
        "registrar",
        max_examples=examples(USUAL),
        deadline=None,
        derandomize=not ALL,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("registrar")
