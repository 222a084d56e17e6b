"""Rows become devices and problems, which are named by the file's columns and never reveal too much."""

import io
from datetime import UTC, datetime

import pytest

from app.domain.catalogue import CATALOGUE, Severity
from app.domain.identity import CheckedDevice, IdentityKind, Rules
from app.domain.masking import shown
from app.intake.corrections import Corrections
from app.intake.devices import check_row, device_of, without_secrets
from app.intake.problems import Problem, of_notice, problems_of
from app.intake.rows import Row, read
from app.local.synthetic import devices

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RULES = Rules(frozenset(IdentityKind))
LICENSE_KEY = "-".join(["ABCDE"] * 5)


def rows(text: str) -> list[Row]:
    return list(read(io.BytesIO(text.encode()))[1])


def judged(text: str) -> tuple[Row, CheckedDevice, tuple[Problem, ...]]:
    row = rows(text)[0]
    checked = check_row(row, RULES, NOW)
    return row, checked, problems_of(row, checked)


def test_a_row_becomes_a_device_known_by_its_number_unless_it_has_a_name() -> None:
    first, second = rows("Serial Number,Make,Model,Line,Tag\n1,HP,X,,\n2,HP,X,L-7,Kiosk\n")
    assert device_of(first).line_ref == "1"
    assert device_of(first, "Default").group_tag == "Default"
    assert device_of(second, "Default").group_tag == "Kiosk"
    assert device_of(second).line_ref == "L-7"
    assert device_of(second).serial_number == "2"


def test_a_problem_names_the_files_own_column_and_the_value_in_it() -> None:
    _, checked, (problem,) = judged("Seriennummer;Windows PKID\n1;4,89871E+12\n")
    assert not checked.is_valid
    assert problem == Problem(
        code="product_key_scientific",
        severity=Severity.ERROR,
        column="Windows PKID",
        field="product_key",
        value="4,89871E+12",
        detail="It is in scientific notation.",
        remedy=CATALOGUE["product_key_scientific"].remedy,
    )


def test_a_notice_of_the_row_is_a_problem_of_the_same_shape_and_makes_the_device_invalid() -> None:
    _, checked, problems = judged('Serial Number,Make,Model\n"1,HP,X\n')
    assert not checked.is_valid
    assert checked.keys == ()
    assert [(p.code, p.is_error, p.column) for p in problems] == [
        ("quote_unclosed", True, None),
    ]


def test_errors_come_before_warnings() -> None:
    _, _, problems = judged("Serial Number,PKID\n 1 ,4.89871E+12\n")
    assert [problem.code for problem in problems] == ["product_key_scientific", "value_trimmed"]


def test_a_file_level_notice_has_a_column_and_a_remedy_and_no_value() -> None:
    dialect, _ = read(io.BytesIO(b"Serial Number,Make,Model,Colour\n1,HP,X,red\n"))
    problem = of_notice(dialect.notices[0])
    assert (problem.code, problem.column, problem.field, problem.value) == (
        "column_unknown",
        "Colour",
        None,
        None,
    )
    assert "profile" in problem.remedy


def test_neither_hashes_nor_product_keys_are_shown() -> None:
    (device,) = devices(1, kind=IdentityKind.HARDWARE_HASH)
    assert device.hardware_hash is not None
    broken = device.hardware_hash[:700]
    _, _, problems = judged(f"Serial Number,Hash\n{device.serial_number},{broken}\n")
    assert [(p.code, p.value) for p in problems] == [("hash_truncated", None)]
    _, _, problems = judged(f"Serial Number,PKID\n1,{LICENSE_KEY}\n")
    assert [(p.code, p.value) for p in problems] == [("product_key_is_license_key", None)]
    _, _, problems = judged(f"Serial Number,Make\n{broken},HP\n")
    assert {p.value for p in problems} == {None}
    assert broken[:40] not in repr(problems)
    for text in (LICENSE_KEY, f"key: {LICENSE_KEY.lower()}", LICENSE_KEY.replace("-", ""), broken):
        assert shown(text) is None


def test_a_long_or_invisible_value_is_shown_bounded() -> None:
    assert shown("ab\x07c") == "ab\ufffdc"
    assert shown("Surface Laptop " * 9) == ("Surface Laptop " * 9)[:64] + "…"
    assert shown("5CD1") == "5CD1"
    assert shown(None) is None


SECRET_COLUMNS = "Serial Number,Make,Model,Customer,Purchase Order,Assigned User,Line,Group Tag,Sticker\n"


@pytest.mark.parametrize("column", ["Customer", "Purchase Order", "Assigned User", "Line", "Sticker"])
def test_a_product_key_in_any_column_is_told_and_not_kept(column: str) -> None:
    names = SECRET_COLUMNS.strip().split(",")
    cells = ["SYN1", "HP", "X", *[""] * 6]
    cells[names.index(column)] = f"key {LICENSE_KEY}"
    row, checked, problems = judged(SECRET_COLUMNS + ",".join(cells) + "\n")
    assert checked.is_valid
    assert checked.line_ref == "1"
    [problem] = [problem for problem in problems if problem.code == "secret_left_out"]
    assert (problem.is_error, problem.value) == (False, None)
    assert column in (problem.column, *problem.detail.split("'"))
    assert LICENSE_KEY not in repr(problems) + repr(without_secrets(row))
    written: list[bytes] = []
    corrections = Corrections(written.append, row.columns)
    corrections.add(row, problems)
    assert LICENSE_KEY not in b"".join(written).decode()


def test_a_piece_of_a_hash_is_kept_in_the_hashs_own_column_only() -> None:
    (device,) = devices(1, kind=IdentityKind.HARDWARE_HASH)
    text = str(device.hardware_hash)
    row, checked, problems = judged(f"Serial Number,Hash,Note\n{device.serial_number},{text},{text[:100]}\n")
    assert checked.is_valid
    assert [problem.code for problem in problems] == ["secret_left_out"]
    assert without_secrets(row) == [device.serial_number, text, ""]


def test_a_secret_in_the_place_of_a_columns_name_is_no_name() -> None:
    dialect, _ = read(io.BytesIO(f"Serial Number,Make,Model,{LICENSE_KEY}\n1,HP,X,y\n".encode()))
    assert [name for name, _ in dialect.columns] == ["Serial Number", "Make", "Model", "column 4"]
    assert LICENSE_KEY not in repr(dialect)


def test_a_group_tag_that_is_a_placeholder_gives_way_to_the_default() -> None:
    [row] = rows("Serial Number,Make,Model,Tag\n5CD2,HP,X,N/A\n")
    assert check_row(row, RULES, NOW, "Default").group_tag == "Default"
