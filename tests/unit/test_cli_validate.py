"""`registrar validate` and `registrar hash show`: what they say, how they end, and that they need nothing."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.cli.outcome import ExitCode
from app.domain.identity import IdentityKind
from app.intake.rows import read
from app.local.synthetic import devices
from tests.unit.test_hardware_hash_damage import capture

SAMPLES = Path(__file__).parents[1] / "samples"


def run(*arguments: str, given: bytes | None = None) -> Result:
    # As wide as a pipe, wherever the tests run: what does not fit is broken over lines.
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, input=given)


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def test_a_good_file_ends_with_zero_and_says_what_it_is() -> None:
    result = run("validate", str(SAMPLES / "collector-grouptag.csv"))
    assert result.exit_code == ExitCode.DONE
    for words in (
        "UTF-16-le with BOM",
        "header in line 1",
        "12 devices",
        "Kiosk",
        "Sales",
        "nothing was sent",
    ):
        assert words in result.stdout


def test_a_damaged_file_names_each_problem_with_line_column_and_remedy() -> None:
    result = run("validate", str(SAMPLES / "excel-damaged.csv"))
    assert result.exit_code == ExitCode.PARTIAL
    line = next(line for line in result.stdout.splitlines() if "destroyed the PKID" in line)
    assert "Windows Product ID" in line
    assert "4.89871E+12" in line
    assert "Format the column as text and enter the 13 digits again" in result.stdout
    assert "T0" not in result.stdout


def test_a_program_gets_the_same_as_a_document() -> None:
    found = document(run("validate", str(SAMPLES / "excel-damaged.csv"), "--json"))
    assert found["exit_code"] == ExitCode.PARTIAL
    assert found["counts"] == {"rows": 12, "valid": 3, "invalid": 9, "with_warnings": 2}
    assert found["group_tags"] == [{"group_tag": None, "devices": 3, "batches": 1}]
    assert found["file"]["columns"][5] == {"name": "Order line", "field": "line_ref"}
    assert [notice["code"] for notice in found["file"]["notices"]] == ["column_not_sent"]
    assert {problem["code"]: problem["rows"] for problem in found["problems"]}["hash_truncated"] == 1


def test_nothing_usable_is_four_and_a_file_that_can_not_be_read_is_one(tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("Serial Number,Make\n1,HP\n")
    assert run("validate", str(bad)).exit_code == ExitCode.REFUSED
    bad.write_bytes(b"%PDF-1.7\n%\xe2\xe3")
    assert run("validate", str(bad)).exit_code == ExitCode.ERROR
    assert run("validate", str(tmp_path / "none.csv")).exit_code == ExitCode.ERROR
    assert run("validate", str(tmp_path)).exit_code == ExitCode.ERROR
    assert run("validate", str(bad), "--platform", "moon").exit_code == ExitCode.ERROR


def test_the_platform_decides_what_is_legal(tmp_path: Path) -> None:
    path = str(SAMPLES / "collector-partner-force.csv")
    assert run("validate", path).exit_code == ExitCode.DONE
    refused = run("validate", path, "--platform", "intune", "--json")
    assert refused.exit_code == ExitCode.REFUSED
    assert document(refused)["problems"][0]["code"] == "identity_not_accepted"


def test_a_profile_is_applied_and_its_mistakes_are_named(tmp_path: Path) -> None:
    file, profile = tmp_path / "devices.csv", tmp_path / "profile.json"
    file.write_text("Gerät;Typ\n5CD1;X\n", encoding="utf-8")
    profile.write_text(
        '{"columns": {"Gerät": "serial_number", "Typ": "model"}, "constants": {"manufacturer": "HP"}}'
    )
    assert run("validate", str(file), "--profile", str(profile)).exit_code == ExitCode.DONE
    profile.write_text('{"columns": {"Gerät": "colour"}}')
    result = run("validate", str(file), "--profile", str(profile))
    assert result.exit_code == ExitCode.ERROR
    assert "/columns/Gerät" in result.stderr
    profile.write_text("{")
    assert "not JSON" in run("validate", str(file), "--profile", str(profile)).stderr


def test_the_invalid_rows_are_written_to_be_corrected_and_given_again(tmp_path: Path) -> None:
    path, again = tmp_path / "errors.csv", tmp_path / "again.csv"
    source = str(SAMPLES / "excel-damaged.csv")
    assert run("validate", source, "--errors", str(path)).exit_code == ExitCode.PARTIAL
    _, rows = read(io.BytesIO(path.read_bytes()))
    with open(source, "rb") as stream:
        originals = {row.fields["line_ref"]: row.fields for row in read(stream)[1]}
    found = list(rows)
    assert len(found) == 9
    assert all(row.fields == originals[row.fields["line_ref"]] for row in found)
    again.write_bytes(path.read_bytes().replace(b"4.89871E+12", b"4898710000000"))
    assert document(run("validate", str(again), "--json"))["counts"]["valid"] == 2


LATE = "Serial Number,Make,Model,PKID\n,,,0284750002680\n1,HP,X,\n1,HP,X,0284750002680\n2,HP,X,\n"
"""The third row shows that the second is the first one's device."""


