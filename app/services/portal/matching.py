"""Matches the lines of a portal's result list to the devices of a batch. Pure, without a database."""

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from app.db.registrations import SendableRow
from app.domain import autopilot_errors
from app.domain.batch import SentRow, match_answers
from app.domain.errors import Unprocessable
from app.domain.registration import Meaning, UpstreamRow, interpret
from app.intake import portal_pane
from app.intake.portal_results import PortalAnswer, UnreadableResult, columns_of, read_row
from app.intake.portal_words import title_of
from app.intake.rows import Dialect, Row, UnreadableFile, read
from app.services.portal.entries import SPOKEN

RESULT_SPOOL = 64 * 1024 * 1024
"""Bytes that an unpacked workbook of results may have: 1,000 devices with hashes take 4 MB."""
MAX_RESULT_ROWS: Final = 10_000
"""The most lines read from a result file: ten times what any portal accepts."""

_NOTHING: Final = SentRow(None, None)

Said = tuple[int, PortalAnswer]
"""A line number of the file, from 1, and the line's answer."""


@dataclass(frozen=True, slots=True)
class ResultFile:
    said: Sequence[Said]
    unread: Sequence[str]
    """Titles of unknown columns, which were not read."""


@dataclass
class Matches:
    found: list[tuple[int, SendableRow, Meaning, PortalAnswer]] = field(default_factory=list)
    """Line, row, meaning and answer of each device found."""
    untouched: list[tuple[int, str]] = field(default_factory=list)
    """Lines that give no outcome, and why."""


def read_result(content: bytes) -> ResultFile:
    """Reads a result file. Raises Unprocessable if it has no outcomes."""
    try:
        dialect, found = read(io.BytesIO(content), max_spool=RESULT_SPOOL)
        rows = list(islice(found, MAX_RESULT_ROWS + 1))
    except UnreadableFile as error:
        if pane := portal_pane.read(content):
            return ResultFile(pane, ())
        raise Unprocessable("result_not_readable", error.words) from error
    if len(rows) > MAX_RESULT_ROWS:
        raise Unprocessable("result_not_readable", f"The file has more than {MAX_RESULT_ROWS:,} rows.")
    try:
        return _read_rows(dialect, rows)
    except UnreadableResult as error:
        if pane := portal_pane.read(content):
            return ResultFile(pane, ())
        raise Unprocessable("result_not_readable", str(error)) from error


def _read_rows(dialect: Dialect, rows: Sequence[Row]) -> ResultFile:
    others = [title for title, of in dialect.columns if of is None]
    columns = columns_of(others)
    if not rows:
        raise Unprocessable("result_not_readable", "The file has a header and no rows below it.")
    said = [(row.line, read_row({**row.extra, **row.fields}, columns)) for row in rows]
    return ResultFile(said, [title for title in others if title_of(title) is None])


def match(rows: Sequence[SendableRow], said: Sequence[Said], *, whole: bool) -> Matches:
    """Matches lines to `rows`, the batch in the order of its file. `whole`: it still has all its devices."""
    matches = Matches()
    named = Counter(key for row in rows for key in _keys_of(row))
    by_row = [entry for entry in said if entry[1].file_row is not None]
    by_key = _without_repetitions(named, [entry for entry in said if entry[1].file_row is None], matches)
    devices = (*_by_file_row(rows, by_row, matches, whole=whole), *_by_key(rows, named, by_key, matches))
    for line, row, answer in devices:
        meaning = meaning_of(answer)
        if answer.doubt is not None or meaning is None:
            matches.untouched.append((line, answer.doubt or "The row does not say how it went."))
        else:
            matches.found.append((line, row, meaning, answer))
    return matches


def meaning_of(answer: PortalAnswer) -> Meaning | None:
    if answer.said is not None:
        return SPOKEN[answer.said]
    return interpret(answer.answer, autopilot_errors.meaning, was_uncertain=False)


def _keys_of(row: SendableRow) -> set[SentRow]:
    """All keys by which a line may name the device."""
    serial, product_key = row.serial_number, row.product_key
    return {SentRow(serial, product_key), SentRow(serial, None), SentRow(None, product_key)}


def _without_repetitions(named: Mapping[SentRow, int], said: Sequence[Said], matches: Matches) -> list[Said]:
    """Reduces devices named more often than the batch has them: once if the lines agree, otherwise never."""
    groups: dict[SentRow, list[Said]] = defaultdict(list)
    for entry in said:
        groups[_key(entry[1])].append(entry)
    kept: list[Said] = []
    for key, entries in groups.items():
        devices = named.get(key, 0)
        if key == _NOTHING or len(entries) <= max(devices, 1):
            kept += entries
        elif len({_outcome(answer) for _, answer in entries}) == 1:
            kept += entries[: max(devices, 1)]
        else:
            lines = ", ".join(str(line) for line, _ in entries)
            words = f"The file names this device on lines {lines} with different outcomes."
            matches.untouched += [(line, words) for line, _ in entries]
    return sorted(kept, key=lambda entry: entry[0])


def _outcome(answer: PortalAnswer) -> tuple[Meaning | None, str | None]:
    return meaning_of(answer) if answer.doubt is None else None, answer.doubt


def _key(answer: PortalAnswer) -> SentRow:
    return SentRow(answer.answer.serial_number, answer.answer.product_key)


def _by_file_row(
    rows: Sequence[SendableRow], said: Sequence[Said], matches: Matches, *, whole: bool
) -> Iterator[tuple[int, SendableRow, PortalAnswer]]:
    for line, answer in said:
        place = answer.file_row
        assert place is not None
        key = _key(answer)
        if not whole:
            words = "Some devices of this file are now in a new file: name the device by its serial number."
        elif not 1 <= place <= len(rows):
            words = f"The file has {len(rows):,} rows; there is no row {place:,}."
        elif key != _NOTHING and key not in _keys_of(rows[place - 1]):
            words = f"Row {place:,} of the file is another device, not the one named here."
        else:
            yield line, rows[place - 1], answer
            continue
        matches.untouched.append((line, words))


def _by_key(
    rows: Sequence[SendableRow], named: Mapping[SentRow, int], said: Sequence[Said], matches: Matches
) -> Iterator[tuple[int, SendableRow, PortalAnswer]]:
    # A line that names no device is never matched: it may be a line of totals.
    answers = [_comparable(answer) for _, answer in said if _key(answer) != _NOTHING]
    entries = [entry for entry in said if _key(entry[1]) != _NOTHING]
    of = {id(answer): entry for answer, entry in zip(answers, entries, strict=True)}
    sent = [SentRow(row.serial_number, row.product_key) for row in rows]
    left = dict(said)
    for row, matched in zip(rows, match_answers(sent, answers), strict=True):
        if matched.answer is None:
            continue
        line, answer = of[id(matched.answer)]
        left.pop(line, None)
        if matched.certain:
            yield line, row, answer
        else:
            words = "Several devices of this batch have these values, and their outcomes differ."
            matches.untouched.append((line, words))
    for line, answer in left.items():
        devices = named.get(_key(answer), 0)
        if _key(answer) == _NOTHING:
            words = "The line names no device: it has no serial number and no PKID."
        elif devices == 0:
            words = "No device of this batch has this serial number or PKID."
        else:
            words = f"{devices:,} devices of this batch have this value; the file has to name each of them."
        matches.untouched.append((line, words))


def _comparable(answer: PortalAnswer) -> UpstreamRow:
    """The answer with an outcome's word in place of the error name, so that words are compared like codes."""
    if answer.said is None:
        return answer.answer
    return answer.answer._replace(name=answer.said.value)
