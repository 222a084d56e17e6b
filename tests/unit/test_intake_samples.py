"""Every file of tests/samples gives the rows that its README promises."""

from collections import Counter
from pathlib import Path

import pytest

from app.intake.rows import Dialect, Kind, Row, read

SAMPLES = Path(__file__).parents[1] / "samples"
COLLECTOR = ("Device Serial Number", "Windows Product ID", "Hardware Hash")
IDENTITY = ("serial_number", "product_key", "hardware_hash")


def load(name: str) -> tuple[Dialect, list[Row]]:
    with (SAMPLES / name).open("rb") as stream:
        dialect, rows = read(stream)
        return dialect, list(rows)


@pytest.mark.parametrize(
    "name, kind, encoding, delimiter, header_row, first_line",
    [
        ("collector-default.csv", Kind.COLLECTOR, "utf-16-le with BOM", ",", 1, 2),
        ("collector-grouptag.csv", Kind.COLLECTOR, "utf-16-le with BOM", ",", 1, 2),
        ("collector-partner-force.csv", Kind.PARTNER_CENTER, "utf-16-le with BOM", ",", 1, 2),
        ("partner-center-template.csv", Kind.PARTNER_CENTER, "utf-8", ",", 1, 2),
        ("configmgr-report.csv", Kind.CONFIGMGR, "utf-8 with BOM", ",", None, 4),
        ("headerless.csv", Kind.HEADERLESS, "utf-8", ",", None, 1),
        ("excel-damaged.csv", Kind.PARTNER_CENTER, "utf-8 with BOM", ";", 1, 2),
    ],
)
def test_each_sample_is_recognised_and_has_twelve_numbered_rows(
    name: str, kind: Kind, encoding: str, delimiter: str, header_row: int | None, first_line: int
) -> None:
    dialect, rows = load(name)
    assert (dialect.format, dialect.kind, dialect.encoding) == ("delimited", kind, encoding)
    assert (dialect.delimiter, dialect.header_row) == (delimiter, header_row)
    assert [row.number for row in rows] == list(range(1, 13))
    assert [row.line for row in rows] == list(range(first_line, first_line + 12))
    assert all(row.notices == () and row.is_sound for row in rows)


def test_every_sample_is_covered_here() -> None:
    tested = {
        "collector-default.csv",
        "collector-grouptag.csv",
        "collector-partner-force.csv",
        "partner-center-template.csv",
        "configmgr-report.csv",
        "headerless.csv",
        "excel-damaged.csv",
    }
    assert {path.name for path in SAMPLES.glob("*.csv")} == tested


@pytest.mark.parametrize("name", ["collector-default.csv", "configmgr-report.csv", "headerless.csv"])
def test_serial_and_whole_hash_are_read(name: str) -> None:
    _, rows = load(name)
    for row in rows:
        assert set(row.fields) == {"serial_number", "hardware_hash"}
        assert len(row.fields["hardware_hash"]) == 4000
        assert 7 <= len(row.fields["serial_number"]) <= 10
        assert row.extra == {}
    assert len({row.fields["serial_number"] for row in rows}) == 12


def test_collector_columns_are_named_as_written() -> None:
    dialect, rows = load("collector-default.csv")
    assert dialect.columns == tuple(zip(COLLECTOR, IDENTITY, strict=True))
    assert dialect.notices == ()
    assert rows[0].fields["serial_number"] == "5CDWJC1HLX"
    assert rows[0].original == ("5CDWJC1HLX", "", rows[0].fields["hardware_hash"])


def test_group_tags_are_read() -> None:
    dialect, rows = load("collector-grouptag.csv")
    assert dialect.columns[3] == ("Group Tag", "group_tag")
    assert Counter(row.fields["group_tag"] for row in rows) == {"Kiosk": 4, "Sales": 8}


def test_partner_force_gives_tuples_without_hash() -> None:
    _, rows = load("collector-partner-force.csv")
    assert all(set(row.fields) == {"serial_number", "manufacturer", "model"} for row in rows)
    assert rows[1].fields == {
        "serial_number": "PFM5C9KKV",
        "manufacturer": "Dell Inc.",
        "model": "Latitude 5530",
    }


def test_partner_center_template_gives_four_rows_of_each_identity() -> None:
    dialect, rows = load("partner-center-template.csv")
    assert dialect.columns[0] == ("Device serial number", "serial_number")
    kinds = Counter(tuple(sorted(row.fields)) for row in rows)
    assert kinds == {
        ("manufacturer", "model", "serial_number"): 4,
        ("product_key",): 4,
        ("hardware_hash",): 4,
    }


def test_configmgr_values_come_from_behind_the_repeated_names() -> None:
    dialect, rows = load("configmgr-report.csv")
    assert dialect.columns == tuple(zip(COLLECTOR, IDENTITY, strict=True))
    assert [notice.code for notice in dialect.notices] == ["lines_above_table"]
    assert rows[0].fields["serial_number"] == "CNDC89YV24"
    assert rows[0].original[:3] == COLLECTOR


def test_headerless_columns_are_told_in_a_notice() -> None:
    dialect, rows = load("headerless.csv")
    assert dialect.columns == tuple(zip(("column 1", "column 2", "column 3"), IDENTITY, strict=True))
    assert [notice.code for notice in dialect.notices] == ["header_missing"]
    assert rows[0].fields["serial_number"] == "0TSE52PM"


def test_a_spreadsheets_damage_is_handed_on_untouched() -> None:
    dialect, rows = load("excel-damaged.csv")
    assert dialect.columns[5] == ("Order line", "line_ref")
    assert [(notice.code, notice.column) for notice in dialect.notices] == [("column_not_sent", "Order line")]
    assert [row.fields["line_ref"] for row in rows] == [f"L{number}" for number in range(1, 13)]
    fields = [{name: value for name, value in row.fields.items() if name != "line_ref"} for row in rows]
    assert fields[0] == {
        "serial_number": "5CDT99SZ0T ",
        "manufacturer": "Microsoft Corporation",
        "model": "Surface Laptop 5",
    }
    assert fields[1] == {"serial_number": "5CD9R007F4", "product_key": "4.89871E+12"}
    assert fields[3] == {"serial_number": "02TQPJDY", "product_key": "00330-80000-00000-AA206"}
    assert fields[4] == {"serial_number": "03CUVUGS", "manufacturer": "Dell Inc."}
    assert fields[5] == fields[6] == {"product_key": "0284750002680"}
    assert fields[10] == {}
    assert [index for index, row in enumerate(fields) if "hardware_hash" in row] == [7, 8, 9, 11]
