"""Reads one row of a portal's list of results: its outcome, or why it has none.

The rules, in order:
- Microsoft's own code decides, if there is one: its name, or its number alone in a column of codes, beside
  its own name, or as "error code 806". A number in a sentence is text.
- Otherwise the word for the outcome decides. Sentences decide nothing, nor does "no error" in any form.
- Columns that disagree leave the device open. So does an unknown word. Both are quoted.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from app.domain import autopilot_errors
from app.domain.autopilot_errors import NUMBERS
from app.domain.cell_text import unwrapped
from app.domain.masking import quoted, shown
from app.domain.registration import SUCCESS, RegistrationState, UpstreamRow, interpret
from app.intake.columns import normalise
from app.intake.portal_words import (
    NEUTRAL,
    NO,
    NO_ERROR,
    SHOWN_WORDS,
    STATES,
    WORDS,
    YES,
    Title,
    Word,
    title_of,
)


class UnreadableResult(ValueError):
    """A list of results without outcomes. The words say what was expected."""


@dataclass(frozen=True, slots=True)
class PortalAnswer:
    """What one row of a list of results says about one device."""

    answer: UpstreamRow
    """The device, with Microsoft's code if the row has one."""
    said: RegistrationState | None = None
    """The outcome, if a word gives it and no code does."""
    doubt: str | None = None
    """Why the row gives no outcome (`answer.done` is false then); None if it does."""
    file_row: int | None = None
    """The row of the uploaded file, from 1 without the header."""
    detail: str | None = None
    """The portal's own sentence about a device that failed."""


class Code(NamedTuple):
    """Microsoft's number and name, as far as given."""

    number: str | None
    name: str | None


_NAME: Final = re.compile(r"[A-Za-z]*Ztd[A-Za-z]+|StorageError|HashNot4k")
_ERROR_CODE: Final = (
    r"(?:error\s*code|fehler\s*-?\s*code|code\s+d.?\s?erreur|c[oó]digo\s+de\s+error|codice\s+(?:di\s+)?errore"
    r"|fout\s*-?\s*code|エラー\s*コード)"
)
_SAID_AS_CODE: Final = re.compile(
    rf"{_ERROR_CODE}\s*[:=#]?\s*\(?([0-9]{{3}})(?![0-9A-Za-z]|[.,][0-9])", re.IGNORECASE
)
_BESIDE_NAME: Final = re.compile(
    rf"(?<![0-9])([0-9]{{3}})[\s:,()\[\]\-–—]{{1,4}}({_NAME.pattern})"
    rf"|({_NAME.pattern})[\s:,()\[\]\-–—]{{1,4}}([0-9]{{3}})(?![0-9])"
)
_ALONE: Final = re.compile(
    r"(?:error|fehler|erreur|errore|fout|code|エラー)?[\s:#]*\(?([0-9]{3})(?:[.,]0+)?\)?", re.IGNORECASE
)
_ANY_NUMBER: Final = re.compile(r"-?[0-9]+|0x[0-9a-f]+", re.IGNORECASE)
_ZERO: Final = re.compile(r"(?:0x)?0+(?:[.,]0+)?", re.IGNORECASE)
_COUNT: Final = re.compile(r"\s*\(0*[1-9][0-9]*\)\s*$")
_BREAKS: Final = re.compile(r"[\s:,;.!_–—/()]+|(?<=\s)-|-(?=\s)")
"""Between words; a dash inside of a word belongs to it: "De-registered" is no "registered"."""
_OBJECT: Final = re.compile(r"@?\{(.*)\}", re.DOTALL)
_MEMBER: Final = re.compile(r"\s*\"?([A-Za-z]+)\"?\s*[=:]\s*\"?([^;,\"}]*)\"?\s*")
_OF_CODES: Final = frozenset({"http", "code", "internal", "ended", "end", "returned", "microsoft", "ztd"})
_NEGATIONS: Final = frozenset({"not", "no", "nicht", "kein", "non", "pas", "niet", "geen", "without", "un"})


def columns_of(titles: Iterable[str]) -> dict[Title, list[str]]:
    """The columns with outcomes, by purpose. Raises UnreadableResult if there are none."""
    found: dict[Title, list[str]] = {}
    for title in titles:
        if (kind := title_of(title)) is not None:
            found.setdefault(kind, []).append(title)
    if not found.keys() & {Title.STATUS, Title.CODE, Title.NAME, Title.FLAG}:
        raise UnreadableResult(
            "No column says what became of the devices. Name it Status, Result, Error code or Error name; "
            "German, French, Spanish, Italian, Dutch and Japanese names are read too."
        )
    return found


