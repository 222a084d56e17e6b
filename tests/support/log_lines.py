"""The log lines of this process while a test runs."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from app.kernel import telemetry

Lines = Callable[..., list[dict[str, Any]]]


@contextmanager
def log_lines() -> Iterator[Lines]:
    """Yields a function that returns the lines so far, or those of one event."""
    root = logging.getLogger()
    handlers, level, settings = list(root.handlers), root.level, structlog.get_config()
    written = io.StringIO()
    telemetry.configure(level="info", as_json=True, process="test")
    (handler,) = [h for h in root.handlers if type(h) is logging.StreamHandler]
    handler.setStream(written)

    def lines(event: str | None = None) -> list[dict[str, Any]]:
        every = [json.loads(line) for line in written.getvalue().splitlines()]
        return [line for line in every if event is None or line["event"] == event]

    try:
        yield lines
    finally:
        root.handlers = handlers
        root.setLevel(level)
        structlog.configure(**settings)