def test_what_shows_only_at_the_end_is_counted_told_and_written_like_the_rest(tmp_path: Path) -> None:
    file, errors = tmp_path / "devices.csv", tmp_path / "errors.csv"
    file.write_text(LATE)
    found = document(run("validate", str(file), "--errors", str(errors), "--json"))
    assert found["counts"] == {"rows": 4, "valid": 2, "invalid": 2, "with_warnings": 0}
    problem = found["problems"][0]
    lines = [example["line"] for example in problem["examples"]]
    assert (problem["code"], lines) == ("duplicate_in_order", [3, 4])
    rows = list(csv.DictReader(io.StringIO(errors.read_text("utf-8-sig"))))
    assert [(row["row"], row["code"].split()[0]) for row in rows] == [
        ("2", "duplicate_in_order"),
        ("3", "duplicate_in_order"),
    ]


def test_a_pipe_is_read_twice_where_it_has_to_be() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "validate", "-", "--json"],
        cwd=Path(__file__).parents[2],
        input=LATE.encode(),
        capture_output=True,
        check=False,
    )
    assert json.loads(done.stdout)["counts"]["invalid"] == 2, done.stderr


def test_the_file_itself_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "devices.csv"
    path.write_text("Serial Number,Make\n1,HP\n")
    result = run("validate", str(path), "--errors", str(path))
    assert result.exit_code == ExitCode.ERROR
    assert path.read_text() == "Serial Number,Make\n1,HP\n"


def test_a_file_without_errors_leaves_no_file_of_errors(tmp_path: Path) -> None:
    path = tmp_path / "errors.csv"
    run("validate", str(SAMPLES / "headerless.csv"), "--errors", str(path))
    assert not path.exists()


def test_the_input_can_be_a_pipe() -> None:
    data = (SAMPLES / "headerless.csv").read_bytes()
    assert run("validate", "-", given=data).exit_code == ExitCode.DONE


def test_a_million_rows_are_checked_in_bounded_memory(tmp_path: Path) -> None:
    """A tenth of a million here, with a tenth of what may be added to the program's own size."""
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    header = "Serial Number,Manufacturer,Model,Group Tag\n"
    small.write_text(header + "5CD0,Contoso,Book 14,Kiosk\n")
    large.write_text(header + "".join(f"5CD{n:07d},Contoso,Book 14,Kiosk\n" for n in range(100_000)))
    peaks = [peak_kilobytes(path) for path in (small, large)]
    assert peaks[1] - peaks[0] < 15_000, peaks


def peak_kilobytes(path: Path) -> int:
    code = (
        "import sys\nfrom app.cli import main\n"
        "try:\n    main(['validate', sys.argv[1], '--json'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        # Not getrusage: its peak counts what the parent had when it forked.
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=Path(__file__).parents[2],
        # Neither settings nor a database are there.
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        check=True,
        text=True,
    )
    return int(done.stderr.splitlines()[-1])


# --- hash show ------------------------------------------------------------------------------------


def test_a_hash_is_explained_and_not_printed() -> None:
    text = capture()
    result = run("hash", "show", given=text.encode())
    assert result.exit_code == ExitCode.DONE
    for words in ("The hash is whole.", "SYN0000042", "Contoso Book 14", "9999000000042"):
        assert words in result.stdout
    assert text[:60] not in result.stdout
    assert text[300:360] not in result.stdout
    assert "identifiers" in run("hash", "show", "--help").stdout


def test_damage_is_named_with_its_remedy() -> None:
    result = run("hash", "show", "-", "--json", given=capture()[:700].encode())
    assert result.exit_code == ExitCode.REFUSED
    (finding,) = document(result)["findings"]
    assert finding["code"] == "hash_truncated"
    assert "Capture the hash again" in finding["remedy"]
    assert "repaired" in run("hash", "show", given=capture()[:3000].encode()).stdout
    assert run("hash", "show", given=b"Hello").exit_code == ExitCode.REFUSED


def test_a_hash_is_found_in_a_file_with_devices(tmp_path: Path) -> None:
    rows = list(devices(3, kind=IdentityKind.HARDWARE_HASH))
    path = tmp_path / "devices.csv"
    path.write_text("Serial Number,Hash\n" + "".join(f"{d.serial_number},{d.hardware_hash}\n" for d in rows))
    assert rows[1].serial_number in run("hash", "show", str(path), "--row", "2").stdout
    late = run("hash", "show", str(path), "--row", "9")
    assert late.exit_code == ExitCode.ERROR
    assert "only 3 rows with a hardware hash" in late.stderr
    path.write_text("Serial Number,Manufacturer,Model\nSYN1,Contoso,Book\n")
    assert "No row of the file has a hardware hash." in run("hash", "show", str(path)).stderr
    assert run("hash", "show", str(tmp_path / "none")).exit_code == ExitCode.ERROR
    assert run("hash", "show", given=b"a b c d").exit_code == ExitCode.ERROR


@pytest.mark.parametrize("words", [("validate", "--help"), ("hash", "show", "--help")])
def test_the_help_says_how_it_ends(words: tuple[str, ...]) -> None:
    result = run(*words)
    assert "Ends with 0" in result.stdout
