"""Output on terminals of 80 and 60 columns: whole words, whole values, nothing cut."""

import io
import json
import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx
import pytest
from rich.cells import cell_len
from rich.console import Console
from typer.main import get_command

from app.cli import app, layout
from app.cli.outcome import Stop
from app.cli.screen import Screen, plain
from app.domain.registration import RegistrationState
from tests.unit.cli_wire import CONNECTION, CUSTOMER, ENDPOINT, NOW, Wire, counts, row_of
from tests.unit.pseudo_terminal import Shown, at_terminal
from tests.unit.test_cli_status import EARLIER, NEEDY

ORDER = str(UUID(int=100))
LONG_NAME = "Contoso Distribution and Logistics of the North"
LONG_DOMAIN = "devices.distribution.contoso-logistics.example"
DETAIL = "Microsoft refused the device because another organisation has registered it before."


def full_wire() -> Wire:
    """An installation in which everything has the long names that real ones have."""
    customer = {**CUSTOMER, "name": LONG_NAME, "domain": LONG_DOMAIN}
    wire = Wire(
        customers=[customer, {**customer, "id": str(UUID(int=2)), "name": "Fabrikam", "domain": None}],
        registrations=[
            row_of(
                RegistrationState.FAILED,
                serial_number="SYN-0123456789-ABCDEF",
                manufacturer="Contoso",
                model="Contoso Book 14 Gen 3",
                error_detail=DETAIL,
                line_ref="PO-2026-000471-17",
            )
        ],
        outcomes=({"state": "completed_with_errors", "counts": {"registered": 1, "failed": 1}},),
    )
    wire.connections = [
        CONNECTION,
        {
            **CONNECTION,
            "id": str(UUID(int=10)),
            "name": "Europe and Middle East",
            "trouble": {
                "code": "credential_refused",
                "said": "AADSTS7000222: The provided client secret keys for the app are expired.",
                "since": NOW,
                "remedy": "Give the connection a new client secret or refresh token.",
            },
        },
    ]
    wire.endpoints = [{**ENDPOINT, "event_types": ["order.completed", "order.completed_with_errors"]}]
    batch = {
        "id": str(UUID(int=300)),
        "order_id": ORDER,
        "group_tag": "Warehouse-North",
        "state": "queued",
        "counts": counts(queued=2),
        "submissions": 1,
        "created_at": NOW,
        "due_at": NOW,
        "settled_at": None,
        "waiting_for": [{"code": "x", "title": "Microsoft refuses the connection's credentials"}],
    }
    wire.batches = [batch, {**batch, "id": str(UUID(int=301)), "state": "settled", "settled_at": NOW}]
    file = {
        "name": "Warehouse-North-delivery-2026-11-28-1.csv",
        "group_tag": "Warehouse-North",
        "rows": 2,
        "state": "queued",
        "batch_id": str(UUID(int=300)),
        "steps": ["Open Partner Center, choose the customer, then Devices and Add devices.", "Upload."],
        "href": None,
    }
    wire.first["GET", f"/v1/orders/{ORDER}/portal-files"] = [
        lambda _: httpx.Response(200, json={"items": [file], "next_page_token": None})
    ]
    stuck = {"kind": "batch", "id": str(UUID(int=300)), "name": "Warehouse-North", "state": "submitting"}
    status = {**NEEDY, "stuck": [{**stuck, "due_at": EARLIER}], "webhooks": []}
    wire.first["GET", "/v1/status"] = [lambda _: httpx.Response(200, json=status)]
    wire.orders[ORDER] = {
        "id": ORDER,
        "reference": "delivery-2026-11-28-north-warehouse-0a1b2c3d4e",
        "purchase_order": "PO-2026-000471",
        "customer_id": CUSTOMER["id"],
        "platform": "partner_center",
        "group_tag": "Warehouse-North",
        "state": "in_progress",
        "counts": {},
        "created_at": NOW,
    }
    return wire


HINT = {"(--ids", "shows", "the", "ids,", "too.)"}

COMMANDS: Sequence[Sequence[str]] = [
    ("customer", "list"),
    ("list",),
    ("batches", ORDER),
    ("connection", "list"),
    ("connection", "show", "Europe and Middle East"),
    ("webhook", "list"),
    ("profile", "list"),
    ("status",),
    ("portal", "files", ORDER),
    ("submit", "tests/samples/no-such-folder/no-such-file-with-a-name.csv", "--customer", "Fabrikam"),
    ("consent", "Fabrikam"),
    ("order", ORDER),
    ("watch", ORDER),
    ("find", "SYN"),
    ("order", "no-such-reference-of-mine-that-is-a-little-longer"),
]


def show(arguments: Sequence[str], columns: int, *, told: bool = False) -> Shown:
    return at_terminal(full_wire(), *arguments, columns=columns, told=told)


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_line_is_longer_than_the_terminal_and_no_word_is_cut(
    arguments: Sequence[str], columns: int
) -> None:
    narrow, wide = show(arguments, columns), show(arguments, 1000)
    assert narrow.exit_code == wide.exit_code
    assert narrow.text.strip()
    assert [line for line in narrow.lines if cell_len(line) > columns] == []
    # What was cut would be a piece of a word, and the wide one has no such word.
    assert narrow.words - wide.words - HINT == set()


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    groups: list[tuple[tuple[str, ...], Any]] = [((), get_command(app))]
    while groups:
        names, group = groups.pop()
        for name, command in group.commands.items():
            found.append((*names, name))
            if hasattr(command, "commands"):
                groups.append(((*names, name), command))
    return found


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("arguments", every_command(), ids=" ".join)
def test_help_cuts_no_word_either(arguments: Sequence[str], columns: int) -> None:
    help = (*arguments, "--help")
    narrow, wide = show(help, columns, told=True), show(help, 1000, told=True)
    assert [line for line in narrow.lines if cell_len(line) > columns] == []
    assert pieces(narrow) - pieces(wide) - {"Options", "Arguments", "Commands", "default", "h"} == set()


