"""Log lines: JSON a machine can read, one correlation id through a unit of work, and nothing forbidden."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from app.kernel import telemetry
from app.kernel.telemetry import FORBIDDEN_FIELDS

QUIET = ("httpx", "httpcore", "arq.worker", "uvicorn.access", "msal")
SERVER = ("uvicorn", "uvicorn.error")
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """Logging is the process's: leave it as the other tests know it."""
    root = logging.getLogger()
    handlers, level, settings = list(root.handlers), root.level, structlog.get_config()
    levels = {name: logging.getLogger(name).level for name in (*QUIET, *SERVER)}
    for name in SERVER:
        logging.getLogger(name).setLevel(logging.NOTSET)  # whatever server ran before in this process
    yield
    for name, usual in levels.items():
        logging.getLogger(name).setLevel(usual)
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**settings)
    structlog.contextvars.clear_contextvars()


def write_to(stream: io.StringIO) -> None:
    """Has the handler just configured write there: pytest exchanges sys.stderr between phases."""
    (handler,) = [h for h in logging.getLogger().handlers if type(h) is logging.StreamHandler]
    handler.setStream(stream)


@pytest.fixture
def lines() -> Lines:
    written = io.StringIO()
    telemetry.configure(level="info", as_json=True, process="worker")
    write_to(written)
    return lambda: [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_is_json_with_event_time_level_logger_and_process(lines: Lines) -> None:
    telemetry.logger("batches").info("batch_settled", rows=3)
    (line,) = lines()
    expected = {"event": "batch_settled", "rows": 3, "level": "info", "logger": "batches"}
    assert {name: line[name] for name in expected} == expected
    assert line["process"] == "worker"
    assert line["timestamp"].endswith("Z")


def test_what_is_no_json_and_what_breaks_lines_stays_one_line_of_json(lines: Lines) -> None:
    telemetry.logger("x").info("odd", id=object(), text='one\n{"event": "forged"}\r\n', data=b"\xff")
    (line,) = lines()
    assert line["event"] == "odd"
    assert line["text"] == 'one\n{"event": "forged"}\r\n'


def test_libraries_write_the_same_lines(lines: Lines) -> None:
    structlog.contextvars.bind_contextvars(correlation_id="abc")
    logging.getLogger("sqlalchemy.pool").warning("lost %s of %d", "one", 3)
    (line,) = lines()
    assert (line["event"], line["correlation_id"], line["level"]) == ("lost one of 3", "abc", "warning")


def test_the_correlation_id_is_on_every_line_of_its_work_and_on_no_other(lines: Lines) -> None:
    log = telemetry.logger("x")
    with structlog.contextvars.bound_contextvars(correlation_id="c-1"):
        log.info("inside")
        telemetry.logger("y").warning("inside too")
    log.info("outside")
    assert [line.get("correlation_id") for line in lines()] == ["c-1", "c-1", None]


@pytest.mark.parametrize(
    "name",
    [*sorted(FORBIDDEN_FIELDS), "Authorization", "webhook_secret", "old_token", "device-hash", "API_KEY"],
)
def test_a_forbidden_field_is_removed_wherever_it_is(lines: Lines, name: str) -> None:
    value = "the-very-secret"
    log = telemetry.logger("x").bind(**{name: value})
    log.info("top")
    telemetry.logger("x").info("deep", found={"of": [{name: value, "id": 7}]}, also=({name: value},))
    with structlog.contextvars.bound_contextvars(**{name: value}):
        telemetry.logger("x").info("context")
    top, deep, context = lines()
    assert value not in json.dumps([top, deep, context])
    assert top[name] == context[name] == "[removed]"
    assert deep["found"]["of"][0] == {name: "[removed]", "id": 7}


def test_harmless_fields_are_left_alone(lines: Lines) -> None:
    telemetry.logger("x").info("counted", hashes=3, tokens=2, idempotency_keys=1, rows=[1, 2], code="a_b")
    (line,) = lines()
    assert (line["hashes"], line["tokens"], line["idempotency_keys"]) == (3, 2, 1)
    assert (line["rows"], line["code"]) == ([1, 2], "a_b")


def test_an_exception_is_one_field_of_the_line(lines: Lines) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        telemetry.logger("x").exception("failed")
    (line,) = lines()
    assert line["exception"].endswith("ValueError: broken")


def test_the_level_is_kept_and_chatty_libraries_are_quiet(lines: Lines) -> None:
    telemetry.logger("x").debug("too much")
    for name in QUIET:
        logging.getLogger(name).info("POST https://hooks.example.com/with-a-token-in-it")
    assert lines() == []


def test_text_for_people_forgets_the_same_fields() -> None:
    written = io.StringIO()
    telemetry.configure(level="INFO", as_json=False, process="api")
    write_to(written)
    telemetry.logger("x").info("hello", client_secret="the-very-secret", rows=3)
    said = written.getvalue()
    assert "hello" in said
    assert "rows=3" in said
    assert "the-very-secret" not in said


def test_a_line_for_people_neither_moves_the_cursor_nor_begins_another_line() -> None:
    written = io.StringIO()
    telemetry.configure(level="info", as_json=False, process="api")
    write_to(written)
    hostile = "x\x1b[2J\x9b\u202e\nforged\u2028line\r"
    try:
        raise ValueError(hostile)
    except ValueError:
        telemetry.logger("x").exception(
            "odd", path=hostile, deep={hostile: [hostile]}, where=Exception(hostile)
        )
    logging.getLogger("uvicorn.error").error("lost %s", hostile)
    text = written.getvalue()
    assert "\\u001b[2J\\u009b\\u202e\\u000aforged\\u2028line\\u000d" in text
    lines = text.split("\n")
    assert [line for line in lines if line.startswith("forged")] == []
    assert "  forged\\u2028line\\u000d" in lines  # the traceback's
    assert not any(character in text for character in "\x9b\u202e\u2028\r")
    assert "\x1b[2J" not in text
    assert sum("forged" in line for line in lines) == 3
