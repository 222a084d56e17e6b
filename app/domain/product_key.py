"""The PKID (columns call it Windows Product ID or Product Key): what is one, and what cannot be one.

13 digits are a PKID, also with blanks, dashes or a label. Some tools write PKIDs of another form, which only
Microsoft can judge: they are sent if the row has nothing better. Anything else is unusable, and must not
block another identity of the row.
"""

import re
from typing import Final, NamedTuple

from app.domain.catalogue import Finding
from app.domain.masking import HOLDS_KEY_OR_HASH, holds_secret, is_license_key, quoted
from app.domain.placeholders import means_empty

_COUNTED: Final = frozenset(
    digits[at : at + 13] for digits in ("0123456789" * 3, "9876543210" * 3) for at in range(10)
)
"""Digits in sequence, up or down: typed by a person, not a PKID."""
USUAL: Final = re.compile(rf"(?!(.)\1+$)(?!(?:{'|'.join(sorted(_COUNTED))})$)[0-9]{{13}}")

_FIELD: Final = "product_key"
_LABEL: Final = re.compile(
    r"(?:windows\s*)?(?:pkid|product[\s_-]*key[\s_-]*id|product[\s_-]*id|coa|id)\s*(?:no\.?|nr\.?|number)?\s*[:#=]*\s*",
    re.IGNORECASE,
)
_DECIMALS: Final = re.compile(r"[.,]0+")
_FILLING: Final = re.compile(r"[\s\u2010-\u2015\u2212_-]+")
_DIGITS: Final = re.compile(r"[0-9]+")
_PRODUCT_ID: Final = re.compile(
    r"[0-9]{5}[\s\u2010-\u2015-]*(?:[0-9]{5}|OEM)[\s\u2010-\u2015-]*[0-9]{4,7}[\s\u2010-\u2015-]*"
    r"(?:[A-Z]{2}[0-9]{3}|[A-Z0-9]{5})",
    re.IGNORECASE,
)
_SCIENTIFIC: Final = re.compile(r"[0-9](?:[.,][0-9]*)?E\+?[0-9]+", re.IGNORECASE)
_POSSIBLE: Final = re.compile(r"(?=.*[0-9])[A-Za-z0-9-]+")


class Judged(NamedTuple):
    """The result of checking a PKID. `value` is None if there is none that can be used or stored."""

    value: str | None
    found: tuple[Finding, ...] = ()
    unfit: Finding | None = None
    """The error if nothing else identifies the device; beside another identity the value is left out."""
    unusual: bool = False
    """It may be a PKID, and is sent if the row has nothing better."""


def is_usual(text: str) -> bool:
    """Whether the text is a PKID of the usual form: 13 digits. Such a PKID identifies one device."""
    return USUAL.fullmatch(text) is not None


def cleaned(text: str) -> Finding:
    """The finding for a text whose 13 digits are used."""
    return Finding("product_key_cleaned", _FIELD, f"It reads {quoted(text)}; its 13 digits are taken.")


def judge(text: str) -> Judged:
    """Checks a text that has no blanks or quotation marks around it."""
    if USUAL.fullmatch(text):
        return Judged(text)
    if means_empty(text):
        words = f"It reads {quoted(text)} and counts as empty."
        return Judged(None, (Finding("value_placeholder", _FIELD, words),))
    if is_license_key(text):
        words = "It has the form of a 25-character product key."
        return Judged(None, (Finding("product_key_is_license_key", _FIELD, words),))
    if holds_secret(text):
        return Judged(None, (Finding("value_is_secret", _FIELD, HOLDS_KEY_OR_HASH),))
    unlabelled = text[label.end() :] if (label := _LABEL.match(text)) else text
    if _PRODUCT_ID.fullmatch(unlabelled):
        words = "It has the form of a Windows Product ID."
        return Judged(text, unfit=Finding("product_key_is_product_id", _FIELD, words))
    if _SCIENTIFIC.fullmatch(text):
        return Judged(text, unfit=Finding("product_key_scientific", _FIELD, "It is in scientific notation."))
    return _by_its_digits(text, _FILLING.sub("", _DECIMALS.sub("", unlabelled)))


def _by_its_digits(text: str, digits: str) -> Judged:
    """Checks a text by its digits. `digits`: the text without label, blanks, dashes and decimals."""
    if digits and len(set(digits)) == 1 and digits.isdecimal() and (len(digits) > 4 or not digits.strip("0")):
        words = "It has only zeros." if digits[0] == "0" else "It repeats one digit."
        return Judged(None, (Finding("product_key_placeholder", _FIELD, words),))
    if digits in _COUNTED:
        words = "Its digits are counted up or down."
        return Judged(None, (Finding("product_key_placeholder", _FIELD, words),))
    if USUAL.fullmatch(digits):
        return Judged(digits, (cleaned(text),))
    if not _POSSIBLE.fullmatch(text):
        words = f"It reads {quoted(text)}. A PKID has 13 digits."
        return Judged(text, unfit=Finding("product_key_impossible", _FIELD, words))
    words = f"It has {len(text)} characters"
    if len(text) < 13 and _DIGITS.fullmatch(text):
        words += "; a spreadsheet may have dropped leading zeros"
    return Judged(text, (Finding("product_key_unusual", _FIELD, words + "."),), unusual=True)
