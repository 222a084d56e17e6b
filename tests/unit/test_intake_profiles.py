"""A supplier's saved mapping: what it says, what it overrules, and how its mistakes are named."""

import io
from typing import Any

import pytest

from app.intake.profiles import Profile, ProfileError, TagRule
from app.intake.rows import Dialect, Row, read


def load(text: str, profile: dict[str, Any] | None) -> tuple[Dialect, list[Row]]:
    parsed = None if profile is None else Profile.parse(profile)
    dialect, rows = read(io.BytesIO(text.encode()), parsed)
    return dialect, list(rows)


def fields(text: str, profile: dict[str, Any]) -> list[dict[str, str]]:
    return [dict(row.fields) for row in load(text, profile)[1]]


def codes(dialect: Dialect) -> list[tuple[str, str | None]]:
    return [(notice.code, notice.column) for notice in dialect.notices]


WHOLE = {
    "columns": {"Gerät": "serial_number", "#4": "model", "Preis": None},
    "constants": {"manufacturer": "HP"},
    "group_tag": {"column": "Filiale", "values": {"Köln": "KLN"}, "otherwise": "REST"},
}


def test_a_profile_is_the_same_after_its_json() -> None:
    profile = Profile.parse(WHOLE)
    assert profile == Profile(
        columns={"Gerät": "serial_number", "#4": "model", "Preis": None},
        constants={"manufacturer": "HP"},
        group_tag=TagRule("Filiale", {"Köln": "KLN"}, "REST"),
    )
    assert profile.as_json() == WHOLE
    assert Profile.parse(profile.as_json()) == profile
    assert Profile.parse({}) == Profile() == Profile.parse(Profile().as_json())


def test_columns_nobody_knows_are_read_by_the_profile() -> None:
    profile = {**WHOLE, "columns": {"Geraet": "serial_number", "#4": "model", "Preis": None}}
    dialect, rows = load("GERAET;Filiale;Preis;Typ\nX1;köln ;9;X-15\nX2;;9;X-16\n", profile)
    assert dialect.columns == (
        ("GERAET", "serial_number"),
        ("Filiale", None),
        ("Preis", None),
        ("Typ", "model"),
    )
    assert dialect.notices == ()
    assert [dict(row.fields) for row in rows] == [
        {"serial_number": "X1", "model": "X-15", "manufacturer": "HP", "group_tag": "KLN"},
        {"serial_number": "X2", "model": "X-16", "manufacturer": "HP", "group_tag": "REST"},
    ]
    assert rows[0].extra == {"Filiale": "köln ", "Preis": "9"}


def test_it_outranks_a_columns_common_name() -> None:
    text = "Serial Number,Asset,Make,Model\nBOX1,REAL1,HP,X\n"
    dialect, rows = load(text, {"columns": {"asset": "serial_number"}})
    assert rows[0].fields == {"serial_number": "REAL1", "manufacturer": "HP", "model": "X"}
    assert rows[0].extra == {"Serial Number": "BOX1"}
    assert codes(dialect) == [("column_repeated", "Serial Number")]


def test_a_known_column_can_be_left_out_without_a_word() -> None:
    dialect, rows = load("Serial Number,Make,Model,Tag\n1,HP,X,y\n", {"columns": {"Tag": None}})
    assert "group_tag" not in rows[0].fields
    assert dialect.notices == ()


def test_what_the_file_lacks_is_told() -> None:
    profile = {"columns": {"Colour": None, "#9": "model"}, "group_tag": {"column": "Site", "values": {}}}
    dialect, _ = load("Serial Number,Make,Model\n1,HP,X\n", profile)
    assert codes(dialect) == [
        ("profile_column_missing", "Colour"),
        ("profile_column_missing", "#9"),
        ("profile_column_missing", "Site"),
    ]


def test_positions_read_a_file_without_names() -> None:
    profile = {"columns": {"#1": "model", "#3": "serial_number"}, "constants": {"manufacturer": "HP"}}
    dialect, rows = load("Book 14,x,5CD1\nBook 15,y,5CD2\n", profile)
    assert dialect.header_row is None
    assert [row.fields["serial_number"] for row in rows] == ["5CD1", "5CD2"]
    assert rows[1].fields["model"] == "Book 15"
    assert codes(dialect) == [("header_missing", None)]


