"""Every sample, and one file of each further format, gives its verdict row by row."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.domain.identity import IdentityKind, Rules
from app.domain.planning import OrderRules
from app.intake.dry_run import Review
from app.intake.rows import Dialect, read
from app.local.synthetic import devices
from tests.support.workbooks import Raw, workbook

SAMPLES = Path(__file__).parents[1] / "samples"
NOW = datetime(2026, 6, 1, tzinfo=UTC)
HASH, KEY, TUPLE = IdentityKind.HARDWARE_HASH, IdentityKind.PRODUCT_KEY, IdentityKind.TUPLE

Verdict = tuple[IdentityKind | None, list[str]]
"""What is sent, and the codes of the row's problems."""


def verdicts(data: bytes) -> tuple[Dialect, list[Verdict]]:
    dialect, rows = read(io.BytesIO(data))
    review = Review(OrderRules(Rules(frozenset(IdentityKind)), 1000), NOW)
    judged = [review.judge(row) for row in rows]
    return dialect, [(each.device.kind, [problem.code for problem in each.problems]) for each in judged]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("collector-default.csv", [(HASH, [])] * 12),
        ("collector-grouptag.csv", [(HASH, [])] * 12),
        ("collector-partner-force.csv", [(TUPLE, [])] * 12),
        ("partner-center-template.csv", [(TUPLE, []), (KEY, []), (HASH, [])] * 4),
        ("configmgr-report.csv", [(HASH, [])] * 12),
        ("headerless.csv", [(HASH, [])] * 12),
        (
            "excel-damaged.csv",
            [
                (TUPLE, ["value_trimmed"]),
                (None, ["product_key_scientific"]),
                (None, ["serial_placeholder"]),
                (None, ["product_key_is_product_id"]),
                (None, ["incomplete_tuple"]),
                (KEY, []),
                (None, ["duplicate_in_order"]),
                (None, ["hash_serial_mismatch"]),
                (None, ["hash_truncated"]),
                (HASH, ["hash_repaired"]),
                (None, ["missing_identity"]),
                (None, ["hash_checksum_mismatch"]),
            ],
        ),
    ],
)
def test_each_row_of_each_sample_has_its_verdict(name: str, expected: list[Verdict]) -> None:
    _, found = verdicts((SAMPLES / name).read_bytes())
    assert found == expected


# --- the other formats, with the same devices -------------------------------------------------------

HEADER = ("Device Serial Number", "Windows Product ID", "Hardware Hash", "Manufacturer name", "Device model")
DEVICES = [
    tuple(
        device.fields().get(name, "")
        for name in ("serial_number", "product_key", "hardware_hash", "manufacturer", "model")
    )
    for device in devices(6, seed=9)
]
TABLE = [HEADER, *DEVICES, ("SYN-7", "", "", "Contoso", "Straße 14")]
CODES: list[str] = []
GOOD: list[Verdict] = [(kind, CODES) for kind in (TUPLE, KEY, HASH, TUPLE, KEY, HASH)]
GOOD.append((TUPLE, ["value_unlikely"]))
"""The notice of the last one: no firmware's model has an ß."""


def delimited(codec: str, delimiter: str = ",") -> Callable[[], bytes]:
    return lambda: "".join(delimiter.join(row) + "\r\n" for row in TABLE).encode(codec)


def json_lines() -> bytes:
    names = ("serialNumber", "product_key", "hardwareHash", "oemManufacturerName", "modelName")
    rows = [{name: cell or None for name, cell in zip(names, row, strict=True)} for row in TABLE[1:]]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    "make, format, encoding",
    [
        (delimited("utf-8", "\t"), "delimited", "utf-8"),
        (delimited("cp1252"), "delimited", "cp1252"),
        (delimited("utf-16-be"), "delimited", "utf-16-be"),
        (lambda: b"\xfe\xff" + delimited("utf-16-be", ";")(), "delimited", "utf-16-be with BOM"),
        (lambda: gzip.compress(delimited("utf-8-sig")()), "delimited", "utf-8 with BOM"),
        (json_lines, "jsonl", "utf-8"),
        (lambda: workbook({"Devices": TABLE}), "xlsx", ""),
        (lambda: workbook({"Devices": TABLE}, shared=False), "xlsx", ""),
    ],
)
def test_the_same_devices_have_the_same_verdicts_in_every_format(
    make: Callable[[], bytes], format: str, encoding: str
) -> None:
    data = make()
    dialect, found = verdicts(data)
    assert (dialect.format, dialect.encoding) == (format, encoding)
    # Letters of a file that does not tell its encoding are a guess.
    letters = ["letters_guessed"] if encoding == "cp1252" else []
    # Firmware has plain letters in its models.
    assert found == [*GOOD[:-1], (TUPLE, [*letters, "value_unlikely"])]
    rows = list(read(io.BytesIO(data))[1])
    assert rows[-1].fields["model"] == "Straße 14"


