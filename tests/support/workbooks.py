"""Makes workbooks as spreadsheet programs write them, or malformed ones: every part can be replaced."""

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"

Cell = str | int | float | None


class Raw(str):
    """A cell as literal XML."""


def workbook(
    sheets: Mapping[str, Iterable[Sequence[Cell]]],
    *,
    shared: bool = True,
    formats: Sequence[str] = (),
    parts: Mapping[str, str | bytes] | None = None,
    states: Mapping[str, str] | None = None,
) -> bytes:
    """Style 0 is general, style n shows `formats[n - 1]`. `parts` replaces parts of the archive; `states`
    are of sheets that are not visible."""
    texts: dict[str, int] = {}
    written: dict[str, str | bytes] = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": relationships({"rId1": ("officeDocument", "xl/workbook.xml")}),
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><sheets>'
        + "".join(
            f'<sheet name={quoteattr(name)} sheetId="{at}" {_state(states, name)}r:id="rId{at}"/>'
            for at, name in enumerate(sheets, start=1)
        )
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": relationships(
            {
                **{
                    f"rId{at}": ("worksheet", f"worksheets/sheet{at}.xml") for at in range(1, len(sheets) + 1)
                },
                "rIdS": ("styles", "styles.xml"),
                "rIdT": ("sharedStrings", "sharedStrings.xml"),
            }
        ),
        "xl/styles.xml": styles(formats),
    }
    for at, rows in enumerate(sheets.values(), start=1):
        written[f"xl/worksheets/sheet{at}.xml"] = sheet(rows, texts if shared else None)
    if shared:
        listed = "".join(f'<si><t xml:space="preserve">{escape(text)}</t></si>' for text in texts)
        written["xl/sharedStrings.xml"] = f'<sst xmlns="{MAIN}">{listed}</sst>'
    written |= parts or {}
    return archive(written)


def _state(states: Mapping[str, str] | None, name: str) -> str:
    return f'state="{states[name]}" ' if states and name in states else ""


def relationships(targets: Mapping[str, tuple[str, str]], types: str = RELATIONS) -> str:
    """By id: the last word of the type, and the target."""
    written = "".join(
        f'<Relationship Id="{id}" Type="{types}/{type_}" Target={quoteattr(target)}/>'
        for id, (type_, target) in targets.items()
    )
    return f'<Relationships xmlns="{PACKAGE}">{written}</Relationships>'


def archive(parts: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in parts.items():
            packed.writestr(name, data)
    return buffer.getvalue()


def styles(formats: Sequence[str]) -> str:
    named = "".join(
        f'<numFmt numFmtId="{164 + at}" formatCode={quoteattr(code)}/>' for at, code in enumerate(formats)
    )
    used = "".join(f'<xf numFmtId="{164 + at}"/>' for at in range(len(formats)))
    return (
        f'<styleSheet xmlns="{MAIN}"><numFmts>{named}</numFmts><cellStyleXfs><xf numFmtId="14"/>'
        f'</cellStyleXfs><cellXfs><xf numFmtId="0"/>{used}</cellXfs></styleSheet>'
    )


def sheet(rows: Iterable[Sequence[Cell]], texts: dict[str, int] | None = None) -> str:
    lines = (
        f'<row r="{line}">' + "".join(_cell(cell, line, at, texts) for at, cell in enumerate(row)) + "</row>"
        for line, row in enumerate(rows, start=1)
    )
    return f'<worksheet xmlns="{MAIN}"><sheetData>{"".join(lines)}</sheetData></worksheet>'


def _cell(cell: Cell, line: int, at: int, texts: dict[str, int] | None) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Raw):
        return cell
    place = f'r="{chr(65 + at)}{line}"'
    if not isinstance(cell, str):
        return f"<c {place}><v>{cell}</v></c>"
    if texts is None:
        return f'<c {place} t="inlineStr"><is><t xml:space="preserve">{escape(cell)}</t></is></c>'
    return f'<c {place} t="s"><v>{texts.setdefault(cell, len(texts))}</v></c>'
