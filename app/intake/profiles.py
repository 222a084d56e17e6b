"""A supplier's saved mapping of its columns to fields, with constants and group tags.

An unknown name is mapped once and read correctly from then on. A profile only adds to the usual rules: for
columns it does not mention, names and content decide. It is stored as JSON, edited by people, and given by
API or command line, and every mistake in it must be named before a file is read with it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NoReturn

from app.domain.characters import unsafe_in_cell, unseen
from app.domain.masking import quoted, visible
from app.intake import columns
from app.intake.columns import FIELDS, IDENTITY, MAX_NAME, Columns, normalise
from app.intake.table import Notice
from app.intake.text import encodings

MAX_COLUMNS: Final = 512
MAX_TAGS: Final = 10_000
MAX_VALUE: Final = 256
"""The most characters of one value."""
MAX_DEFINITION: Final = 256 * 1024
"""The most bytes as JSON. A supplier with 4,000 values that choose tags needs half of this."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TagRule:
    """The group tag by another column's value. `values` are compared without case and outer blanks.

    A match outranks the row's own group tag; `otherwise` does not.
    """

    column: str
    values: Mapping[str, str]
    otherwise: str | None = None

    def chooser(self) -> "TagChooser":
        return TagChooser({_folded(value): tag for value, tag in self.values.items()}, self.otherwise)


@dataclass(frozen=True, slots=True)
class TagChooser:
    """A tag rule prepared for the loop over rows."""

    tags: Mapping[str, str]
    otherwise: str | None

    def choose(self, cell: str, own: str | None) -> str | None:
        return self.tags.get(_folded(cell)) or own or self.otherwise


@dataclass(frozen=True, slots=True)
class Profile:
    """`columns`: maps a column's name, or its position as `#3` (from 1), to a field, or to None: not used.

    Names are compared as all column names are: letters and digits only, without case and accents. `constants`
    are for rows without a value for the field. `encoding` is for the supplier's texts that do not state one.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    group_tag: TagRule | None = None
    encoding: str | None = None

    @classmethod
    def accept(cls, value: Any) -> "Profile":
        """Like `parse`, for a new profile, whose size is also bounded. Stored ones are only parsed."""
        found = cls.parse(value)
        size = len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if size > MAX_DEFINITION:
            words = f"The definition has {size:,} bytes as JSON; it may have {MAX_DEFINITION:,}."
            raise ProfileError("", f"{words} Make a profile for each part of the files.")
        for column in found.columns:
            _refuse_unsafe(unsafe_in_cell(column), _at("/columns", column))
        if found.group_tag is not None:
            _refuse_unsafe(unsafe_in_cell(found.group_tag.column), "/group_tag/column")
        for cell in () if found.group_tag is None else found.group_tag.values:
            _refuse_unsafe(unsafe_in_cell(cell), _at("/group_tag/values", cell))
            if len(cell) > MAX_VALUE:
                words = (
                    f"A value to choose by has at most {MAX_VALUE} characters; this one has {len(cell):,}."
                )
                raise ProfileError("/group_tag/values", f"{words} It begins with {quoted(cell)}.")
        return found

    @classmethod
    def parse(cls, value: Any) -> "Profile":
        """Reads it from JSON. Raises ProfileError, a ValueError that says what is wrong and where."""
        whole = _object(value, "", ("columns", "constants", "group_tag", "encoding"))
        whole = {name: part for name, part in whole.items() if part is not None}
        return cls(
            columns=_columns(whole.get("columns", {})),
            constants=_constants(whole.get("constants", {})),
            group_tag=_tag_rule(whole["group_tag"]) if "group_tag" in whole else None,
            encoding=_encoding(whole["encoding"]) if "encoding" in whole else None,
        )

    def as_json(self) -> dict[str, Any]:
        """The JSON that `parse` reads as an equal profile."""
        rule = self.group_tag
        whole: dict[str, Any] = {
            "columns": dict(self.columns),
            "constants": dict(self.constants),
            "group_tag": None
            if rule is None
            else {"column": rule.column, "values": dict(rule.values), "otherwise": rule.otherwise},
        }
        # Left out if there is none, so that older profiles stay as they were.
        return whole if self.encoding is None else {**whole, "encoding": self.encoding}

    def field_of(self, name: str) -> str | None:
        """The field of a column's name: by the profile if it has the name, otherwise by the common names."""
        if len(name) <= MAX_NAME and (key := normalise(name)):
            for column, chosen in self.columns.items():
                if not column.startswith("#") and normalise(column) == key:
                    return chosen
        return columns.field_of(name)

    def places(self, header: Sequence[str]) -> tuple[dict[int, str | None], list[str]]:
        """Position -> field for the columns of this header that the profile settles, and its columns that are
        missing.

        If it gives two columns the same field, the one that it names first counts.
        """
        settled: dict[int, str | None] = {}
        lacking = []
        for column, chosen in self.columns.items():
            at = _place(column, header)
            if at is None:
                lacking.append(column)
            elif at not in settled:
                settled[at] = chosen
        return settled, lacking


class ProfileError(ValueError):
    """`pointer` is the JSON pointer to the mistake, `words` describe it, and `code` is of the catalogue."""

    def __init__(self, pointer: str, words: str, code: str = "validation_failed") -> None:
        super().__init__(f"{visible(pointer) or '/'}: {words}")
        self.pointer = pointer
        self.words = words
        self.code = code


def names_of(profile: Profile | None) -> Callable[[str], str | None]:
    """The field of a column's name in this reading."""
    return columns.field_of if profile is None else profile.field_of


