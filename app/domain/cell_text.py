"""Cleans a cell's text of the blanks, quotation marks and formulas that programs put around it.

Each removal is reported as a finding. Spreadsheet errors, formulas without a result and invisible
characters are errors of their own.
"""

import re
from typing import Final

from app.domain.catalogue import Finding
from app.domain.characters import unseen
from app.domain.masking import quoted, visible

_QUOTED: Final = re.compile(r"[\"“”„«»‘’‚‹›'](.*)[\"“”„«»‘’‚‹›']|['‘’]([^\"“”„«»‘’‚‹›']*)", re.DOTALL)
"""A pair around the value, or the single apostrophe with which spreadsheets mark text."""
QUOTES: Final = frozenset("\"“”„«»‘’‚‹›'")
_APOSTROPHES: Final = frozenset("'‘’‚‹›")
_INVISIBLE_EDGES: Final = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\x00"
_SPREADSHEET_ERRORS: Final = re.compile(
    r"#(?:N/A|NULL!|DIV/0!|VALUE!|REF!|NAME\?|NUM!|SPILL!|CALC!|GETTING_DATA"
    r"|NV|WERT!|BEZUG!|ZAHL!|VALEUR!|NOM\?|NOMBRE!|NUL!|N/D|¡VALOR!|¡REF!|¿NOMBRE\?|¡NUM!|¡DIV/0!|#+)",
    re.IGNORECASE,
)
"""What a failed formula, or a column that is too narrow, leaves in a text file, in English,
German, French and Spanish."""
_FORMULA_TEXT: Final = re.compile(
    r"""[=＝]\s*\+?(?:T\(\s*)?(?:["“”]+([^"“”]*)["“”]+|([^"“”()]*))(?:\s*\))?""", re.DOTALL
)
"""="X", =""X"", =T("X") and =X: suppliers use them to keep a number's leading zeros."""
_CELL_NAME: Final = re.compile(r"(?:.*!)?\$?[A-Z]{1,3}\$?[0-9]{1,4}", re.IGNORECASE | re.DOTALL)
_LAYERS: Final = 3
"""Layers of marks that are removed: no program is known to put more."""


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
    """The value without blanks around it; None if it is empty or cannot be kept.

    `error_is_empty`: the row can do without this value, so a spreadsheet error counts as empty.
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
    """The finding for a spreadsheet error in a value that the row can do without."""
    words = f"It reads {quoted(text)}, an error of a spreadsheet, and counts as empty."
    return Finding("value_placeholder", name, words)


def is_error(text: str) -> bool:
    """Whether the text is a spreadsheet error, such as `#N/A`."""
    return _SPREADSHEET_ERRORS.fullmatch(text) is not None


def squeezed(value: str) -> str | None:
    """The value without blanks and invisible characters inside; None if it has no invisible characters."""
    value = value.strip().strip(_INVISIBLE_EDGES).strip()
    if value.isprintable():
        return None
    return "".join(character for character in value if character.isprintable() and not character.isspace())


def bare(
    name: str, value: str | None, limit: int, found: list[Finding], *, error_is_empty: bool = False
) -> str | None:
    """`clean`, then removes quotation marks or a formula around the value: firmware never has them."""
    text = clean(name, value, limit, found, error_is_empty=error_is_empty)
    if text is None or (text[0] not in QUOTES and text[0] not in "=＝"):
        return text
    return unwrapped(name, text, found, error_is_empty=error_is_empty)


def unwrapped(name: str, text: str, found: list[Finding], *, error_is_empty: bool = False) -> str | None:
    """The text inside quotation marks and formulas; None if there is nothing inside."""
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
                    # What followed it in the file may be part of this value, or the next column's value.
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
    """`unwrapped` for values that may contain quotation marks of their own, such as a group tag."""
    if text[0] in "=＝" and len(text) > 1:
        return unwrapped(name, text, found, error_is_empty=True)
    return text


def _of_formula(text: str) -> str | None:
    """The text that a formula gives if it only holds a text; None for any other formula."""
    found = _FORMULA_TEXT.fullmatch(text)
    if found is None:
        return None
    if found.group(1) is not None:
        return found.group(1)
    return None if _CELL_NAME.fullmatch(found.group(2).strip()) else found.group(2)
