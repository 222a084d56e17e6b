"""Rows left out and guesses are reported before a file is sent, asked about at a terminal, and no success."""

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.cli.outcome import ExitCode
from app.domain.catalogue import CATALOGUE, Severity
from app.domain.registration import RegistrationState
from app.intake.table import GUESSES, OMISSIONS
from tests.support.workbooks import sheet, workbook
from tests.unit.cli_wire import DEVICES, Wire, row_of

HEADER = ("Serial Number", "Manufacturer", "Model")
SURE = "Serial Number,Manufacturer,Model\nSYN1,Contoso,Book\nSYN2,Contoso,Book\n"


@pytest.fixture
def wire() -> Wire:
    return Wire()


def written(tmp_path: Path, name: str, content: str | bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def submit(wire: Wire, file: str, *more: str, **extra: Any) -> Any:
    return wire.run("submit", file, "--customer", "contoso", *more, **extra)


def hidden(tmp_path: Path) -> str:
    rows = [HEADER, *((f"SYN{n}", "Contoso", "Book") for n in range(1, 5))]
    text = sheet(rows).replace('<row r="4">', '<row r="4" hidden="1">')
    data = workbook({"A": []}, shared=False, parts={"xl/worksheets/sheet1.xml": text})
    return written(tmp_path, "hidden.xlsx", data)


def two_sheets(tmp_path: Path) -> str:
    table = [HEADER, ("SYN1", "Contoso", "Book"), ("SYN2", "Contoso", "Book")]
    return written(tmp_path, "two.xlsx", workbook({"Berlin": table, "Hamburg": table}))


FILES = {
    "columns": (SURE.replace("Model", "Model,Colour"), "1 column not used: 'Colour'."),
    "guessed columns": ("SYN1,HP,Book\nSYN2,HP,Book\n", "its columns were told by their content"),
}


@pytest.mark.parametrize("kind", FILES)
def test_at_a_terminal_a_doubt_is_said_and_asked_about(wire: Wire, tmp_path: Path, kind: str) -> None:
    content, words = FILES[kind]
    file = written(tmp_path, "devices.csv", content)
    result = submit(wire, file, answer=False)
    assert result.exit_code == ExitCode.REFUSED
    assert wire.questions == ["Send 2 devices for Contoso?"]
    assert words in result.stdout
    assert "Nothing was sent." in result.stderr
    assert [order["validate_only"] for order in wire.sent()] == [True]
    result = submit(wire, file, answer=True)
    assert result.exit_code == ExitCode.DONE
    assert [order["validate_only"] for order in wire.sent()] == [True, True, False]


@pytest.mark.parametrize(
    ("code", "title"),
    [
        ("registered_for_other_customer", "Another customer of yours has this device registered"),
        ("duplicate_open_elsewhere", "An open order already has this device"),
    ],
)
def test_devices_that_others_have_are_said_before_they_are_sent(
    wire: Wire, tmp_path: Path, code: str, title: str
) -> None:
    finding = {"code": code, "severity": "warning", "field": "", "detail": "See PO-1.", "remedy": "Look."}
    wire.remarks = {1: finding, 2: finding}
    file = written(tmp_path, "devices.csv", DEVICES)
    result = submit(wire, file, answer=False)
    assert result.exit_code == ExitCode.REFUSED
    assert f"2 devices: {title}. For example: See PO-1." in result.stdout
    assert len(wire.questions) == 1


def test_a_file_without_a_doubt_is_sent_without_a_question(wire: Wire, tmp_path: Path) -> None:
    result = submit(wire, written(tmp_path, "devices.csv", SURE), answer=False)
    assert (result.exit_code, wire.questions) == (ExitCode.DONE, [])
    assert "Before it is sent" not in result.stdout


@pytest.mark.parametrize("flags", [["--yes"], ["-y"]])
def test_with_yes_nothing_is_asked(wire: Wire, tmp_path: Path, flags: list[str]) -> None:
    result = submit(wire, written(tmp_path, "devices.csv", FILES["columns"][0]), *flags, answer=False)
    assert (result.exit_code, wire.questions) == (ExitCode.DONE, [])
    assert "1 column not used: 'Colour'." in result.stdout


def test_in_a_pipe_nothing_is_asked_and_all_is_said(wire: Wire, tmp_path: Path) -> None:
    result = submit(wire, written(tmp_path, "devices.csv", FILES["columns"][0]))
    assert result.exit_code == ExitCode.DONE
    assert "1 column not used: 'Colour'." in result.stdout
    assert [order["validate_only"] for order in wire.sent()] == [False]


def test_invalid_and_unreadable_rows_are_said_to_be_left_out_before_the_order(
    wire: Wire, tmp_path: Path
) -> None:
    wire.invalid_rows = {2: "The model is missing."}
    wire.outcomes = ({"state": "completed_with_errors", "counts": {"registered": 1, "invalid": 1}},)
    file = written(tmp_path, "devices.csv", SURE + '"SYN3,Contoso,Book\n')
    result = submit(wire, file, "--skip-unreadable", answer=True)
    assert result.exit_code == ExitCode.PARTIAL
    assert "1 row left out: not readable." in result.stdout
    assert "1 device left out: invalid." in result.stdout
    assert wire.questions == ["Send 1 device for Contoso?"]
    assert result.stdout.count("The model is missing.") == 1


def test_a_row_is_named_by_its_line_and_its_number_in_the_file(wire: Wire, tmp_path: Path) -> None:
    wire.invalid_rows = {2: "The model is missing."}
    content = (
        'Title\n\nSerial Number,Manufacturer,Model\n"SYN0,Contoso,Book\nSYN1,Contoso,Book\nSYN2,Contoso,\n'
    )
    file = written(tmp_path, "devices.csv", content)
    result = submit(wire, file, "--skip-unreadable", "--validate-only")
    assert re.search(r"Line +Row +Field", result.stdout)
    assert re.search(r"^ +6 +3 +model +The model is missing", result.stdout, re.MULTILINE), result.stdout
    result = wire.run("validate", file)
    assert re.search(r"Line +Row +Value", result.stdout)


# --- what is not read -----------------------------------------------------------------------------


def test_hidden_rows_are_said_and_the_command_does_not_end_in_success(wire: Wire, tmp_path: Path) -> None:
    wire.outcomes = ({"state": "completed", "counts": {"registered": 3}},)
    file = hidden(tmp_path)
    for arguments in (["validate", file], ["submit", file, "--customer", "contoso", "--validate-only"]):
        result = wire.run(*arguments)
        assert result.exit_code == ExitCode.PARTIAL, arguments
        assert "1 row is hidden" in result.stdout
        assert wire.run(*arguments, "--include-hidden").exit_code == ExitCode.DONE
        assert wire.run(*arguments, "--skip-hidden").exit_code == ExitCode.DONE
    result = submit(wire, file)
    assert result.exit_code == ExitCode.PARTIAL
    assert [d["serial_number"] for d in wire.sent()[-1]["devices"]] == ["SYN1", "SYN2", "SYN4"]
    assert submit(wire, file, answer=False).exit_code == ExitCode.REFUSED
    assert len(wire.questions) == 1
    assert submit(wire, file, "--skip-hidden", answer=False).exit_code == ExitCode.DONE
    assert len(wire.questions) == 1


def test_a_sheet_with_devices_that_is_not_read_is_no_success_unless_one_is_chosen(
    wire: Wire, tmp_path: Path
) -> None:
    file = two_sheets(tmp_path)
    result = wire.run("validate", file)
    assert result.exit_code == ExitCode.PARTIAL
    assert "Not read: 'Hamburg' (2 rows look like devices)" in result.stdout
    assert submit(wire, file).exit_code == ExitCode.PARTIAL
    result = wire.run("validate", file, "--sheet", "hamburg")
    assert result.exit_code == ExitCode.DONE
    assert submit(wire, file, "--sheet", "Hamburg").exit_code == ExitCode.DONE
    result = wire.run("validate", file, "--sheet", "Bremen")
    assert result.exit_code == ExitCode.ERROR
    assert "It has 'Berlin', 'Hamburg'." in result.stderr


def test_programs_are_told_the_same(wire: Wire, tmp_path: Path) -> None:
    told = submit(wire, two_sheets(tmp_path), "--json", "--validate-only")
    document = orjson.loads(told.stdout)
    assert document["exit_code"] == ExitCode.PARTIAL
    assert document["file"]["sheet"] == "Berlin"
    assert [notice["code"] for notice in document["file"]["notices"]] == ["sheets_with_devices"]


def test_what_is_doubtful_is_a_warning_of_the_catalogue() -> None:
    assert {CATALOGUE[code].severity for code in GUESSES | OMISSIONS} == {Severity.WARNING}


def test_a_device_that_failed_is_named_by_its_line_and_row_in_the_file(wire: Wire, tmp_path: Path) -> None:
    wire.outcomes = ({"state": "completed_with_errors", "counts": {"registered": 1, "conflict": 1}},)
    wire.registrations = [row_of(RegistrationState.CONFLICT, row=2, line_ref="3", serial_number="SYN2")]
    rows = '"SYN0,Contoso,Book\nSYN1,Contoso,Book\nSYN2,Contoso,Book\n'
    content = f"Title\n\nSerial Number,Manufacturer,Model\n{rows}"
    file = written(tmp_path, "devices.csv", content)
    result = submit(wire, file, "--skip-unreadable")
    assert re.search(r"^ *Line +Row +Device", result.stdout, re.MULTILINE), result.stdout
    assert re.search(r"^ *6 +3 +SYN2 ", result.stdout, re.MULTILINE), result.stdout
