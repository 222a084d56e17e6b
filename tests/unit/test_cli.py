"""`registrar submit` over a wire that is a function: what is sent, what a person reads, how it ends."""

import re
from pathlib import Path
from uuid import UUID

import httpx
import orjson
import pytest

from app.cli.device_file import LONGEST, default_reference, open_file
from app.cli.outcome import ExitCode
from app.domain.order import MAX_DEVICES
from app.domain.registration import RegistrationState
from tests.unit.cli_wire import CUSTOMER, DEVICES, OTHER, Wire, problem, row_of

SAMPLES = Path(__file__).parents[1] / "samples"


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    path = tmp_path / "delivery 7.csv"
    path.write_text(DEVICES)
    return path


# --- submitting -----------------------------------------------------------------------------------


def test_a_file_is_described_sent_and_followed_to_its_end(wire: Wire, devices: Path) -> None:
    wire.outcomes = (
        {"state": "in_progress", "counts": {"processing": 2}},
        {"state": "in_progress", "counts": {"processing": 1, "registered": 1}},
        {"state": "completed", "counts": {"registered": 2}},
    )
    result = wire.run("submit", str(devices), "--customer", "contoso", "--group-tag", "Desk")
    assert result.exit_code == ExitCode.DONE, result.output
    (order,) = wire.sent()
    assert order == {
        "customer_id": CUSTOMER["id"],
        "purchase_order": None,
        "group_tag": "Desk",
        "on_invalid": "accept_valid",
        "validate_only": False,
        "reference": default_reference(open_file(str(devices))),
        "devices": [
            {"serial_number": "SYN1", "manufacturer": "Contoso", "model": "Book 14", "line_ref": "1"},
            {"serial_number": "SYN2", "manufacturer": "Contoso", "model": "Book 14", "line_ref": "2"},
        ],
    }
    assert "text separated by semicolons, UTF-8, header in line 1" in result.stdout
    assert re.search(r"Not used +Colour", result.stdout)
    assert "2 devices: 1 registered, 1 being registered" in result.stdout
    assert "completed, every device is registered" in result.stdout
    assert wire.pauses == [3.0, 3.0], "the API's Retry-After is the pause"


def test_a_pipe_gets_neither_colours_nor_trailing_blanks(wire: Wire, devices: Path) -> None:
    result = wire.run("submit", str(devices), "--customer", "contoso")
    assert "\x1b" not in result.output
    assert all(line == line.rstrip() for line in result.output.splitlines())


def test_the_same_file_twice_is_the_same_request_with_the_same_key(wire: Wire, devices: Path) -> None:
    for _ in range(2):
        wire.run("submit", str(devices), "--customer", "contoso", "--no-watch")
    first, second = (r for r in wire.requests if r.method == "POST")
    assert first.content == second.content
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    wire.run("submit", str(devices), "--customer", "contoso", "--no-watch", "--group-tag", "Other")
    third = wire.requests[-1]
    assert third.headers["Idempotency-Key"] != first.headers["Idempotency-Key"]


def test_a_replayed_order_is_told_apart_and_shown_as_it_is_now(wire: Wire, devices: Path) -> None:
    wire.run("submit", str(devices), "--customer", "contoso", "--no-watch")
    taken = wire.take(wire.requests[-1])
    wire.first["POST", "/v1/orders"] = [
        lambda _: httpx.Response(
            201,
            json={**orjson.loads(taken.content), "id": str(UUID(int=100))},
            headers={"Idempotency-Replayed": "true"},
        )
    ]
    result = wire.run("submit", str(devices), "--customer", "contoso")
    assert "was accepted before; nothing is sent twice" in result.stdout
    assert result.exit_code == ExitCode.DONE


def test_invalid_devices_are_named_by_their_line_in_the_file(wire: Wire, devices: Path) -> None:
    wire.invalid_rows = {2: "Missing: model."}
    wire.outcomes = ({"state": "completed_with_errors", "counts": {"registered": 1, "invalid": 1}},)
    result = wire.run("submit", str(devices), "--customer", "contoso")
    assert result.exit_code == ExitCode.PARTIAL
    assert re.search(r"^ +4 +2 +model +Missing: model\.$", result.stdout, re.MULTILINE), result.stdout
    assert "Name the model." in result.stdout


def test_failed_devices_come_with_microsofts_words_and_the_next_step(wire: Wire, devices: Path) -> None:
    wire.outcomes = ({"state": "completed_with_errors", "counts": {"registered": 1, "conflict": 1}},)
    wire.registrations = [row_of(RegistrationState.CONFLICT)]
    result = wire.run("submit", str(devices), "--customer", "contoso")
    assert result.exit_code == ExitCode.PARTIAL
    assert "808 ZtdDeviceAssignedToOtherTenant" in result.stdout
    assert "Then use `registrar retry`." in result.stdout
    assert f"registrar retry {UUID(int=100)}" in result.stdout


