"""`registrar export`: outcomes of an order or a filter, as CSV or JSON Lines, whole or not at all."""

import csv
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx
import orjson
import pytest

from app.cli.export import COLUMNS
from app.cli.outcome import ExitCode
from app.domain.order import MAX_DEVICES
from app.domain.registration import RegistrationState
from tests.unit.cli_wire import CUSTOMER, Wire, problem, row_of
from tests.unit.test_cli_orders import add, in_parts

RESULT = "\ufeffrow,state\r\n1,registered\r\n".encode()


@pytest.fixture
def wire() -> Wire:
    return Wire(
        registrations=[
            row_of(RegistrationState.FAILED, model="=cmd()", order_id=str(UUID(int=100))),
            row_of(RegistrationState.REGISTERED, row=2, error_code=None, order_id=str(UUID(int=100))),
        ]
    )


def rows_of(text: bytes) -> list[list[str]]:
    return list(csv.reader(text.decode("utf-8-sig").splitlines()))


def test_an_order_is_exported_as_the_api_writes_its_result(wire: Wire, tmp_path: Path) -> None:
    id = add(wire, "PO-7")
    path = f"/v1/orders/{id}/result.csv"
    wire.first["GET", path] = [lambda _: httpx.Response(200, content=RESULT)] * 2
    assert wire.run("export", "PO-7").stdout_bytes == RESULT
    target = tmp_path / "result.csv"
    target.write_text("of yesterday")
    result = wire.run("export", "PO-7", "--out", str(target))
    assert result.exit_code == ExitCode.DONE, result.output
    assert target.read_bytes() == RESULT
    assert "2 devices written" in result.stdout
    assert list(tmp_path.iterdir()) == [target]


def test_a_filter_over_all_orders_is_exported_with_names_and_safe_cells(wire: Wire) -> None:
    add(wire, "PO-7")
    result = wire.run("export", "--state", "failed", "--customer", "contoso", "--since", "2026-11-01")
    assert result.exit_code == ExitCode.DONE, result.output
    header, row = rows_of(result.stdout_bytes)
    assert tuple(header) == COLUMNS
    told = dict(zip(header, row, strict=True))
    assert (told["order"], told["customer"], told["serial number"]) == ("PO-7", "Contoso", "SYN1")
    assert told["model"] == "'=cmd()"
    assert told["code"] == "assigned_to_other_tenant"
    params = next(r.url.params for r in wire.requests if r.url.path == "/v1/registrations")
    assert params["customer_id"] == CUSTOMER["id"]


def test_json_lines_are_the_apis_own_rows(wire: Wire, tmp_path: Path) -> None:
    add(wire, "PO-7")
    target = tmp_path / "devices.jsonl"
    wire.run("export", "PO-7", "--out", str(target))
    assert [orjson.loads(line) for line in target.read_bytes().splitlines()] == wire.registrations
    shown = wire.run("export", "--format", "jsonl", "--state", "registered").stdout_bytes
    assert [orjson.loads(line)["row"] for line in shown.splitlines()] == [2]


def test_an_order_in_parts_is_one_file_that_names_the_part(wire: Wire) -> None:
    in_parts(wire)
    found = rows_of(wire.run("export", "PO-7").stdout_bytes)
    assert len(found) == 1 + 3 * len(wire.registrations)
    asked = [r.url.path for r in wire.requests if r.url.path.endswith("/registrations")]
    assert len(asked) == 3
    assert wire.orders[str(UUID(int=100))]["counts"]["queued"] == MAX_DEVICES


def test_what_breaks_off_leaves_the_old_file(wire: Wire, tmp_path: Path) -> None:
    id = add(wire, "PO-7")
    target = tmp_path / "result.csv"
    target.write_text("of yesterday")

    def break_off(request: httpx.Request) -> httpx.Response:
        def pieces() -> Iterator[bytes]:
            yield RESULT
            raise httpx.RemoteProtocolError("peer closed", request=request)

        return httpx.Response(200, content=pieces())

    wire.first["GET", f"/v1/orders/{id}/result.csv"] = [break_off]
    assert wire.run("export", "PO-7", "--out", str(target)).exit_code == ExitCode.ERROR
    wire.first["GET", f"/v1/orders/{id}/result.csv"] = [lambda _: problem(500, "internal", "Wrong")]
    assert wire.run("export", "PO-7", "--out", str(target)).exit_code == ExitCode.ERROR
    assert target.read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_and_a_wrong_call_are_told(wire: Wire, tmp_path: Path) -> None:
    add(wire, "PO-7")
    result = wire.run("export", "PO-7", "--out", str(tmp_path / "none" / "x.csv"))
    assert (result.exit_code, "cannot be written" in result.stderr) == (ExitCode.ERROR, True)
    assert wire.run("export", "PO-7", "--customer", "contoso").exit_code == ExitCode.ERROR
    assert wire.run("export", "nothing").exit_code == ExitCode.ERROR