def resolve(header: Sequence[str], profile: Profile | None, sure: dict[int, str] | None = None) -> Columns:
    """`columns.resolve` with the profile's columns in front; notices tell which names match no column."""
    if profile is None:
        return columns.resolve(header, sure)
    settled, lacking = profile.places(header)
    rule = profile.group_tag
    if rule is not None:
        at = _place(rule.column, header)
        if at is None:
            lacking.append(rule.column)
        elif at not in settled and columns.field_of(header[at]) is None:
            settled[at] = None  # it is used, by the rule
    found = columns.resolve(header, sure, settled)
    return replace(found, notices=(*found.notices, *map(missing, dict.fromkeys(lacking))))


def tag_place(profile: Profile | None, names: Sequence[str]) -> int | None:
    """The position of the column by which the profile chooses group tags."""
    rule = profile.group_tag if profile is not None else None
    return None if rule is None else _place(rule.column, names)


def missing(column: str) -> Notice:
    """The profile's column that this file lacks."""
    words = f"The profile speaks of column '{column}', which this file does not have."
    return Notice("profile_column_missing", words, column)


def _place(column: str, header: Sequence[str]) -> int | None:
    if column.startswith("#"):
        at = int(column[1:]) - 1
        return at if at < len(header) else None
    key = normalise(column)
    return next(
        (at for at, name in enumerate(header) if len(name) <= MAX_NAME and normalise(name) == key), None
    )


def _folded(value: str) -> str:
    return value.strip().casefold()


# --- from JSON ------------------------------------------------------------------------------------


def _refuse(pointer: str, words: str) -> NoReturn:
    raise ProfileError(pointer, words)


def _refuse_unsafe(said: str | None, pointer: str) -> None:
    if said is not None:
        raise ProfileError(pointer, said, "value_has_control_characters")


def _object(value: Any, pointer: str, allowed: tuple[str, ...] | None = None) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        _refuse(pointer, "This must be a JSON object.")
    for name in value:
        if allowed is not None and name not in allowed:
            _refuse(_at(pointer, name), f"There is no such setting; there are {', '.join(allowed)}.")
    return value


def _at(pointer: str, name: str) -> str:
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _columns(value: Any) -> Mapping[str, str | None]:
    found = _object(value, "/columns")
    if len(found) > MAX_COLUMNS:
        _refuse("/columns", f"There are more than {MAX_COLUMNS} columns.")
    seen: dict[str, str] = {}
    for column, chosen in found.items():
        pointer = _at("/columns", column)
        key = _column(column, pointer)
        if key in seen:
            _refuse(pointer, f"This is the same column as '{seen[key]}'.")
        seen[key] = column
        if chosen is not None and chosen not in FIELDS:
            _refuse(pointer, f"The field must be null (not used) or one of {', '.join(FIELDS)}.")
    return dict(found)


def _column(column: Any, pointer: str) -> str:
    """The key for comparing columns."""
    if not isinstance(column, str) or not column.strip():
        _refuse(pointer, "A column is given by its name, or by its position as #3.")
    if column.startswith("#"):
        digits = column[1:]
        if not (digits.isascii() and digits.isdecimal() and 1 <= int(digits[:6]) <= MAX_COLUMNS):
            _refuse(pointer, f"A position is # and a number from 1 to {MAX_COLUMNS}.")
        return f"#{int(digits[:6])}"
    if len(column) > MAX_NAME:
        _refuse(pointer, f"A column's name has at most {MAX_NAME} characters.")
    key = normalise(column)
    if not key:
        _refuse(pointer, "A name needs a letter or a digit; give the column's position as #3.")
    return key


def _constants(value: Any) -> Mapping[str, str]:
    found = _object(value, "/constants")
    for name, constant in found.items():
        pointer = _at("/constants", name)
        if name in IDENTITY:
            _refuse(pointer, "This is different for every device, so it cannot be a constant.")
        if name not in FIELDS:
            _refuse(
                pointer,
                f"There is no such field; there are {', '.join(f for f in FIELDS if f not in IDENTITY)}.",
            )
        _text(constant, pointer)
    return dict(found)


def _tag_rule(value: Any) -> TagRule:
    found = _object(value, "/group_tag", ("column", "values", "otherwise"))
    if "column" not in found:
        _refuse("/group_tag", "`column` is missing: by which column is the group tag chosen?")
    _column(found["column"], "/group_tag/column")
    values = _object(found.get("values", {}), "/group_tag/values")
    if len(values) > MAX_TAGS:
        _refuse("/group_tag/values", f"There are more than {MAX_TAGS:,} values.")
    seen: dict[str, str] = {}
    for cell, tag in values.items():
        pointer = _at("/group_tag/values", cell)
        _text(tag, pointer)
        if (same := seen.setdefault(_folded(cell), cell)) != cell:
            _refuse(pointer, f"This is the same value as '{same}': capitals and outer blanks do not count.")
    otherwise = found.get("otherwise")
    if otherwise is not None:
        _text(otherwise, "/group_tag/otherwise")
    return TagRule(found["column"], dict(values), otherwise)


def _encoding(value: Any) -> str:
    _text(value, "/encoding")
    try:
        encodings.named(value)
    except ValueError as error:
        _refuse("/encoding", str(error))
    return str(value)


def _text(value: Any, pointer: str) -> None:
    if not isinstance(value, str) or not value.strip():
        _refuse(pointer, "This must be a text that is not empty.")
    if len(value) > MAX_VALUE:
        _refuse(pointer, f"This has more than {MAX_VALUE} characters.")
    _refuse_unsafe(unseen(value), pointer)