def test_waiting_for_consent_has_its_own_code_and_leads_to_the_link(wire: Wire, devices: Path) -> None:
    wire.outcomes = ({"state": "held", "counts": {"held": 2}},)
    result = wire.run("submit", str(devices), "--customer", "contoso")
    assert result.exit_code == ExitCode.WAITING
    assert "2 devices will be sent automatically as soon as Contoso consents." in result.stdout
    assert "`registrar consent Contoso --link`" in result.stdout


def test_an_order_without_a_valid_device_counts_as_refused(wire: Wire, devices: Path) -> None:
    wire.invalid_rows = {1: "Missing: model.", 2: "Missing: model."}
    wire.outcomes = ({"state": "failed", "counts": {"invalid": 2}},)
    assert wire.run("submit", str(devices), "--customer", "contoso").exit_code == ExitCode.REFUSED


def test_reject_invalid_shows_the_refused_lines(wire: Wire, devices: Path) -> None:
    errors = [
        {"pointer": "/devices/1/model", "code": "incomplete_tuple", "detail": "Missing: model.", "row": 2}
    ]
    refusal = problem(422, "order_rejected", "Rejected", detail="1 of 2 rows is invalid.", errors=errors)
    wire.first["POST", "/v1/orders"] = [lambda _: refusal]
    result = wire.run("submit", str(devices), "--customer", "contoso", "--reject-invalid")
    assert result.exit_code == ExitCode.REFUSED
    assert wire.sent()[0]["on_invalid"] == "reject"
    assert re.search(r"^ +4 +2 .*Missing: model\.$", result.stderr, re.MULTILINE), result.stderr


def test_a_taken_reference_leads_to_the_order_there_is(wire: Wire, devices: Path) -> None:
    refusal = problem(409, "reference_taken", "Taken", links={"order_id": str(UUID(int=5))})
    wire.first["POST", "/v1/orders"] = [lambda _: refusal]
    result = wire.run("submit", str(devices), "--customer", "contoso", "--reference", "PO-7")
    assert result.exit_code == ExitCode.REFUSED
    assert f"registrar watch {UUID(int=5)}" in result.stderr
    assert "--reference" in result.stderr


def test_a_dry_run_stores_nothing_and_needs_no_key_of_its_own(wire: Wire, devices: Path) -> None:
    wire.invalid_rows = {1: "Missing: model."}
    result = wire.run("submit", str(devices), "--customer", "contoso", "--validate-only")
    assert result.exit_code == ExitCode.PARTIAL
    assert wire.sent()[0]["validate_only"] is True
    assert "Idempotency-Key" not in wire.requests[-1].headers
    assert "nothing was sent" in result.stdout
    assert not wire.orders


