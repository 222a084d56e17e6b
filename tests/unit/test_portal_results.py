"""Lists of results as portals write them, as spreadsheets leave them, and as people type them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from app.domain.errors import Unprocessable
from app.domain.registration import RegistrationState
from app.intake.portal_results import PortalAnswer, UnreadableResult, columns_of, read_row
from app.services.portal.matching import meaning_of, read_result

SAMPLES = Path(__file__).parents[1] / "samples" / "portal-results"
S = RegistrationState
OPEN = None
"""The row tells no outcome, and says why."""


def states_of(name: str) -> list[RegistrationState | None]:
    found = read_result((SAMPLES / name).read_bytes())
    return [state_of(answer) for _, answer in found.said]


def state_of(answer: PortalAnswer) -> RegistrationState | None:
    meaning = meaning_of(answer)
    assert (answer.doubt is None) == (answer.said is not None or answer.answer.done)
    return None if answer.doubt is not None or meaning is None else meaning.state


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("P02-success-with-message.csv", [S.REGISTERED] * 4),
        ("P04-german.csv", [S.REGISTERED, S.CONFLICT, S.ALREADY_REGISTERED, S.REGISTERED]),
        ("P05-french.csv", [S.REGISTERED, S.CONFLICT, S.REGISTERED, S.ALREADY_REGISTERED]),
        ("P07-german-excel-utf16-tab.csv", [S.REGISTERED, S.CONFLICT, S.ALREADY_REGISTERED, S.REGISTERED]),
        ("P09-own-words.csv", [S.REGISTERED, S.ALREADY_REGISTERED, S.CONFLICT, S.FAILED]),
        ("P12-graph-state-column.csv", [S.REGISTERED, S.CONFLICT, S.ALREADY_REGISTERED, S.REGISTERED]),
        ("P13-serial-in-message-number.csv", [S.FAILED, S.FAILED, S.FAILED, S.REGISTERED]),
        ("P14-hash-of-error-hex.csv", [S.REGISTERED, S.REGISTERED, S.FAILED, S.REGISTERED]),
        ("P17-unknown-rows-totals.csv", [S.REGISTERED, S.REGISTERED, S.FAILED, OPEN, S.REGISTERED]),
        ("P31-result.xlsx", [S.REGISTERED, S.CONFLICT, S.ALREADY_REGISTERED]),
        ("P35-status-finished-result-error.csv", [OPEN, OPEN, S.REGISTERED]),
        ("P36-error-no.csv", [S.REGISTERED, S.REGISTERED, S.FAILED]),
        ("P38-no-error-localized.csv", [S.REGISTERED] * 3),
        ("P42-german-error-name-column.csv", [S.CONFLICT, S.ALREADY_REGISTERED, S.REGISTERED]),
        ("P45-success-with-count.csv", [S.REGISTERED] * 3),
        ("P47-row-200-name.csv", [S.FAILED, S.REGISTERED, S.REGISTERED]),
        ("P52-cli-all-success-with-message.csv", [S.REGISTERED] * 4),
    ],
)
def test_the_files_of_the_field_are_read_as_they_are_meant(
    name: str, states: list[RegistrationState | None]
) -> None:
    assert states_of(name) == states


def read(row: Mapping[str, str]) -> PortalAnswer:
    return read_row({"serial_number": "SYN00001", **row}, columns_of(row))


# --- a number in a sentence is text ---------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence",
    [
        "CSV row 806: the device could not be found",
        "Zeile 806 der Datei: Gerät nicht gefunden",
        "After 806 seconds: timeout",
        "806 devices were looked at",
        "Ticket 806",
        "Room 806, see 808",
        "The device is already registered",
    ],
)
@pytest.mark.parametrize("title", ["Message", "Error description", "Details", "Fehlermeldung", "Error"])
def test_a_word_that_says_failed_never_becomes_a_success_by_a_sentence(title: str, sentence: str) -> None:
    answer = read({"Status": "Failed", title: sentence})
    assert state_of(answer) is S.FAILED
    assert answer.answer.code is None


@pytest.mark.parametrize(
    ("row", "state"),
    [
        ({"Status": "Failed", "Message": "Error code 806"}, S.ALREADY_REGISTERED),
        ({"Status": "Failed", "Message": "Import ended with error code: 808."}, S.CONFLICT),
        ({"Status": "Fehler", "Meldung": "Fehlercode 808"}, S.CONFLICT),
        ({"Status": "Failed", "Message": "806 - ZtdDeviceAlreadyAssigned"}, S.ALREADY_REGISTERED),
        ({"Status": "Failed", "Message": "ZtdDeviceAssignedToOtherTenant (808)"}, S.CONFLICT),
        ({"Status": "Failed", "Message": "HTTP 500: ZtdDeviceNotFound"}, S.FAILED),
        ({"Status": "Error", "Error code": "808"}, S.CONFLICT),
        ({"status": "finished_with_errors", "errorCode": "806"}, S.ALREADY_REGISTERED),
        ({"Error code": "ZtdDeviceNotFound"}, S.FAILED),
        ({"Error": "808 - ZtdDeviceAssignedToOtherTenant"}, S.CONFLICT),
        ({"Status": "808"}, S.CONFLICT),
        ({"Status": "806 - ZtdDeviceAlreadyAssigned"}, S.ALREADY_REGISTERED),
        ({"Status": "812", "Error description": "ZtdDeviceNotFound"}, S.FAILED),
        ({"Status": "ZtdDeviceAssignedToOtherTenant"}, S.CONFLICT),
        (
            {"Status": "Failed", "Error code": "806", "Error name": "ZtdDeviceAssignedToOtherTenant"},
            S.CONFLICT,
        ),
    ],
)
def test_microsofts_code_decides_where_it_stands_as_one(
    row: Mapping[str, str], state: RegistrationState
) -> None:
    assert state_of(read(row)) is state


def test_a_number_beside_another_codes_name_is_no_code() -> None:
    answer = read({"Status": "Failed", "Message": "HTTP 500: ZtdDeviceNotFound"}).answer
    assert (answer.code, answer.name) == (None, "ZtdDeviceNotFound")


@pytest.mark.parametrize(
    "row",
    [
        {"Status": "Failed", "Message": "See error code 806 in the documentation"},
        {"Status": "Failed", "Message": "Error code 806 is not what this is"},
        {"Status": "Failed", "Message": "Cause unknown (ZtdDeviceAlreadyAssigned is not the cause)"},
        {"Status": "Failed", "Message": "error code: 806 seconds elapsed"},
        {"Status": "Not ZtdDeviceAlreadyAssigned"},
        {"Error code": "808", "Error name": "ZtdDeviceAlreadyAssigned"},
        {"Status": "De-registered"},
        {"Status": "Un-registered"},
        {"Status": "Success (0)"},
        {"Status": "Success?"},
        {"Status": "Success", "Success": "False"},
        {"Status": "✓"},
    ],
)
def test_what_may_be_denied_leaves_the_device_open(row: Mapping[str, str]) -> None:
    answer = read(row)
    assert state_of(answer) is OPEN
    assert any(value in (answer.doubt or "") for value in row.values())


@pytest.mark.parametrize(
    ("row", "state"),
    [
        ({"Error code": "0", "Error name": "Device not found"}, S.FAILED),
        ({"Error code": "None", "Error name": "Device not found"}, S.FAILED),
        ({"Status": "Failed", "Message": "HTTP error code 806ms"}, S.FAILED),
        ({"Status": "Failed", "Message": "HTTP 400: ZtdDeviceAlreadyAssigned"}, S.ALREADY_REGISTERED),
        ({"Status": "Failed", "Message": "Import failed with error code 806."}, S.ALREADY_REGISTERED),
        ({"Error": "806.0"}, S.ALREADY_REGISTERED),
        ({"Error": "808,0"}, S.CONFLICT),
        ({"Error": "Code 806"}, S.ALREADY_REGISTERED),
        ({"Success": "True"}, S.REGISTERED),
        ({"Success": "False"}, S.FAILED),
        ({"Erfolgreich": "Ja"}, S.REGISTERED),
        ({"Status": "Success", "Success": "Yes"}, S.REGISTERED),
    ],
)
def test_codes_and_flags_in_other_writings(row: Mapping[str, str], state: RegistrationState) -> None:
    assert state_of(read(row)) is state


# --- columns that disagree ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"Status": "Finished", "Result": "Error"}, '"Finished" and "Error"'),
        ({"Status": "Success", "Error code": "808"}, '"Success" and "808"'),
        ({"Status": "Success", "Error": "Yes"}, '"Success" and "Yes"'),
        ({"Status": "Registered", "Result": "Failed"}, '"Registered" and "Failed"'),
        ({"Status": "Pending", "Error code": "808"}, '"Pending" and "808"'),
        ({"Status": "already_registered", "Error code": "808"}, '"already_registered" and "808"'),
        ({"Status": "Failed", "Message": "806 ZtdDeviceAlreadyAssigned, 808 ZtdDeviceAssignedToOtherTenant"},
         '"ZtdDeviceAlreadyAssigned" and "ZtdDeviceAssignedToOtherTenant"'),
    ],
)  # fmt: skip
def test_columns_that_disagree_leave_the_device_open_and_are_quoted(
    row: Mapping[str, str], words: str
) -> None:
    answer = read(row)
    assert state_of(answer) is OPEN
    assert answer.doubt is not None
    assert words in answer.doubt


@pytest.mark.parametrize(
    ("row", "state"),
    [
        ({"Status": "Finished", "Result": "Success"}, S.REGISTERED),
        ({"Status": "Finished", "Error code": "0"}, S.REGISTERED),
        ({"Status": "Finished", "Error code": "808"}, S.CONFLICT),
        ({"Status": "Success", "Error code": "806"}, S.ALREADY_REGISTERED),
        ({"Status": "Failed", "Result": "Error"}, S.FAILED),
        ({"Status": "Finished", "Result": ""}, OPEN),
        ({"Status": "Completed successfully"}, S.REGISTERED),
    ],
)
def test_finished_beside_another_outcome_is_the_uploads_state(
    row: Mapping[str, str], state: RegistrationState | None
) -> None:
    assert state_of(read(row)) is state


# --- no error, in any writing ---------------------------------------------------------------------


@pytest.mark.parametrize("title", ["Error code", "Error", "Fehlercode", "Error name"])
@pytest.mark.parametrize(
    "text",
    ["", "0", "00", "0x0", "0x00000000", "00000000", "0.0", "0,0", "S_OK", "200 OK", "200", "No", "False",
     "None", "N/A", "-", "null", "No error", "Kein Fehler", "Aucune erreur", "Ninguno", "Sin errores",
     "Nessun errore", "Geen fout", "なし", '="0"'],
)  # fmt: skip
def test_no_error_is_no_error_in_every_writing(title: str, text: str) -> None:
    assert state_of(read({"Status": "Success", title: text})) is S.REGISTERED


@pytest.mark.parametrize("code", ["0x80180014", "500", "1808", "-2016345060"])
def test_a_code_that_is_not_known_is_kept_to_the_letter(code: str) -> None:
    answer = read({"Status": "Failed", "Error code": code})
    assert state_of(answer) is S.FAILED
    assert answer.answer.code == code


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("Success", S.REGISTERED),
        ("SUCCEEDED", S.REGISTERED),
        ("Success (12)", S.REGISTERED),
        ("Successfully imported", S.REGISTERED),
        ("Device registered successfully", S.REGISTERED),
        ("Import succeeded", S.REGISTERED),
        ("Alreadyregistered", S.ALREADY_REGISTERED),
        ("already registered", S.ALREADY_REGISTERED),
        ("CONFLICT", S.CONFLICT),
        ("Import failed", S.FAILED),
        ("Fehlgeschlagen", S.FAILED),
        ("Échec", S.FAILED),
        ("Correcto", S.REGISTERED),
        ("Fallido", S.FAILED),
        ("Riuscito", S.REGISTERED),
        ("Non riuscito", S.FAILED),
        ("Geslaagd", S.REGISTERED),
        ("Mislukt", S.FAILED),
        ("成功", S.REGISTERED),
        ("失敗", S.FAILED),
    ],
)
def test_words_are_read_in_the_languages_whose_titles_are_read(word: str, state: RegistrationState) -> None:
    assert state_of(read({"Status": word})) is state


@pytest.mark.parametrize(
    "word",
    ["Not registered", "nicht registriert", "Unheard-of", "Success failed", "0", "200", "Registered?!x"],
)
def test_a_word_that_is_not_known_is_quoted_with_those_that_are(word: str) -> None:
    answer = read({"Status": word})
    assert state_of(answer) is OPEN
    assert answer.doubt is not None
    assert f'"{word}"' in answer.doubt
    assert "Success" in answer.doubt


@pytest.mark.parametrize("word", ["Processing", "Pending", "unknown", "In Bearbeitung", "En cours", ""])
def test_what_is_not_over_tells_no_outcome(word: str) -> None:
    assert state_of(read({"Status": word})) is OPEN


def test_a_failed_devices_sentence_is_kept_and_a_hash_in_it_is_not() -> None:
    assert read({"Status": "Failed", "Message": "No licence is left."}).detail == "No licence is left."
    assert read({"Status": "Failed", "Message": "T0H" + "A" * 300}).detail is None


def test_what_spreadsheets_put_around_a_value_is_taken_off() -> None:
    answer = read({"serial_number": '="SYN00007"', "Status": "'Success"})
    assert answer.answer.serial_number == "SYN00007"
    assert state_of(answer) is S.REGISTERED


# --- files that tell nothing ----------------------------------------------------------------------


def test_columns_that_are_not_read_are_named() -> None:
    found = read_result(b"Serial number,Status,Shelf,Fehlercode\r\nSYN00001,Success,7,\r\n")
    assert found.unread == ["Shelf"]


def test_a_header_without_rows_is_told_as_that() -> None:
    with pytest.raises(Unprocessable, match="no row"):
        read_result((SAMPLES / "P28-header-only.csv").read_bytes())


def test_a_list_without_an_outcome_is_refused_and_not_taken_for_success() -> None:
    """The uploaded file itself is one: handed in by mistake, it must not register anything."""
    with pytest.raises(UnreadableResult, match="Status"):
        columns_of(["Manufacturer name", "Device model"])


# --- rows of the uploaded file --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "Some were not imported.\nInternal Error code: 806 ZtdDeviceAlreadyAssigned\nRows: 2, 5-7\n"
            "808 ZtdDeviceAssignedToOtherTenant - CSV rows 3 and 9",
            {2: "806", 5: "806", 6: "806", 7: "806", 3: "808", 9: "808"},
        ),
        ('CSV row,Error code\n2,806\n"3, 4",808\n', {2: "806", 3: "808", 4: "808"}),
        ("CSV row numbers\tError\n2, 3\t806 - ZtdDeviceAlreadyAssigned", {2: "806", 3: "806"}),
        ("CSV-Zeile;Fehlercode\n4;808\n", {4: "808"}),
        ("Error 808: row 12", {12: "808"}),
        ("Fehler 806, Zeilen 1 und 3", {1: "806", 3: "806"}),
    ],
)
def test_rows_of_the_file_are_read_with_the_code_that_names_them(text: str, named: dict[int, str]) -> None:
    said = read_result(text.encode()).said
    assert {answer.file_row: answer.answer.code for _, answer in said} == named


def test_a_row_without_a_code_stays_open() -> None:
    ((_, answer),) = read_result(b"These devices failed: rows 3").said
    assert answer.file_row == 3
    assert answer.doubt is not None
