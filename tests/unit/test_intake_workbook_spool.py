"""Big workbooks wait on the disk they are given, and take no more memory for being ten times as big."""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from app.intake.rows import read
from app.intake.table import UnreadableFile
from app.intake.xlsx import archive, shared_texts
from app.kernel.settings import Settings
from tests.benchmarks import reading

ROOT = Path(__file__).parents[2]
MEASURED = """
import sys
from pathlib import Path
from app.intake.xlsx import archive, shared_texts
from app.intake.rows import read
from app.intake.table import UnreadableFile
archive.IN_MEMORY = shared_texts.HELD = 256 * 1024
path, spool = Path(sys.argv[1]), Path(sys.argv[2])
with path.open("rb") as stream:
    dialect, rows = read(stream, spool=spool)
    count = sum(1 for row in rows)
print(count, open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def test_temporary_files_are_made_in_the_spool_directory_and_are_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "IN_MEMORY", 1000)
    monkeypatch.setattr(shared_texts, "HELD", 1000)
    made: list[Any] = []
    for name in ("SpooledTemporaryFile", "TemporaryFile"):
        original = getattr(tempfile, name)

        def noted(*given: Any, original: Any = original, **more: Any) -> Any:
            made.append(Path(more["dir"]))
            return original(*given, **more)

        monkeypatch.setattr(tempfile, name, noted)
    spool = tmp_path / "spool"
    spool.mkdir()
    data = reading.write_workbook(tmp_path, 300).read_bytes()
    _, rows = read(io.BytesIO(data), spool=spool)
    assert len(list(rows)) == 300
    # A file that has moved out of memory is made by its own module, in the same directory.
    assert set(made) == {spool}
    assert list(spool.iterdir()) == []


def test_a_workbook_ten_times_as_big_takes_no_more_memory(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    peaks = []
    for count in (600, 6000):
        directory = tmp_path / str(count)
        directory.mkdir()
        path = reading.write_workbook(directory, count, hashed=True)
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(path), str(spool)],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            text=True,
        )
        rows, peak = map(int, done.stdout.split())
        assert rows == count
        peaks.append(peak)
    # 24 MB of texts are in the larger one.
    assert peaks[1] < 1.15 * peaks[0], peaks


def test_the_spool_directory_is_in_the_data_directory_with_the_embedded_database(tmp_path: Path) -> None:
    assert Settings(data_dir=tmp_path).spool == tmp_path / "spool"
    own = Settings(data_dir=tmp_path, database_url="postgresql://registrar@database/registrar")
    assert own.spool is None
    assert Settings(spool_dir=tmp_path / "other").spool == tmp_path / "other"


def test_a_workbook_whose_temporary_files_grow_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few packed bytes are many texts; what is written to the disk is what counts."""
    monkeypatch.setattr(shared_texts, "HELD", 1000)
    data = reading.write_workbook(tmp_path, 3000, hashed=True).read_bytes()
    spool = tmp_path / "spool"
    spool.mkdir()
    _, rows = read(io.BytesIO(data), spool=spool)
    assert len(list(rows)) == 3000
    with pytest.raises(UnreadableFile) as caught:
        read(io.BytesIO(data), spool=spool, max_spool=8 * 1024**2)
    assert caught.value.code == "workbook_too_large"
    assert "more than 8 MB" in caught.value.words
    del caught, rows
    assert list(spool.iterdir()) == []