def test_lines_that_can_not_be_read_stop_everything_or_are_skipped(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_text('Serial Number,Manufacturer,Model\nSYN1,Contoso,Book 14\n"SYN2,Contoso,Book 14\n')
    refused = wire.run("submit", str(path), "--customer", "contoso")
    assert refused.exit_code == ExitCode.REFUSED
    assert not wire.sent()
    assert re.search(r"^ +3 +2 +A quotation mark", refused.stdout, re.MULTILINE), refused.stdout
    assert "1 other device with --skip-unreadable" in refused.stderr
    wire.outcomes = ({"state": "completed", "counts": {"registered": 1}},)
    sent = wire.run("submit", str(path), "--customer", "contoso", "--skip-unreadable")
    assert sent.exit_code == ExitCode.PARTIAL
    assert [device["serial_number"] for device in wire.sent()[0]["devices"]] == ["SYN1"]


def test_a_value_beyond_the_apis_limit_is_one_lines_fault_and_not_the_orders(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text(
        f"Serial Number,Manufacturer,Model,Line\nSYN1,Contoso,Book,{'9' * 256}\nSYN2,Contoso,Book,2\n"
    )
    found = open_file(str(path))
    assert [row.line for row in found.unreadable] == [2]
    assert [row.device["line_ref"] for row in found.rows] == ["2"]


def test_a_product_key_in_the_customers_column_names_no_customer(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    key = "VK7JG-NPHTM-C97JM-9MPGT-3V66T"
    path.write_text(f"Serial Number,Make,Model,Customer,PO\n1,HP,X,{key},PO {key}\n2,HP,X,Contoso,PO-7\n")
    found = open_file(str(path))
    assert (found.customers, found.purchase_orders) == (["Contoso"], ["PO-7"])


def test_a_large_file_becomes_several_orders(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    rows = "".join(f"SYN{at},Contoso,Book\n" for at in range(MAX_DEVICES + 3))
    path.write_text(f"Serial Number,Manufacturer,Model\n{rows}")
    result = wire.run("submit", str(path), "--customer", "contoso", "--reference", "R", "--no-watch")
    assert result.exit_code == ExitCode.DONE
    assert [(order["reference"], len(order["devices"])) for order in wire.sent()] == [
        ("R-1", MAX_DEVICES),
        ("R-2", 3),
    ]
    assert wire.sent()[1]["devices"][0]["line_ref"] == str(MAX_DEVICES + 1)


def test_when_a_later_part_fails_the_parts_before_it_are_named(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    rows = "".join(f"SYN{at},Contoso,Book\n" for at in range(MAX_DEVICES + 1))
    path.write_text(f"Serial Number,Manufacturer,Model\n{rows}")
    wire.first["POST", "/v1/orders"] = [
        wire.take,
        lambda _: problem(500, "internal", "Something went wrong"),
    ]
    result = wire.run("submit", str(path), "--customer", "contoso", "--reference", "R")
    assert result.exit_code == ExitCode.ERROR
    assert "Accepted before that: R-1." in result.stderr
    assert "correlation id c-1" in result.stderr


@pytest.mark.parametrize("sample", sorted(path.name for path in SAMPLES.glob("*.csv")))
def test_every_collectors_file_becomes_an_order(wire: Wire, sample: str) -> None:
    result = wire.run("submit", str(SAMPLES / sample), "--customer", "contoso", "--no-watch")
    assert result.exit_code == ExitCode.DONE, result.output
    (order,) = wire.sent()
    assert len(order["devices"]) == 12
    assert all(set(device) <= set(LONGEST) for device in order["devices"])


def test_no_hash_is_ever_printed(wire: Wire) -> None:
    result = wire.run("submit", str(SAMPLES / "collector-default.csv"), "--customer", "contoso")
    assert "T0H" not in result.output


def test_a_file_may_come_from_the_standard_input(wire: Wire, devices: Path) -> None:
    result = wire.run("submit", "-", "--customer", "contoso", input=devices.read_bytes())
    assert result.exit_code == ExitCode.DONE, result.output
    assert re.fullmatch(r"stdin-[0-9a-f]{10}", wire.sent()[0]["reference"])


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "There is no file"), (b"", "The file is empty"), (b"%PDF-1.7", "This is a PDF document")],
)
def test_a_file_without_devices_is_refused_in_words(
    wire: Wire, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "file.csv"
    if content is not None:
        path.write_bytes(content)
    result = wire.run("submit", str(path), "--customer", "contoso")
    assert result.exit_code == ExitCode.ERROR
    assert words in result.stderr
    assert not wire.requests


# --- whom it is for -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted", [CUSTOMER["id"], CUSTOMER["entra_tenant_id"], "contoso.example", " CONTOSO "]
)
def test_a_customer_is_found_by_whatever_comes_to_hand(wire: Wire, devices: Path, wanted: str) -> None:
    assert wire.run("submit", str(devices), "--customer", wanted, "--no-watch").exit_code == ExitCode.DONE
    assert wire.sent()[0]["customer_id"] == CUSTOMER["id"]


def test_a_customer_that_could_be_two_is_not_guessed(wire: Wire, devices: Path) -> None:
    wire.customers = (CUSTOMER, {**OTHER, "name": "Contoso"})
    result = wire.run("submit", str(devices), "--customer", "contoso")
    assert result.exit_code == ExitCode.ERROR
    assert CUSTOMER["id"] in result.stderr
    assert OTHER["id"] in result.stderr
    assert not wire.sent()


def test_an_unknown_customer_is_met_with_the_nearest_name(wire: Wire, devices: Path) -> None:
    result = wire.run("submit", str(devices), "--customer", "Fabricam")
    assert result.exit_code == ExitCode.ERROR
    assert "Did you mean Fabrikam?" in result.stderr


@pytest.mark.parametrize(
    ("named", "option", "code", "words"),
    [
        (("Contoso", "Contoso"), None, ExitCode.DONE, "for Contoso"),
        (("Contoso", "Fabrikam"), None, ExitCode.REFUSED, "names 2 customers"),
        (("Contoso", "Contoso"), "Fabrikam", ExitCode.REFUSED, "The file is for Contoso"),
        (("ACME", "ACME"), "Fabrikam", ExitCode.DONE, "no customer here"),
        (("", ""), None, ExitCode.ERROR, "customer is not known"),
    ],
)
def test_the_files_own_customer_must_agree(
    wire: Wire, tmp_path: Path, named: tuple[str, str], option: str | None, code: ExitCode, words: str
) -> None:
    path = tmp_path / "named.csv"
    path.write_text(
        "Serial Number,Manufacturer,Model,Customer,PO\n"
        f"SYN1,Contoso,Book,{named[0]},P1\nSYN2,Contoso,Book,{named[1]},P1\n"
    )
    options = ["--customer", option] if option else []
    result = wire.run("submit", str(path), "--no-watch", *options)
    assert (result.exit_code, words in result.output) == (code, True), result.output
    assert bool(wire.sent()) is (code is ExitCode.DONE)
    assert all(order["purchase_order"] == "P1" for order in wire.sent())