def pieces(shown: Shown) -> set[str]:
    """Words without the punctuation that help texts set around them."""
    return {piece.rstrip(".:") for piece in re.findall(r"[A-Za-z0-9][A-Za-z0-9_/:.-]*", shown.text)}


@pytest.mark.parametrize("columns", [80, 60])
def test_names_and_domains_stay_whole_and_ids_are_shown_when_asked_for(columns: int) -> None:
    usual = show(("customer", "list"), columns)
    assert [line for line in usual.lines if LONG_NAME in line]
    assert [line for line in usual.lines if LONG_DOMAIN in line]
    assert CUSTOMER["id"] not in usual.text
    assert "--ids" in usual.text
    asked = show(("customer", "list", "--ids"), columns)
    assert [line for line in asked.lines if CUSTOMER["id"] in line]
    assert [line for line in asked.lines if CUSTOMER["entra_tenant_id"] in line]


@pytest.mark.parametrize("columns", [80, 60])
def test_what_was_found_names_the_order_as_its_owner_does(columns: int) -> None:
    found = show(("find", "SYN"), columns)
    for value in ("SYN-0123456789-ABCDEF", full_wire().orders[ORDER]["reference"], LONG_NAME):
        assert [line for line in found.lines if value in line], value
    assert ORDER not in found.text


def test_a_pipe_gets_every_row_on_one_line_with_its_full_ids() -> None:
    wire = full_wire()
    result = wire.run("customers", env_columns=None)
    row = next(line for line in result.stdout.splitlines() if LONG_NAME in line)
    assert CUSTOMER["id"] in row
    assert CUSTOMER["entra_tenant_id"] in row


def test_the_terminals_own_width_counts_and_not_that_of_another_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert Screen().width is None


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 8, ["one two", "three"]),
        ("  one two three", 8, ["  one", "  two", "  three"]),
        ("one 0123456789 two", 6, ["one", "0123456789", "two"]),
        ("use `a b c` now", 9, ["use", "`a b c`", "now"]),
        ("use `aaaa bbbb cccc` now", 9, ["use `aaaa", "bbbb", "cccc` now"]),
        ("ひらがな カタカナ", 10, ["ひらがな", "カタカナ"]),
        ("", 5, [""]),
        ("   ", 2, ["   "]),
    ],
)
def test_lines_end_between_words(text: str, width: int, lines: list[str]) -> None:
    assert layout.wrap(text, width) == lines


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (None, [f"{'Name':47}  Empty  Id", f"{LONG_NAME}         0123456789"]),
        (80, [f"{'Name':47}  Empty  Id", f"{LONG_NAME}         0123456789"]),
        (60, [f"{'Name':47}  Id", f"{LONG_NAME}  0123456789"]),
        (50, ["Name", LONG_NAME, "(--ids shows the ids, too.)"]),
    ],
)
def test_a_table_gives_up_what_it_can_spare_before_it_is_stacked(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int | None,
    lines: list[str],
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    screen = Screen()
    if columns is not None:
        screen.console = Console(width=columns, force_terminal=True, color_system=None, highlight=False)
    screen.table(("Name", "Empty", "Id"), [(LONG_NAME, "", "0123456789")], whole=("Name",), ids=("Id",))
    assert re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines() == lines


def test_prose_wraps_and_what_is_whole_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.console = Console(width=60, color_system=None, highlight=False)
    screen.table(("Row", "Serial", "Why"), [(1, "SYN-0123456789", DETAIL)], whole=("Serial",))
    assert capsys.readouterr().out.splitlines() == [
        "Row  Serial          Why",
        "  1  SYN-0123456789  Microsoft refused the device because",
        "                     another organisation has registered it",
        "                     before.",
    ]


def test_json_at_a_terminal_has_escapes_for_what_the_terminal_would_obey(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = {"name": "a\x1b[2J\x9b\u202e\u2028\x7fb", "plain": "Stra\u00dfe \u05d0\u05d1 \U0001f600"}
    Screen(json=True).document(hostile)
    out = capsys.readouterr().out
    assert json.loads(out) == hostile
    assert '"a\\u001b[2J\\u009b\\u202e\\u2028\\u007fb"' in out
    assert hostile["plain"] in out
    assert len(out.splitlines()) == 4


def test_words_and_tables_at_a_terminal_show_no_character_that_it_would_obey(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = "a\x1b[2J\x9b\u202e\u2028\nb"
    screen = Screen()
    screen.console = Console(width=60, color_system=None, highlight=False)
    screen.say(hostile)
    screen.verbatim(hostile)
    screen.facts([("Name", hostile)])
    screen.table(("Name",), [(hostile,)])
    screen.stop(Stop(hostile))
    told = capsys.readouterr()
    assert not set("\x1b\x9b\u202e\u2028") & set(told.out + told.err)
    assert told.out.count("a\ufffd[2J\ufffd\ufffd\ufffd b") == 4


def test_joiners_stay_and_what_deceives_a_terminal_goes() -> None:
    name = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f680"
    assert plain(f"{name}\x1b[31m\u202e") == f"{name}\ufffd[31m\ufffd"
