"""Fuzz harnesses: each takes bytes and may raise only the documented exceptions of its reader."""

import gzip
import io
from collections.abc import Callable, Sequence

from app.domain.hardware_hash import HashError, decode, explain
from app.intake.profiles import Profile
from app.intake.rows import UnreadableFile, read
from tests.support.workbooks import workbook

PROFILE = Profile.parse(
    {
        "columns": {"Make": None, "#2": "manufacturer"},
        "constants": {"model": "X"},
        "group_tag": {"column": "Model", "values": {"x": "T"}, "otherwise": "O"},
    }
)
MOST_ROWS = 10_000
"""The most rows that are read, because libFuzzer takes a slow input for a hang."""


def files(data: bytes) -> None:
    """Any file through the entry point of all files. Its first byte chooses a profile."""
    profile = PROFILE if data[:1] > b"\x7f" else None
    _read(data[1:], profile)


def sheets(data: bytes) -> None:
    """The XML of a worksheet or of shared texts, because a fuzzer does not get past a zip's checksums."""
    name = "xl/sharedStrings.xml" if data[:1] > b"\x7f" else "xl/worksheets/sheet1.xml"
    _read(workbook({"A": [("Serial Number", "Make", "Model"), ("1", "HP", 2)]}, parts={name: data[1:]}))


def packed(data: bytes) -> None:
    """The content of gzip, for the same reason."""
    _read(gzip.compress(data, compresslevel=1))


def hashes(data: bytes) -> None:
    """The text of a hash, as text and as the bytes behind it."""
    for text in (data, _as_hash(data)):
        try:
            explain(decode(text))
        except HashError:
            continue


def _as_hash(data: bytes) -> str:
    """A record list with corrected length and checksum, so that the records are reached."""
    import hashlib
    from base64 import b64encode

    total = min(len(data), 2900) + 4
    blob = b"OA" + total.to_bytes(2, "little") + data[: total - 4]
    blob += b"CS\x24\x00" + hashlib.sha256(blob).digest()
    return b64encode(blob.ljust(3000, b"\0")).decode()


def _read(data: bytes, profile: Profile | None = None) -> None:
    try:
        _, rows = read(io.BytesIO(data), profile)
        for row in rows:
            "".join((*row.original, *row.fields.values(), *row.extra.values())).encode()
            if row.number > MOST_ROWS:
                break
    except UnreadableFile:
        return


HARNESSES: dict[str, Callable[[bytes], None]] = {
    "files": files,
    "sheets": sheets,
    "packed": packed,
    "hashes": hashes,
}


def seeds(name: str) -> Sequence[bytes]:
    """Inputs that the fuzzer starts from."""
    from pathlib import Path

    from app.local.synthetic import devices
    from tests.unit.test_intake_formats import oa3
    from tests.unit.test_intake_fuzz import BOOK, SCRAPS, WHOLE

    if name == "hashes":
        return [d.hardware_hash.encode() for d in devices(9) if d.hardware_hash]
    if name == "sheets":
        tags = "".join(SCRAPS).encode()
        return [b"\x00<worksheet><sheetData>" + tags, b"\xff<sst>" + tags, b"\x00" + oa3().encode()]
    samples = [path.read_bytes()[:6000] for path in Path("tests/samples").glob("*.csv")]
    prefix = b"" if name == "packed" else b"\x00"
    return [prefix + data for data in (*WHOLE, BOOK, *samples)]
