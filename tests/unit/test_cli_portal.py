"""`registrar portal`: files on disk, marks and outcomes, in the words of the person who uploads."""

from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from app.cli.device_file import Part
from app.cli.outcome import ExitCode
from app.cli.preview import show_preview
from app.cli.screen import Screen
from tests.unit.cli_wire import CUSTOMER, DEVICES, NOW, Wire, counts, problem

ORDER = str(UUID(int=100))
BATCH = str(UUID(int=50))
HREF = f"/v1/batches/{BATCH}/portal-file.csv"
CONTENT = b"Device serial number,Windows product ID\r\nSYN1,\r\n"
FILE: dict[str, Any] = {
    "name": "Desk.csv",
    "batch_id": BATCH,
    "group_tag": "Desk",
    "rows": 2,
    "state": "queued",
    "href": HREF,
    "steps": ["Open the portal.", "Upload Desk.csv."],
    "submitted_at": None,
    "settled_at": None,
}


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    wire = Wire(outcomes=({"state": "in_progress", "counts": {"queued": 2}, "portal": True},))
    path = tmp_path / "devices.csv"
    path.write_text(DEVICES)
    assert wire.run("submit", str(path), "--customer", "contoso", "--no-watch").exit_code == ExitCode.DONE
    return wire


def serve(wire: Wire, *files: dict[str, Any]) -> None:
    page = {"items": list(files), "next_page_token": None}
    wire.first["GET", f"/v1/orders/{ORDER}/portal-files"] = [lambda _: httpx.Response(200, json=page)]
    csv = httpx.Response(200, content=CONTENT, headers={"Content-Type": "text/csv"})
    wire.first["GET", HREF] = [lambda _: csv]


def test_files_are_shown_with_what_to_do(wire: Wire) -> None:
    serve(wire, FILE)
    result = wire.run("portal", "files", ORDER)
    assert result.exit_code == ExitCode.DONE, result.output
    assert "Desk.csv" in result.stdout
    assert BATCH in result.stdout
    assert "1. Open the portal." in result.stdout
    assert f"`registrar portal uploaded {BATCH}`" in result.stdout


def test_the_next_command_is_named_with_its_batch(wire: Wire) -> None:
    serve(wire, {**FILE, "state": "submitted"})
    assert f"`registrar portal result {BATCH} --registered`" in wire.run("portal", "files", ORDER).stdout
    serve(wire, {**FILE, "state": "held", "href": None})
    assert "`registrar portal consent CUSTOMER" in wire.run("portal", "files", ORDER).stdout


def test_files_are_written_to_the_byte_for_their_owner_only(wire: Wire, tmp_path: Path) -> None:
    for _ in range(2):  # a repetition leaves what is there
        serve(wire, FILE)
        assert wire.run("portal", "files", ORDER, "--out", str(tmp_path / "out")).exit_code == ExitCode.DONE
    written = tmp_path / "out" / "Desk.csv"
    assert written.read_bytes() == CONTENT
    assert written.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["Desk.csv"]


def test_a_file_with_other_content_is_not_replaced(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "Desk.csv").write_bytes(b"mine")
    serve(wire, FILE)
    result = wire.run("portal", "files", ORDER, "--out", str(tmp_path))
    assert result.exit_code == ExitCode.ERROR
    assert "Nothing was replaced" in result.stderr
    assert (tmp_path / "Desk.csv").read_bytes() == b"mine"