def test_positions_pass_over_a_heading_of_unknown_words() -> None:
    profile = {"columns": {"#1": "model", "#3": "serial_number"}, "constants": {"manufacturer": "HP"}}
    dialect, rows = load("Foo,Bar,Baz\nBook 14,x,5CD1\n", profile)
    assert dialect.header_row == 1
    assert [dict(row.fields) for row in rows] == [
        {"model": "Book 14", "serial_number": "5CD1", "manufacturer": "HP"}
    ]


def test_the_tag_rule_outranks_the_rows_own_tag_and_its_otherwise_does_not() -> None:
    profile = {
        "constants": {"group_tag": "CONSTANT"},
        "group_tag": {"column": "Site", "values": {"A": "TAG-A"}, "otherwise": "REST"},
    }
    text = "Serial Number,Make,Model,Group Tag,Site\n1,HP,X,own,A\n2,HP,X,own,B\n3,HP,X,,B\n4,HP,X,,\n"
    assert [row["group_tag"] for row in fields(text, profile)] == ["TAG-A", "own", "REST", "REST"]
    del profile["group_tag"]["otherwise"]  # type: ignore[attr-defined]
    assert [row["group_tag"] for row in fields(text, profile)] == ["TAG-A", "own", "CONSTANT", "CONSTANT"]


def test_a_second_header_in_the_file_is_read_by_the_profile_too() -> None:
    text = "Serial Number,Make,Model\n1,HP,X\nSerial Number,Sorte,Make\n2,Y,HP\n"
    rows = fields(text, {"columns": {"Sorte": "model"}})
    assert rows[1] == {"serial_number": "2", "model": "Y", "manufacturer": "HP"}


@pytest.mark.parametrize(
    "value, pointer, word",
    [
        ([], "", "object"),
        ({"column": {}}, "/column", "columns, constants, group_tag"),
        ({"columns": []}, "/columns", "object"),
        ({"columns": {"A": "colour"}}, "/columns/A", "serial_number"),
        ({"columns": {"A": 1}}, "/columns/A", "null"),
        ({"columns": {"": None}}, "/columns/", "position"),
        ({"columns": {"#0": None}}, "/columns/#0", "1 to 512"),
        ({"columns": {"#x": None}}, "/columns/#x", "1 to 512"),
        ({"columns": {"#" + "9" * 5000: None}}, "/columns/#" + "9" * 5000, "1 to 512"),
        ({"columns": {"--": None}}, "/columns/--", "letter"),
        ({"columns": {"a b": None, "A_B": None}}, "/columns/A_B", "'a b'"),
        ({"columns": {"x/y~": "colour"}}, "/columns/x~1y~0", "one of"),
        ({"columns": {"n" * 101: None}}, "/columns/" + "n" * 101, "100"),
        ({"constants": {"serial_number": "1"}}, "/constants/serial_number", "different for every device"),
        ({"constants": {"colour": "1"}}, "/constants/colour", "manufacturer"),
        ({"constants": {"model": ""}}, "/constants/model", "not empty"),
        ({"constants": {"model": "a\nb"}}, "/constants/model", "seen"),
        ({"group_tag": {"values": {}}}, "/group_tag", "column"),
        ({"group_tag": {"column": "A", "values": {"x": 1}}}, "/group_tag/values/x", "text"),
        ({"group_tag": {"column": "A", "values": {"x": "1", "X ": "2"}}}, "/group_tag/values/X ", "'x'"),
        ({"group_tag": {"column": "A", "otherwise": " "}}, "/group_tag/otherwise", "text"),
        ({"group_tag": {"column": "A", "other": "x"}}, "/group_tag/other", "otherwise"),
    ],
)
def test_a_mistake_is_named_with_its_place(value: Any, pointer: str, word: str) -> None:
    assert issubclass(ProfileError, ValueError)
    with pytest.raises(ProfileError) as caught:
        Profile.parse(value)
    assert caught.value.pointer == pointer
    assert word in caught.value.words