def read_row(row: Mapping[str, str], columns: Mapping[Title, Sequence[str]]) -> PortalAnswer:
    """`row` has device fields under our names and all other cells under their titles."""
    evidence = _Evidence()
    for title in columns.get(Title.FLAG, ()):
        evidence.add_flag(_plain(row.get(title, "")))
    for title in columns.get(Title.STATUS, ()):
        evidence.add_status(_plain(row.get(title, "")))
    for title in columns.get(Title.CODE, ()):
        evidence.add_code(_plain(row.get(title, "")))
    for title in columns.get(Title.NAME, ()):
        evidence.add_name(_plain(row.get(title, "")))
    sentences = [text for title in columns.get(Title.TEXT, ()) if (text := _plain(row.get(title, "")))]
    for text in sentences:
        evidence.add_sentence(text)
    outcome = evidence.judge(has_status=Title.STATUS in columns)
    file_row = "".join(_plain(row.get(title, "")) for title in columns.get(Title.FILE_ROW, ()))
    return PortalAnswer(
        answer=UpstreamRow(
            done=outcome.doubt is None,
            code=outcome.code.number,
            name=outcome.code.name,
            serial_number=_plain(row.get("serial_number", "")) or None,
            product_key=_plain(row.get("product_key", "")) or None,
        ),
        said=outcome.said,
        doubt=outcome.doubt,
        file_row=int(file_row) if file_row.isascii() and file_row.isdecimal() and len(file_row) < 7 else None,
        detail=shown(" ".join(sentences)) if sentences and outcome.said is RegistrationState.FAILED else None,
    )


class _Outcome(NamedTuple):
    code: Code = Code(None, None)
    said: RegistrationState | None = None
    doubt: str | None = None


@dataclass
class _Evidence:
    """The statements of one row's cells, before they are compared."""

    words: dict[Word, str] = field(default_factory=dict)
    """Each with its text."""
    unknown: list[str] = field(default_factory=list)
    codes: list[Code] = field(default_factory=list)
    blank_status: bool = False
    no_error: bool = False
    """A cell says explicitly that there was no error."""
    sentence: str | None = None
    """A sentence that names one of Microsoft's success codes among other words, which may negate it."""

    def add_flag(self, text: str) -> None:
        """A cell of a column such as Success: yes or no."""
        plain = normalise(text)
        if plain in YES:
            self.words.setdefault(Word.REGISTERED, text)
        elif plain in NO:
            self.words.setdefault(Word.FAILED, text)
        elif plain:
            self.unknown.append(text)

    def add_sentence(self, text: str) -> None:
        codes = codes_in(text)
        others = [token for token in _tokens(_without_codes(text)) if not _is_plain(token)]
        if others and any(_is_success(code) for code in codes):
            self.sentence = text
        self.codes += codes

    def add_status(self, text: str) -> None:
        if members := _members(text):
            for name, value in members:
                match title_of(name):
                    case Title.STATUS:
                        self.add_status(value)
                    case Title.CODE:
                        self.add_code(value)
                    case Title.NAME:
                        self.add_name(value)
                    case _:
                        pass
            return
        if not normalise(text):
            self.blank_status |= not text
            self.unknown += [text] if text else []
            return
        codes = codes_in(text)
        if codes and _NEGATIONS & set(_tokens(text)):
            self.unknown.append(text)
            return
        if not codes and (alone := _ALONE.fullmatch(text)) and alone.group(1) in NUMBERS:
            codes = [Code(alone.group(1), None)]
        self.codes += codes
        rest = _without_codes(text) if codes else text
        if word := word_of(rest):
            self.words.setdefault(word, text)
        elif normalise(rest) and not (codes and normalise(rest) in NEUTRAL):
            self.unknown.append(text)

    def add_code(self, text: str) -> None:
        plain = normalise(text)
        if plain in NO_ERROR or _ZERO.fullmatch(text):
            self.no_error |= bool(plain)
        elif codes := codes_in(text):
            self.codes += codes
        elif alone := _ALONE.fullmatch(text):
            self.codes.append(Code(alone.group(1), None))
        elif _ANY_NUMBER.fullmatch(text):
            self.codes.append(Code(text, None))
        elif plain in YES:
            self.words.setdefault(Word.FAILED, text)
        else:
            self.words.setdefault(word_of(text) or Word.FAILED, text)

    def add_name(self, text: str) -> None:
        plain = normalise(text)
        if plain in NO_ERROR or _ZERO.fullmatch(text):
            self.no_error |= bool(plain)
        elif codes := codes_in(text):
            self.codes += codes
        elif " " not in text and not text.isdecimal():
            self.codes.append(Code(None, text))
        else:
            self.words.setdefault(word_of(text) or Word.FAILED, text)

    def judge(self, *, has_status: bool) -> _Outcome:
        code, doubt = _one_code(self.codes)
        if doubt is not None:
            return _Outcome(doubt=doubt)
        if code is not None:
            return self._judge_code(code)
        return self._judge_words(has_status=has_status)

    def _judge_code(self, code: Code) -> _Outcome:
        meaning = interpret(
            UpstreamRow(True, code.number, code.name), autopilot_errors.meaning, was_uncertain=False
        )
        assert meaning is not None  # it is done
        if self.sentence is not None and Word.FAILED in self.words:
            return _Outcome(doubt=_disagreement([self.words[Word.FAILED], self.sentence]))
        if (
            code.name
            and code.number in NUMBERS
            and _is_success(code)
            and not _is_success(Code(code.number, None))
        ):
            return _Outcome(doubt=_disagreement([code.number or "", code.name]))
        for word, text in self.words.items():
            if not _agree(word, meaning.state):
                return _Outcome(doubt=_disagreement([text, code.name or code.number or ""]))
        return _Outcome(code=code)

    def _judge_words(self, *, has_status: bool) -> _Outcome:
        words = dict(self.words)
        if len(words) > 1 and words.keys() <= _SUCCESSES:
            words.pop(Word.JOB_DONE, None)
            if Word.ALREADY in words:
                words.pop(Word.REGISTERED, None)
        if words.keys() == {Word.FAILED, Word.CONFLICT}:
            words.pop(Word.FAILED)
        if len(words) > 1:
            return _Outcome(doubt=_disagreement(words.values()))
        if self.unknown:
            return _Outcome(
                doubt=f"{quoted(self.unknown[0])} is not a word that is read. Read are: {SHOWN_WORDS}."
            )
        word = next(iter(words), None)
        if word is None:
            if self.no_error and not has_status:
                return _Outcome(said=RegistrationState.REGISTERED)
            return _Outcome(doubt="The row does not say how it went.")
        if word is Word.UNDER_WAY:
            return _Outcome(doubt=f"The portal is still working on it: {quoted(words[word])}.")
        if word is Word.JOB_DONE and self.blank_status:
            return _Outcome(
                doubt=f"{quoted(words[word])} is the upload's state; the column for the device is blank."
            )
        return _Outcome(said=STATES[word])


