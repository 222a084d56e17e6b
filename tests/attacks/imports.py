"""Files and profiles that are small to send and large to work on."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from hashlib import shake_128

import httpx

from tests.attacks.attack import Attack, Target, in_loops, status_of

THREADS = 4
ROWS = 200_000
TEXTS = 6_000
"""Texts of 32,000 characters each: 190 MB, different enough not to count as a bomb."""
PROFILE_TAGS = 10_000


def _rows(count: int) -> bytes:
    header = b"Device Serial Number,Manufacturer name,Device model\r\n"
    return gzip.compress(header + b"".join(b"SYN%08d,Contoso,Book\r\n" % n for n in range(count)), 9)


def _import(target: Target, data: bytes) -> Counter[str]:
    given = {"params": {"customer_id": target.customers[0]}, "content": data}
    return in_loops(target, THREADS, lambda client, _: [status_of(client, "POST", "/v1/imports", **given)])


def _files(target: Target) -> Counter[str]:
    return _import(target, _rows(ROWS))


def _lines(target: Target) -> Counter[str]:
    """1.4 million rows, more than one file may have, in a few megabytes."""
    return _import(target, _rows(7 * ROWS))


def _workbook(target: Target) -> Counter[str]:
    return _import(target, workbook())


def workbook(texts: int = TEXTS) -> bytes:
    """A sheet of one device, and shared texts that are unpacked to a hundred times the file."""
    name = "http://schemas.openxmlformats.org"
    main = f"{name}/spreadsheetml/2006/main"
    relations = f"{name}/officeDocument/2006/relationships"
    package = f"{name}/package/2006/relationships"
    names = ("Serial number", "Manufacturer", "Model")
    rows = "".join(
        f'<row r="{line}">'
        + "".join(f'<c t="inlineStr"><is><t>{text}</t></is></c>' for text in cells)
        + "</row>"
        for line, cells in enumerate((names, ("SYN00001", "Contoso", "Book")), start=1)
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{name}/package/2006/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{package}"><Relationship Id="r1" '
        f'Type="{relations}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets>'
        '<sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}">'
        f'<Relationship Id="r1" Type="{relations}/worksheet" Target="worksheets/sheet1.xml"/>'
        f'<Relationship Id="r2" Type="{relations}/sharedStrings" Target="sharedStrings.xml"/>'
        "</Relationships>",
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>',
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in parts.items():
            archive.writestr(path, text)
        with archive.open("xl/sharedStrings.xml", "w") as stream:
            stream.write(f'<sst xmlns="{main}">'.encode())
            for n in range(texts):
                different = shake_128(str(n).encode()).hexdigest(160)
                stream.write(f"<si><t>{different}{'A' * 31_680}</t></si>".encode())
            stream.write(b"</sst>")
    return packed.getvalue()


def _profiles(target: Target) -> Counter[str]:
    """Definitions of 30 MB, and lists of them."""
    path = "/v1/vendor-profiles"
    values = {f"{n:08d}" + "x" * 3000: "T" for n in range(PROFILE_TAGS)}
    body = {"name": "P", "definition": {"group_tag": {"column": "A", "values": values}}}

    def step(client: httpx.Client, _: int) -> Iterator[str]:
        for n in range(8):
            body["name"] = f"P{n}"
            yield f"made: {status_of(client, 'POST', path, json=body)}"
        yield f"listed: {status_of(client, 'GET', path)}"

    return in_loops(target, 1, step)


ATTACKS = [
    Attack("files", f"uploads gzip files of {ROWS:,} rows in {THREADS} loops", _files),
    Attack("lines", f"uploads gzip files of {7 * ROWS:,} rows in {THREADS} loops", _lines),
    Attack("workbooks", f"uploads workbooks with {TEXTS:,} huge texts in {THREADS} loops", _workbook),
    Attack("profiles", "sends vendor profiles of 30 MB and lists them", _profiles),
]
