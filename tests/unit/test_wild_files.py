"""Files as people send them: each gives what `tests/samples/wild/right-answers.toml` says."""

import io
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.domain.hardware_hash import TEXT_LENGTH
from app.domain.identity import CheckedDevice, IdentityKind, Rules
from app.intake.devices import check_row
from app.intake.rows import Wanted, read

WILD = Path(__file__).parents[1] / "samples" / "wild"
ANSWERS: dict[str, dict[str, Any]] = tomllib.loads((WILD / "right-answers.toml").read_text(encoding="utf-8"))
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def validated(name: str, *options: str) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "400"}).invoke(app, ["validate", str(WILD / name), *options])
    return result.exit_code, result.output


def checked(name: str) -> list[tuple[int, CheckedDevice]]:
    with (WILD / name).open("rb") as stream:
        _, rows = read(stream)
        return [(row.line, check_row(row, Rules(frozenset(IdentityKind)), NOW)) for row in rows]


def test_every_file_has_its_right_answer() -> None:
    assert {path.name for path in WILD.iterdir()} - {"right-answers.toml"} == set(ANSWERS)
    assert len(ANSWERS) >= 50


@pytest.mark.parametrize("name", ANSWERS)
def test_a_file_is_judged_rightly(name: str) -> None:
    right = ANSWERS[name]
    if right.get("refused"):
        exit_code, text = validated(name)
        assert exit_code == 1
        assert all(word in text for word in right["words"])
        return
    exit_code, text = validated(name, "--json")
    nothing: dict[str, Any] = {"problems": [], "file": {"notices": []}}
    found = json.loads(text) if text.startswith("{") else nothing
    assert right.get("exit", exit_code) == exit_code
    told = {problem["code"] for problem in found["problems"]}
    notes = {notice["code"] for notice in found["file"]["notices"]}
    assert told >= set(right.get("codes", ()))
    assert notes >= set(right.get("notes", ()))
    assert not (told | notes) & set(right.get("never", ()))
    assert all(word in text for word in right.get("words", ()))
    for count in ("valid", "invalid"):
        assert right.get(count, found.get("counts", {}).get(count)) == found.get("counts", {}).get(count)
    if "invalid_least" in right:
        assert found["counts"]["invalid"] >= right["invalid_least"]
    if "valid_less" in right:
        assert found["counts"]["valid"] < right["valid_less"]


@pytest.mark.parametrize("name", [name for name, right in ANSWERS.items() if "sent" in right])
def test_the_values_of_a_device_are_what_is_written(name: str) -> None:
    found = checked(name)
    for expected in ANSWERS[name]["sent"]:
        fields = {field: value or None for field, value in expected.items() if field != "line"}
        candidates = [
            {field: getattr(device, field) for field in fields}
            for line, device in found
            if line == expected["line"] and device.is_valid
        ]
        assert fields in candidates


@pytest.mark.parametrize(
    "name",
    [
        "17-vertical.csv", "19-format-list.txt", "22-hash-wrapped-quoted.csv", "23-hash-wrapped-unquoted.csv",
        "87-hash-plus-to-space.csv", "100-collector-partner-comma-maker-hash.csv",
        "148-space-comma-quotes-hash.csv",
    ],
)  # fmt: skip
def test_a_hash_of_any_shape_is_sent_whole(name: str) -> None:
    for _, device in checked(name):
        assert device.kind is IdentityKind.HARDWARE_HASH
        assert device.hash is not None
        assert len(device.hash.data) <= TEXT_LENGTH * 3 // 4


def test_a_stated_encoding_is_no_guess_and_an_unknown_one_is_refused_with_the_list() -> None:
    exit_code, text = validated("34-cp1251.csv", "--encoding", "windows-1251", "--json")
    found = json.loads(text)
    assert (exit_code, found["file"]["encoding"], found["file"]["notices"]) == (0, "cp1251", [])
    assert [tag["group_tag"] for tag in found["group_tags"]] == ["Офис"]
    assert found["problems"] == []
    exit_code, text = validated("34-cp1251.csv", "--encoding", "klingon")
    assert exit_code == 1
    assert "cp932" in text
    with pytest.raises(ValueError, match="utf-8, utf-16-le"):
        read(io.BytesIO(b"Serial\n1\n"), wanted=Wanted(encoding="klingon"))