_SUCCESSES: Final = frozenset({Word.REGISTERED, Word.ALREADY, Word.JOB_DONE})


def _agree(word: Word, state: RegistrationState) -> bool:
    """Whether a word may accompany a code that means `state`."""
    match word:
        case Word.FAILED | Word.JOB_DONE:
            return True
        case Word.REGISTERED | Word.ALREADY:
            return state is RegistrationState.ALREADY_REGISTERED
        case Word.CONFLICT:
            return state is RegistrationState.CONFLICT
        case Word.UNDER_WAY:
            return False


def word_of(text: str) -> Word | None:
    """The known word of a cell, even with a count or in a short sentence about importing."""
    if "?" in text:
        return None
    text = _COUNT.sub("", text)
    if known := WORDS.get(normalise(text)):
        return known
    tokens = _tokens(text)
    if not tokens or len(tokens) > 6 or _NEGATIONS & set(tokens):
        return None
    said = {WORDS.get(token) for token in tokens if token not in NEUTRAL}
    if said == {Word.JOB_DONE, Word.REGISTERED}:
        return Word.REGISTERED
    return said.pop() if len(said) == 1 else None


def _tokens(text: str) -> list[str]:
    return [plain for token in _BREAKS.split(text) if (plain := normalise(token))]


def _is_plain(token: str) -> bool:
    """Whether the word says only that an import failed."""
    return token in NEUTRAL or WORDS.get(token) is Word.FAILED or token.isdecimal() or token in _OF_CODES


def _is_success(code: Code) -> bool:
    meaning = interpret(
        UpstreamRow(True, code.number, code.name), autopilot_errors.meaning, was_uncertain=False
    )
    return meaning is not None and meaning.state in SUCCESS


def codes_in(text: str) -> list[Code]:
    """Microsoft's codes in a text: names, numbers beside their own name, and "error code 806"."""
    numbers = {name.casefold(): number for number, name in NUMBERS.items()}
    beside = {
        (name or other).casefold(): number or last for number, name, other, last in _BESIDE_NAME.findall(text)
    }
    found = []
    for name in dict.fromkeys(_NAME.findall(text)):
        number = beside.get(name.casefold())
        own = numbers.get(name.casefold())
        found.append(Code(number if number and number == own else None, name))
    told = [Code(number, None) for number in dict.fromkeys(_SAID_AS_CODE.findall(text))]
    return found or told


def _without_codes(text: str) -> str:
    text = _NAME.sub(" ", _SAID_AS_CODE.sub(" ", text))
    return re.sub(r"(?<![0-9])[0-9]{3}(?![0-9])", " ", text)


def _one_code(codes: Sequence[Code]) -> tuple[Code | None, str | None]:
    """The row's one code, or why there is none. A name outranks a number, as everywhere."""
    if not codes:
        return None, None
    names = list(dict.fromkeys(code.name for code in codes if code.name))
    numbers = list(dict.fromkeys(code.number for code in codes if code.number))
    if len({name.casefold() for name in names}) > 1 or len(numbers) > 1:
        return None, _disagreement(names if len(names) > 1 else numbers)
    return Code(numbers[0] if numbers else None, names[0] if names else None), None


def _members(text: str) -> list[tuple[str, str]]:
    """The members of an object as PowerShell or JSON writes it into a cell."""
    inside = _OBJECT.fullmatch(text)
    return [(m.group(1), m.group(2).strip()) for m in _MEMBER.finditer(inside.group(1))] if inside else []


def _plain(text: str) -> str:
    """A cell without the characters that spreadsheets put around a value."""
    text = text.strip()
    return unwrapped("", text, []) or "" if text else ""


def _disagreement(texts: Iterable[str]) -> str:
    return f"The row contradicts itself: it says {' and '.join(quoted(text) for text in texts)}."
