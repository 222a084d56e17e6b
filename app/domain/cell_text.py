"""A cell's text without what its file or its spreadsheet put around it: blanks, quotation marks, formulas.

What is taken away is told. What cannot be read at all (an error of a spreadsheet, a formula that was not
worked out, characters that cannot be seen) is an error of its own.
"""

import re
from typing import Final

from app.domain.catalogue import Finding
from app.domain.characters import unseen
from app.domain.masking import quoted, visible

_QUOTED: Final = re.compile(r"[\"“”„«»‘’‚‹›'](.*)[\"“”„«»‘’‚‹›']|['‘’]([^\"“”„«»‘’‚‹›']*)", re.DOTALL)
"""A pair around the value, or the single one by which spreadsheets mark a text."""
QUOTES: Final = frozenset("\"“”„«»‘’‚‹›'")
_APOSTROPHES: Final = frozenset("'‘’‚‹›")
_INVISIBLE_EDGES: Final = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\x00"
_SPREADSHEET_ERRORS: Final = re.compile(
    r"#(?:N/A|NULL!|DIV/0!|VALUE!|REF!|NAME\?|NUM!|SPILL!|CALC!|GETTING_DATA"
    r"|NV|WERT!|BEZUG!|ZAHL!|VALEUR!|NOM\?|NOMBRE!|NUL!|N/D|¡VALOR!|¡REF!|¿NOMBRE\?|¡NUM!|¡DIV/0!|#+)",
    re.IGNORECASE,
)
"""What a formula that failed, or a column that is too narrow, leaves behind in a file of text: English,
German, French and Spanish."""
_FORMULA_TEXT: Final = re.compile(
    r"""[=＝]\s*\+?(?:T\(\s*)?(?:["“”]+([^"“”]*)["“”]+|([^"“”()]*))(?:\s*\))?""", re.DOTALL
)
"""="X", =""X"", =T("X") and =X, by which suppliers keep the zeros of a number."""
_CELL_NAME: Final = re.compile(r"(?:.*!)?\$?[A-Z]{1,3}\$?[0-9]{1,4}", re.IGNORECASE | re.DOTALL)
_LAYERS: Final = 3
"""Marks around marks that are taken off: no more than programs are known to put."""


def clean(
    name: str,
    value: str | None,
    limit: int,
    found: list[Finding],
    *,
    too_long: str = "value_too_long",
    keep_blanks: bool = False,
    error_is_empty: bool = False,
) -> str | None:
    """The value without blanks around it; None when there is none, or none that could be kept.

    `error_is_empty`: the row can do without this value, so a spreadsheet's error counts as none.
    """
    if value is None:
        return None
    text = value.strip()
    if not text:
        return None
    if not text.isprintable():
        text = text.strip(_INVISIBLE_EDGES).strip()
        if not text:
            return None
    if keep_blanks and value.isprintable():
        text = value
    elif len(text) != len(value):
        found.append(Finding("value_trimmed", name, "Blanks or invisible characters around it were removed."))
    if len(text) > limit:
        found.append(
            Finding(too_long, name, f"It has {len(text):,} characters; at most {limit} are allowed.")
        )
        return None
    if not text.isprintable():
        found.append(Finding("value_has_control_characters", name, unseen(text) or ""))
        return visible(text)
    if text[0] == "#" and not keep_blanks and is_error(text):
        if error_is_empty:
            found.append(error_as_empty(name, text))
            return None
        found.append(Finding("cell_is_error", name, f"It reads {quoted(text)}."))
    return text


def error_as_empty(name: str, text: str) -> Finding:
    """The remark on a spreadsheet's error where the row can do without the value."""
    words = f"It reads {quoted(text)}, an error of a spreadsheet, and counts as empty."
    return Finding("value_placeholder", name, words)


def is_error(text: str) -> bool:
    """Whether it is an error of a spreadsheet."""
    return _SPREADSHEET_ERRORS.fullmatch(text) is not None


def squeezed(value: str) -> str | None:
    """The value without the blanks and invisible characters inside; None if there are none that spoil it."""
    value = value.strip().strip(_INVISIBLE_EDGES).strip()
    if value.isprintable():
        return None
    return "".join(character for character in value if character.isprintable() and not character.isspace())


def bare(
    name: str, value: str | None, limit: int, found: list[Finding], *, error_is_empty: bool = False
) -> str | None:
    """`clean`, without quotation marks or a formula around the value: no firmware has them, many a program
    puts them."""
    text = clean(name, value, limit, found, error_is_empty=error_is_empty)
    if text is None or (text[0] not in QUOTES and text[0] not in "=＝"):
        return text
    return unwrapped(name, text, found, error_is_empty=error_is_empty)


def unwrapped(name: str, text: str, found: list[Finding], *, error_is_empty: bool = False) -> str | None:
    """The text inside of quotation marks and formulas; None when there is nothing inside."""
    inside = text
    what = "Quotation marks around it were removed."
    for _ in range(_LAYERS):
        if inside and inside[0] in "=＝":
            taken = _of_formula(inside)
            if taken is None:
                words = "It is a formula, and not the value that a spreadsheet would show."
                found.append(Finding("value_is_formula", name, words))
                return inside
            what = "The formula around it was removed."
        elif inside and inside[0] in _APOSTROPHES and inside[1:2] in ("=", "＝"):
            taken = inside[1:]
        elif inside and inside[0] in QUOTES:
            pair = _QUOTED.fullmatch(inside)
            if pair is None:
                if inside[0] not in _APOSTROPHES:
                    # What stood behind it in its file may be part of the value, or the next column's value.
                    words = "It begins with a quotation mark that never ends."
                    found.append(Finding("quote_unclosed", name, words))
                break
            taken = pair.group(1) or pair.group(2) or ""
        else:
            break
        inside = taken.strip()
    if inside and inside != text:
        found.append(Finding("value_quoted", name, what))
        if is_error(inside):
            if error_is_empty:
                found.append(error_as_empty(name, inside))
                return None
            found.append(Finding("cell_is_error", name, f"It reads {quoted(inside)}."))
    return inside or None


def of_formula_only(name: str, text: str, found: list[Finding]) -> str | None:
    """`unwrapped` for a value that may have quotation marks of its own, such as a group tag."""
    if text[0] in "=＝" and len(text) > 1:
        return unwrapped(name, text, found, error_is_empty=True)
    return text


def _of_formula(text: str) -> str | None:
    """What a formula gives that is nothing but a text; None for any other formula."""
    found = _FORMULA_TEXT.fullmatch(text)
    if found is None:
        return None
    if found.group(1) is not None:
        return found.group(1)
    return None if _CELL_NAME.fullmatch(found.group(2).strip()) else found.group(2)
