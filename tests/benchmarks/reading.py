"""Benchmark of reading files: rows a second and memory of our reader, beside a bare loop over the same file.

The bounds: for CSV the csv module over the decoded stream, for workbooks python-calamine, which holds the
sheet in memory. Each reading runs in its own process, so that peak memory is its own. Bound and reader take
turns, and the better of two runs counts. Seconds are processor time, so that other programs do not matter. A
row's fields are looked up on access, so reading all fields of each row is measured too.
"""

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.support.workbooks import archive

HEADER = "Device Serial Number,Windows Product ID,Hardware Hash,Manufacturer name,Device model"
ROUNDS = 2

_MEASURE = """
import json, sys, time
kind, path = sys.argv[1:]
if kind in ("ours", "fields"):
    from app.intake.rows import read
    def rows():
        with open(path, "rb") as stream:
            yield from read(stream)[1] if kind == "ours" else (row.fields for row in read(stream)[1])
elif kind == "csv":
    import csv
    csv.field_size_limit(1 << 20)
    def rows():
        with open(path, encoding="utf-8-sig", newline="") as stream:
            yield from csv.reader(stream)
else:
    from python_calamine import CalamineWorkbook
    def rows():
        yield from CalamineWorkbook.from_path(path).get_sheet_by_index(0).iter_rows()
begun = time.process_time()
count = sum(1 for _ in rows())
taken = time.process_time() - begun
# Not getrusage: its peak counts what the parent had when it forked.
status = open("/proc/self/status").read()
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"rows": count, "seconds": taken, "peak": peak}))
"""


def run(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for count in (100_000, 1_000_000):
        found[f"{count:,} tuples, CSV"] = _compare(_csv(directory, count, _tuple), "csv", count)
        found[f"{count:,} tuples, XLSX"] = _compare(write_workbook(directory, count), "calamine", count)
    for count in (100_000, 1_000_000):
        found[f"{count:,} hashes, CSV"] = _compare(_csv(directory, count, _hash), "csv", count)
    # A tenth as many: a spreadsheet program shares texts, so all hashes are in one list of the file.
    hashed = write_workbook(directory, 100_000, hashed=True)
    found["100,000 hashes, XLSX"] = _compare(hashed, "calamine", 100_000)
    return found


def _compare(path: Path, bound: str, count: int) -> dict[str, Any]:
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for kind in (bound, "ours", "fields"):
            measured = _measured(kind, path)
            assert measured["rows"] in (count, count + 1), measured
            if kind not in best or measured["seconds"] < best[kind]["seconds"]:
                best[kind] = measured
    path.unlink()
    return {
        "rows_per_s": count / best["ours"]["seconds"],
        "rows_per_s_with_fields": count / best["fields"]["seconds"],
        f"{bound}_rows_per_s": count / best[bound]["seconds"],
        "times_the_bound": best["ours"]["seconds"] / best[bound]["seconds"],
        "peak_mb": best["ours"]["peak"],
        f"{bound}_peak_mb": best[bound]["peak"],
    }


def _measured(kind: str, path: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, kind, str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=True,
        text=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _tuple(number: int) -> str:
    return f"5CD{number:07d},,,Contoso,Contoso Book 14"


def _hash(number: int) -> str:
    # The length and the characters of a hash; readers do not care about its content.
    return f"5CD{number:07d},,T0HR{number:07d}{'AgEAk+/9' * 170}{'A' * 2629},,"


def _csv(directory: Path, count: int, line: Any) -> Path:
    path = directory / "devices.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.write(HEADER + "\r\n")
        for number in range(count):
            stream.write(line(number) + "\r\n")
    return path


def write_workbook(directory: Path, count: int, *, hashed: bool = False) -> Path:
    """Writes a workbook as a spreadsheet program does: repeated texts are shared."""
    path = directory / "devices.xlsx"
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    names = HEADER.split(",")

    def texts() -> Iterator[str]:
        yield from (*names, "Contoso", "Contoso Book 14")
        yield from (f"5CD{number:07d}" for number in range(count))
        if hashed:
            # Less alike than those of `_hash`: otherwise the package would be refused as a compression bomb.
            chance = Random(1)
            yield from (f"T0HR{b64encode(chance.randbytes(780)).decode():A<3996}" for _ in range(count))

    def rows() -> Iterator[str]:
        yield (
            '<row r="1">'
            + "".join(f'<c r="{letter}1" t="s"><v>{at}</v></c>' for at, letter in enumerate("ABCDE"))
            + "</row>"
        )
        for number in range(count):
            line = number + 2
            third = f'<c r="C{line}" t="s"><v>{number + 7 + count}</v></c>' if hashed else ""
            yield (
                f'<row r="{line}" spans="1:5"><c r="A{line}" t="s"><v>{number + 7}</v></c>{third}'
                f'<c r="D{line}" t="s"><v>5</v></c><c r="E{line}" t="s"><v>6</v></c></row>'
            )

    package = "http://schemas.openxmlformats.org/package/2006"
    related = f'<Relationships xmlns="{package}/relationships">'
    shared = "".join(f"<si><t>{text}</t></si>" for text in texts())
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'{related}<Relationship Id="rId1" Type="{relations}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets>'
        '<sheet name="Devices" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'{related}<Relationship Id="rId1" Type="{relations}/worksheet" '
        f'Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Type="{relations}/sharedStrings" '
        'Target="sharedStrings.xml"/></Relationships>',
        "xl/sharedStrings.xml": f'<sst xmlns="{main}" uniqueCount="{shared.count("<si>")}">{shared}</sst>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{"".join(rows())}</sheetData>'
        "</worksheet>",
    }
    path.write_bytes(archive(parts))
    return path