def test_a_name_can_not_lead_out_of_the_folder(wire: Wire, tmp_path: Path) -> None:
    serve(wire, {**FILE, "name": "../../evil.csv"})
    wire.run("portal", "files", ORDER, "--out", str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b" / "evil.csv").exists()
    assert not (tmp_path / "evil.csv").exists()


def test_files_that_wait_for_consent_or_are_uploaded_are_not_written(wire: Wire, tmp_path: Path) -> None:
    serve(wire, {**FILE, "state": "held", "href": None}, {**FILE, "state": "submitted"})
    result = wire.run("portal", "files", ORDER, "--out", str(tmp_path / "out"), "--json")
    assert result.exit_code == ExitCode.WAITING
    assert orjson.loads(result.stdout)["written"] == []


def test_an_upload_is_marked(wire: Wire) -> None:
    batch = {"id": BATCH, "group_tag": "Desk", "counts": counts(processing=2)}
    wire.first["POST", f"/v1/batches/{BATCH}:mark-uploaded"] = [lambda _: httpx.Response(200, json=batch)]
    result = wire.run("portal", "uploaded", BATCH)
    assert result.exit_code == ExitCode.DONE
    assert "2 devices of Desk: uploaded." in result.stdout


def recorded(**more: Any) -> httpx.Response:
    said = {
        "batch": {"id": BATCH, "group_tag": "Desk"},
        "order": {
            "id": ORDER,
            "reference": "PO-1",
            "customer_id": CUSTOMER["id"],
            "customer_name": "Contoso",
        },
        "outcomes": {"registered": 2},
        "devices": [],
        "unread_columns": [],
        "recorded": 2,
        "again": 0,
        "open": 0,
        "untouched_total": 0,
        "untouched": [],
        **more,
    }
    return httpx.Response(200, json=said)


def test_all_registered_is_recorded(wire: Wire) -> None:
    wire.first["POST", f"/v1/batches/{BATCH}:record-outcome"] = [lambda _: recorded()]
    result = wire.run("portal", "result", BATCH, "--registered")
    assert result.exit_code == ExitCode.DONE
    assert wire.sent()[-1] == {"outcome": "registered"}
    assert "Order PO-1 of Contoso, group tag Desk:" in result.stdout
    assert "2 registered" in result.stdout
    assert "Every device of this file has its outcome." in result.stdout


def test_what_was_recorded_is_told_by_outcome_and_failures_end_with_2(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "result.csv"
    path.write_text("Serial number,Status\nSYN1,Success\nSYN2,808\n")
    device = {
        "registration_id": str(UUID(int=9)),
        "row": 3,
        "file_row": 2,
        "line_ref": None,
        "serial_number": "SYN2",
        "product_key": None,
        "state": "conflict",
        "error_code": "assigned_to_other_tenant",
    }
    outcomes = {"registered": 1, "conflict": 1}
    answer = recorded(outcomes=outcomes, devices=[device], unread_columns=["Shelf"])
    wire.first["POST", f"/v1/batches/{BATCH}/portal-result"] = [lambda _: answer]
    result = wire.run("portal", "result", BATCH, str(path))
    assert result.exit_code == ExitCode.PARTIAL
    assert "1 registered" in result.stdout
    assert "1 owned by another organisation" in result.stdout
    assert "SYN2" in result.stdout
    assert "Columns that were not read: Shelf." in result.stdout


def test_all_failed_is_recorded_with_microsofts_code(wire: Wire) -> None:
    answer = recorded(outcomes={"conflict": 2})
    wire.first["POST", f"/v1/batches/{BATCH}:record-outcome"] = [lambda _: answer]
    result = wire.run("portal", "result", BATCH, "--failed", "808")
    assert result.exit_code == ExitCode.PARTIAL
    assert wire.sent()[-1] == {"outcome": "failed", "code": "808"}


def test_an_upload_is_undone_with_the_portals_words(wire: Wire) -> None:
    batch = {"id": BATCH, "group_tag": "Desk", "counts": counts(queued=2)}
    wire.first["POST", f"/v1/batches/{BATCH}:undo-upload"] = [lambda _: httpx.Response(200, json=batch)]
    result = wire.run("portal", "undo", BATCH, "--refused", "Wrong header")
    assert result.exit_code == ExitCode.DONE
    assert wire.sent()[-1] == {"refused": "Wrong header"}
    assert "2 devices of Desk: to be uploaded." in result.stdout


def test_files_that_are_left_out_are_named(wire: Wire, tmp_path: Path) -> None:
    serve(wire, FILE, {**FILE, "name": "Kiosk.csv", "state": "submitted"})
    result = wire.run("portal", "files", ORDER, "--out", str(tmp_path / "out"))
    assert "Not written: Kiosk.csv, uploaded, outcome open." in result.stdout
    assert "Not written: Desk.csv" not in result.stdout


def test_the_portals_file_is_sent_as_it_is_and_what_did_not_fit_is_shown(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "result.csv"
    path.write_bytes("Serial number,Status\r\nSYN1,Success\r\n".encode("utf-16"))
    answer = recorded(
        recorded=1, open=1, untouched_total=1, untouched=[{"place": 3, "reason": "It names no device."}]
    )
    wire.first["POST", f"/v1/batches/{BATCH}/portal-result"] = [lambda _: answer]
    result = wire.run("portal", "result", BATCH, str(path))
    assert result.exit_code == ExitCode.PARTIAL
    assert wire.requests[-1].content == path.read_bytes()
    assert wire.requests[-1].headers["content-type"] == "text/csv"
    assert "It names no device." in result.stdout
    assert "1 device of this file without an outcome yet." in result.stdout


def test_what_was_recorded_by_mistake_is_replaced_where_the_person_says_so(
    wire: Wire, tmp_path: Path
) -> None:
    wire.first["POST", f"/v1/batches/{BATCH}:record-outcome"] = [lambda _: recorded(corrected=1)]
    result = wire.run("portal", "result", BATCH, "--registered", "--correct")
    assert wire.sent()[-1] == {"outcome": "registered", "correct": True}
    assert "1 device of these had another outcome before." in result.stdout
    path = tmp_path / "result.csv"
    path.write_text("Serial number,Status\nSYN1,Failed\n")
    wire.first["POST", f"/v1/batches/{BATCH}/portal-result"] = [lambda _: recorded(corrected=1)]
    assert wire.run("portal", "result", BATCH, str(path), "--correct").exit_code == ExitCode.DONE
    assert wire.requests[-1].url.query == b"correct=true"


@pytest.mark.parametrize(
    "arguments", [(), ("result.csv", "--registered"), ("--registered", "--failed", "808"), ("missing.csv",)]
)
def test_a_result_needs_exactly_one_source(wire: Wire, arguments: tuple[str, ...]) -> None:
    before = len(wire.requests)
    assert wire.run("portal", "result", BATCH, *arguments).exit_code == ExitCode.ERROR
    assert len(wire.requests) == before


def test_a_refusal_is_told_in_the_apis_words(wire: Wire) -> None:
    refusal = problem(409, "invalid_state", "Not possible", detail="Somebody else is recording this batch.")
    wire.first["POST", f"/v1/batches/{BATCH}:mark-uploaded"] = [lambda _: refusal]
    result = wire.run("portal", "uploaded", BATCH)
    assert result.exit_code == ExitCode.ERROR
    assert "Somebody else is recording this batch." in result.stderr


def test_consent_is_recorded_with_its_note(wire: Wire) -> None:
    path = f"/v1/customers/{CUSTOMER['id']}/consent:record"
    answer = httpx.Response(200, json={**CUSTOMER["consent"], "evidence": "manual", "since": NOW})
    wire.first["POST", path] = [lambda _: answer]
    result = wire.run("portal", "consent", "contoso", "--note", "Seen in the list.")
    assert result.exit_code == ExitCode.DONE, result.output
    assert wire.sent()[-1] == {"state": "granted", "note": "Seen in the list."}
    assert "Contoso: granted." in result.stdout


def test_following_ends_where_a_person_has_to_act(wire: Wire) -> None:
    result = wire.run("watch", ORDER)
    assert result.exit_code == ExitCode.WAITING
    assert f"registrar portal files {ORDER}" in result.stdout
    assert wire.pauses == []


def test_what_is_tried_again_is_a_new_file_that_a_person_uploads(wire: Wire) -> None:
    order = wire.run("order", ORDER, "--json")
    retried = {**orjson.loads(order.stdout), "retried": 2, "without_hash": 0}
    wire.first["POST", f"/v1/orders/{ORDER}:retry-failed"] = [lambda _: httpx.Response(200, json=retried)]
    result = wire.run("retry", ORDER)
    assert result.exit_code == ExitCode.DONE, result.output
    assert "2 devices can be uploaded again." in result.stdout
    assert f"`registrar portal files {ORDER}` shows it" in result.stdout
    assert "watch" not in result.stdout


@pytest.mark.parametrize(("portal", "words"), [(True, "Files to upload"), (False, "Calls to Microsoft")])
def test_a_portals_batches_are_called_files(
    capsys: pytest.CaptureFixture[str], portal: bool, words: str
) -> None:
    preview = {
        "counts": counts(queued=1),
        "portal": portal,
        "batches": [{"group_tag": "Desk", "devices": 1}],
        "problems": [],
    }
    show_preview(Screen(), Part("P-1", ()), preview)
    assert words in capsys.readouterr().out
