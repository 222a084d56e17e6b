"""The reader of delimited text: CSV in its many dialects, tab-separated, semicolons, pipes.

It ties together what the other modules decide: encoding, records, layout, shaping. It
is the last reader to be asked: what nobody else claims is read as text or refused here.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from app.intake import encodings, foreign, layout, shaping
from app.intake.encodings import Encoding, Text
from app.intake.layout import Layout
from app.intake.profiles import Profile
from app.intake.records import Record, blocks, records
from app.intake.table import Dialect, Head, Row, Source

DELIMITERS: Final = (",", ";", "\t", "|")
"""In the order of preference when the content does not tell them apart (a single column)."""
SAMPLE: Final = 200
"""Records looked at."""


def claims(head: Head) -> bool:
    """Everything: what is no text is refused by `read`, in words."""
    return True


def read(head: Head, stream: Source, profile: Profile | None = None) -> tuple[Dialect, Iterator[Row]]:
    """Raises UnreadableFile when the bytes are no text, or no column of it is an identity."""
    encoding = encodings.detect(head)
    delimiter, found = _sniff(head, encoding, profile)
    dialect = Dialect(
        format="delimited",
        kind=found.kind,
        encoding=encoding.name,
        delimiter=delimiter,
        header_row=found.header_row,
        columns=found.columns.pairs,
        notices=(*found.notices, *found.columns.notices),
    )
    source = blocks(Text(head, stream, encoding), delimiter)
    return dialect, shaping.rows(source, found, profile)


def _sniff(head: Head, encoding: Encoding, profile: Profile | None) -> tuple[str, Layout]:
    foreign.refuse_text("".join(Text(head, None, encoding)))
    best: tuple[str, Layout] | None = None
    samples = {delimiter: _sample(head, encoding, delimiter) for delimiter in DELIMITERS}
    for delimiter, sample in samples.items():
        found = layout.find(sample, profile)
        if found is not None and (best is None or found.score > best[1].score):
            best = delimiter, found
    if best is None:
        raise layout.refusal(samples[","])
    return best


def _sample(head: Head, encoding: Encoding, delimiter: str) -> list[Record]:
    sample = list(islice(records(Text(head, None, encoding), delimiter), SAMPLE + 1))
    if len(sample) > SAMPLE or (not head.whole and len(sample) > 1):
        # The last record may be cut where the head ends.
        sample.pop()
    return sample
