"""Structured logs: constant event names, ids as fields, one correlation id through a unit of work.

Nothing sensitive may be passed in (no hash, token, secret or list of serial numbers). The last processor
drops fields with such names anyway, in case it happens.
"""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import structlog

from app.domain.characters import escaped

FORBIDDEN_FIELDS = frozenset(
    {
        "hardware_hash",
        "hash",
        "token",
        "access_token",
        "refresh_token",
        "client_secret",
        "secret",
        "authorization",
        "serial_number",
        "serial_numbers",
        "serials",
        "product_key",
        "password",
        "api_key",
        "headers",
        "parameters",
        "body",
    }
)
FORBIDDEN_ENDINGS = ("_secret", "_token", "_hash", "_password", "_key")


def configure(*, level: str, as_json: bool, process: str) -> None:
    """Sets up logging of the whole process, libraries included. `process` is on every line.

    `level` is DEBUG, INFO, WARNING or ERROR. `as_json` is for machines; otherwise lines are for people.
    """

    def name_process(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Not a context variable: a signal handler runs in whatever context was interrupted."""
        event.setdefault("process", process)
        return event

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        name_process,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _drop_forbidden,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, _name_server_lines],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([] if as_json else [_escape_values]),  # JSON has escapes of its own
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        # uvicorn has set up handlers of its own before it builds the application.
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    for name in ("httpx", "httpcore", "arq.worker", "uvicorn.access", "msal"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _name_server_lines(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Gives uvicorn's lines a constant event name, because its sentences vary."""
    if str(event.get("logger", "")).startswith("uvicorn"):
        event["message"], event["event"] = event["event"], "server"
    return event


def logger(name: str) -> structlog.stdlib.BoundLogger:
    return structlog.stdlib.get_logger(name)


def origin(error: BaseException) -> dict[str, str]:
    """Kind and place of an error, for the log; never its message, which may quote a device."""
    kind = type(getattr(error, "orig", None) or error)  # the driver's where the database raised it
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    where = " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    return {"error": kind.__name__, "where": where}


def _drop_forbidden(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        event[name] = "[removed]" if _is_forbidden(name) else _cleaned(value)
    return event


def _escape_values(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escapes callers' values, so that they cannot move a terminal's cursor or start a line of their own."""
    for name, value in event.items():
        event[name] = _indented(str(value)) if name in _OF_LINES else _escaped(value)
    return event


_OF_LINES = ("exception", "stack")


def _indented(text: str) -> str:
    """Keeps a traceback's lines, indented, so that none of them looks like a line of the log."""
    return "\n".join(f"  {line}" for line in escaped(text, keep="\n\t").split("\n"))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {_escaped(name): _escaped(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value if isinstance(value, int | float | None) else escaped(str(value))


def _is_forbidden(name: object) -> bool:
    plain = str(name).lower().replace("-", "_")
    return plain in FORBIDDEN_FIELDS or plain.endswith(FORBIDDEN_ENDINGS)


def _cleaned(value: Any) -> Any:
    """The value without the contents of forbidden names, at any depth."""
    if isinstance(value, dict):
        return {name: "[removed]" if _is_forbidden(name) else _cleaned(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return value