def test_an_oa3_report_of_a_device_is_a_hash_with_its_pkid() -> None:
    (device,) = devices(1, seed=9, kind=HASH)
    report = (
        f"<Key><ProductKey>{'-'.join(['ABCDE'] * 5)}</ProductKey><ProductKeyID>{device.product_key}"
        f"</ProductKeyID><HardwareHash>{device.hardware_hash}</HardwareHash></Key>"
    )
    dialect, found = verdicts(report.encode())
    assert dialect.format == "oa3"
    assert found == [(HASH, [])]
    assert verdicts(report.replace("9999", "8888").encode())[1] == [(None, ["hash_product_key_mismatch"])]


def test_what_a_spreadsheet_does_to_values_is_named_cell_by_cell() -> None:
    rows: list[Any] = [
        HEADER,
        (None, Raw('<c r="B2"><v>4.89871E+12</v></c>')),
        (None, 284750002680),
        (123456, None, None, "Contoso", "Book"),
        (Raw('<c r="A5" s="1"><v>45352</v></c>'), None, None, "Contoso", "Book"),
        (Raw('<c r="A6" t="e"><v>#REF!</v></c>'), None, None, "Contoso", "Book"),
        (Raw('<c r="A7"><v>1.2345678901234568E+19</v></c>'), None, None, "Contoso", "Book"),
        (None, "4,89871E+12"),
        ("1.2E+12", None, None, "Contoso", "Book"),
        ("“5CD1”", None, None, "Contoso", "Book"),
        ("5CD2\u00a0", None, None, "Contoso", "Book"),
        ("10-Mar", None, None, "Contoso", "Book"),
        (Raw('<c r="A13" t="b"><v>1</v></c>'), None, None, "Contoso", "Book"),
        ("TRUE", None, None, "Contoso", "Book"),
    ]
    expected: list[Verdict] = [
        (KEY, []),
        (KEY, ["product_key_unusual"]),
        (TUPLE, ["serial_from_number"]),
        (None, ["cell_is_date", "serial_looks_like_date"]),
        (None, ["cell_is_error"]),
        (None, ["number_rounded"]),
        (None, ["product_key_scientific"]),
        (None, ["serial_scientific"]),
        (TUPLE, ["value_quoted"]),
        (TUPLE, ["value_trimmed"]),
        (TUPLE, ["serial_looks_like_date"]),
        (None, ["value_is_boolean", "serial_placeholder"]),
        (None, ["serial_placeholder"]),
    ]
    data = workbook({"Devices": rows}, formats=("dd.mm.yyyy",))
    assert verdicts(data)[1] == expected


def test_the_same_damage_in_text_is_named_the_same() -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=";").writerows(
        [
            HEADER,
            ("", "4,89871E+12"),
            ("", "284750002680"),
            ("1,2E+12", "", "", "Contoso", "Book"),
            ("‘5CD1’", "", "", "Contoso", "Book"),
            ("01.03.2024", "", "", "Contoso", "Book"),
            ("Mrz 10", "", "", "Contoso", "Book"),
        ]
    )
    assert [codes for _, codes in verdicts(out.getvalue().encode("cp1252"))[1]] == [
        ["product_key_scientific", "row_short"],
        ["row_short", "product_key_unusual"],
        ["serial_scientific"],
        ["value_quoted"],
        ["serial_looks_like_date"],
        ["serial_looks_like_date"],
    ]
