"""Recognises texts that firmware cannot report as a serial number, manufacturer or model.

All three are sent to Microsoft unchanged, and Microsoft finds a device only if its firmware reports the same.
What no firmware reports is an error (several serial numbers, letters that only look right, no letters or
digits). What hardly any firmware reports is a warning that names the likely value (labels, brackets, bar code
marks). Real serial numbers have many forms, some with blanks and dots: they pass without a finding.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final, NamedTuple

from app.domain.catalogue import Finding
from app.domain.masking import HOLDS_KEY_OR_HASH, holds_secret, quoted
from app.domain.placeholders import is_filler_name, is_filler_serial


class Said(NamedTuple):
    """The findings about a value, and whether the value can be used."""

    found: tuple[Finding, ...] = ()
    """Findings that are always reported."""
    unfit: Finding | None = None
    """The error if this value is needed to identify the device; otherwise the value is left out."""
    placeholder: bool = False
    """True if the value is unfit because it was never set."""


FINE: Final = Said()

PLAIN_SERIAL: Final = re.compile(
    r"(?=[A-Z]*[0-9])(?=[0-9]*[A-Z])"  # letters and digits, so that it is not a word
    r"(?:[A-RT-Z02-9][A-Z0-9]{4,23}|1[A-Z0-9]{4,13}"
    r"|S(?:[A-Z0-9]{5,6}|[A-Z0-9]{9}|[A-Z0-9]{11}|(?![0-9]{12})[A-Z0-9]{12}))"
    r"|(?!0?1234567)(?!(.)\1+$)[0-9]{5,20}"
)
"""Nine of ten serial numbers have this form and need no further checks. Placeholders, labels and scanner
prefixes do not have it."""

_SCIENTIFIC: Final = re.compile(r"[0-9]+(?:[.,][0-9]*)?E\+[0-9]+", re.IGNORECASE)
_MONTH: Final = (
    "jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|sept|oct|okt|nov|dec|dez|fév|avr|juin|juil|aoû|déc"
)
_DATE: Final = re.compile(
    rf"[0-9]{{1,4}}[-. ]{{1,2}}(?:{_MONTH})\.?(?:[- ][0-9]{{2,4}})?|(?:{_MONTH})\.?[- ][0-9]{{1,4}}"
    r"|[0-3]?[0-9]\.[01]?[0-9]\.(?:19|20)[0-9]{2}|[0-3]?[0-9]/[0-3]?[0-9]/(?:19|20)?[0-9]{2}"
    r"|(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9](?: [0-9:]{5,8})?",
    re.IGNORECASE,
)
"""Dates as spreadsheets show them after mistaking a serial number for one."""

_SURE_CUT: Final = re.compile(r"\s*[,;|\n\r\t]\s*|\s+(?:and|und|et|y|e|en|og|och|i|&|\+)\s+", re.IGNORECASE)
_SLASH: Final = re.compile(r"\s*[/\\+&]\s*")
_PIECE: Final = re.compile(r"(?=.*[0-9])[A-Za-z0-9-]{4,}")
_LONG_PIECE: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9]{6,}|[0-9]{7,}")
_RANGE: Final = re.compile(
    r"(\S{4,}?)(?:\s+(?:-+|–+|—+|to|bis|thru|through|until|till|à|a|al|hasta|t/m)\s+|\s*(?:\.\.+|…|-+>|→|~|--+)\s*)(\S{2,})",
    re.IGNORECASE,
)
_DASH_RANGE: Final = re.compile(r"([A-Z0-9]{3,})([A-Z0-9]{4,})-\1([A-Z0-9]{4,})", re.IGNORECASE)

_AND_MORE: Final = re.compile(
    r"(?=\S*[0-9])[A-Za-z0-9-]{5,}(?:[\s,;]+(?:ff\.?|f\.|etc\.?|et\s+seq\.?|usw\.?|u\.\s*s\.\s*w\.|and\s+(?:so\s+on|more"
    r"|others?|following)|und\s+(?:weitere|folgende|mehr)|et\s+suivants?|y\s+más)|\s*(?:\.\.\.+|…))",
    re.IGNORECASE,
)
_ENDING: Final = re.compile(r"-\s*[A-Za-z0-9]{1,6}")
"""The end of a serial number in a list that gives only the differing ends."""

_LABEL: Final = re.compile(
    r"(?:s\s*/\s*n(?:o|r|um)?|s\.\s*n(?:o|r|um)?)\s*[.:#=]*\s*(\S.*)"
    r"|(?:sn|snr|ser\.?[\s_-]*(?:number|num|nbr|nummer|no|nr)|s-n(?:o|r)|serial(?:[\s_-]*(?:number|num|nbr|no|nr))?|serien?[\s_-]*(?:nummer|nr)|service[\s_-]*tag"
    r"|n[uú]m(?:ero|éro)?[\s.]*(?:de\s*)?s[eéè]rie|n[°ºo]?[\s.]*(?:de\s*)?s[eéè]rie|matricola|serienummer)"
    r"(?:\s*\.?\s*[:#=]+\s*|\.?\s+)(\S.*)"
    r"|[A-Za-z][A-Za-z ._/-]{0,30}[:=]\s*(\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_NAME_LABEL: Final = re.compile(
    r"(?:model|modell|modelo|modèle|product|manufacturer|make|maker|vendor|brand|hersteller|mfr|mfg|oem|marke"
    r"|marque|marca|fabricante?|type|typ|mtm|machine[\s-]*type)(?:[\s-]*(?:name|no|nr|number))?\.?\s*[:=]\s*(\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_BRACKETED: Final = re.compile(
    r"([^\s()\[\]{}]+)\s*[(\[{][^()\[\]{}]*[)\]}]|[(\[{]\s*([^()\[\]{}]+?)\s*[)\]}]"
    r"|[(\[{][^()\[\]{}]*[)\]}]\s*((?=[^\s()\[\]{}]*[0-9])[^\s()\[\]{}]+)"
)
_UNUSUAL: Final = re.compile(r"[^A-Za-z0-9 ._-]")
_MARKS: Final = "*<>[](){}|#,;:!?'\"`´\\/&%§$~^=+ "
"""Labels that people and scanners put before a serial number."""
_GS1: Final = re.compile(r"(?:\([0-9]{2,4}\)[^()]*)*\(21\)\s*([^()]+?)\s*(?:\([0-9]{2,4}\)[^()]*)*")
"""In a GS1 bar code, (21) announces a serial number."""
_MAC: Final = re.compile(
    r"(?<![0-9A-Z])[0-9A-F]{2}(?:([:-])[0-9A-F]{2})(?:\1[0-9A-F]{2}){4}(?![0-9A-Z:-])", re.I
)
_ADDRESS: Final = re.compile(r"://|\bwww\.|@", re.IGNORECASE)
_COUNT: Final = re.compile(r"[0-9]{1,3}\s*[x×]\s+|\s+[x×]\s*[0-9]{1,3}", re.IGNORECASE)
_BETWEEN: Final = re.compile(r"[\s,;|/]+")
_REMARK: Final = re.compile(r"[A-Za-z]{3,}|[A-Za-z]*[a-z][A-Za-z]*")
"""A word beside a serial number. Two capitals may be part of the number."""

_SCANNED_1S: Final = re.compile(r"1S([0-9A-Z]{10}|[0-9A-Z]{7})([0-9A-Z]{8}|[0-9A-Z]{7})")
_AFTER_S: Final = (
    ("hp", re.compile(r"(?=[A-Z0-9]{0,2}[A-Z])[A-Z0-9]{10}")),
    ("hewlett", re.compile(r"(?=[A-Z0-9]{0,2}[A-Z])[A-Z0-9]{10}")),
    ("dell", re.compile(r"[A-Z0-9]{7}")),
    ("lenovo", re.compile(r"[A-Z][A-Z0-9]{7}")),
    ("microsoft", re.compile(r"[0-9]{12}")),
)
"""The form of these makers' serial numbers: an S in front of one comes from the scanner."""
_LIKE_HP: Final = re.compile(r"S((?:5C|CN)[A-Z][0-9A-Z]{7})")

_LEGAL_FORM: Final = frozenset(
    {"inc", "ltd", "limited", "llc", "co", "coltd", "corp", "corporation", "gmbh", "ag", "kg", "sa", "sas"}
    | {
        "srl",
        "spa",
        "bv",
        "nv",
        "ab",
        "as",
        "oy",
        "kk",
        "plc",
        "pteltd",
        "ptyltd",
        "company",
        "companylimited",
    }
    | {"incorporated", "international", "cokg", "gmbhcokg", "sro", "zoo", "spzoo", "kft", "sadecv", "ltda"}
)
_DASHES: Final = str.maketrans("‐‑‒–—―−﹘﹣－“”„″‘’‚′¹²³×", "----------" + '"' * 4 + "'" * 4 + "123x", "®™©")
"""Typographic characters that word processors substitute or add."""
_LOOK_ALIKE: Final = str.maketrans(
    "АВЕКМНОРСТХУІЈЅаеорсухіјѕΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABEKMHOPCTXYIJSaeopcyxijsABEZHIKMNOPTYXo"
)
"""Cyrillic and Greek letters."""

_MACHINE_TYPE: Final = re.compile(r"[0-9][0-9A-Z]{3}(?:[0-9A-Z]{6}|[0-9A-Z]{3})?|[0-9]{5}")


def of_serial(text: str, maker: str | None = None, model: str | None = None) -> Said:
    """Checks a serial number that has no blanks or quotation marks around it."""
    if PLAIN_SERIAL.fullmatch(text):
        return FINE
    if _SCIENTIFIC.fullmatch(text):
        return _found("serial_scientific", "serial_number", f"It reads {quoted(text)}.")
    if _DATE.fullmatch(text):
        return _found("serial_looks_like_date", "serial_number", f"It reads {quoted(text)}.")
    if is_filler_serial(text):
        words = f"It reads {quoted(text)}."
        if not any(map(str.isalnum, text)):
            words = f"It reads {quoted(text)}, which has no letter and no digit."
        return Said(unfit=Finding("serial_placeholder", "serial_number", words), placeholder=True)
    if holds_secret(text):
        return _found("value_is_secret", "serial_number", HOLDS_KEY_OR_HASH)
    if is_list(text):
        return _found("several_serials", "serial_number", f"It reads {quoted(text)}.")
    if not text.isascii():
        return Said(unfit=Finding("serial_not_ascii", "serial_number", _not_ascii(text)))
    if (likely := likely_serial(text, maker, model)) is not None:
        words = f"It reads {quoted(text)}; the serial number is probably {quoted(likely)}."
        return _found("value_unlikely", "serial_number", words)
    if odd := _UNUSUAL.search(text):
        words = f'It reads {quoted(text)}; hardly any serial number has a "{odd.group()}".'
        return _found("value_unlikely", "serial_number", words)
    if len(text) < 3 and text.isalpha():
        words = f"It reads {quoted(text)}; hardly any serial number is so short."
        return _found("value_unlikely", "serial_number", words)
    if _MAC.search(text):
        words = f"It reads {quoted(text)}, which is the address of a network card."
        return _found("value_unlikely", "serial_number", words)
    return FINE


@lru_cache(maxsize=1024)  # an order has only a few of them
def of_name(field: str, text: str) -> Said:
    """Checks a manufacturer or a model."""
    if is_filler_name(text):
        code = "manufacturer_placeholder" if field == "manufacturer" else "model_placeholder"
        return Said(unfit=Finding(code, field, f"It reads {quoted(text)}."), placeholder=True)
    if holds_secret(text):
        return _found("value_is_secret", field, HOLDS_KEY_OR_HASH)
    if _is_legal_form(text):
        words = f"It reads {quoted(text)}, which is the end of a company's name: a comma has torn it off."
        return Said(unfit=Finding("value_torn", field, words))
    likely = None
    if label := _NAME_LABEL.fullmatch(text):
        likely = label.group(1)
    elif len(text) > 2 and text[0] == text[-1] == "*":
        likely = text.strip("* ")
    elif "<" in text or ">" in text:
        likely = text.strip("<> ")
    if not text.isascii():
        plain = unicodedata.normalize("NFKC", (likely or text).translate(_DASHES)).strip()
        if plain.isascii() and plain != text:
            likely = plain
        words = _character(text)
        if likely:
            words += f" It is probably {quoted(likely)}."
        return _found("value_unlikely", field, words)
    if likely is not None:
        words = f"It reads {quoted(text)}; the value is probably {quoted(likely)}."
        return _found("value_unlikely", field, words)
    return FINE


def is_list(text: str) -> bool:
    """Whether the cell contains several serial numbers, or a range of them."""
    if (label := _LABEL.fullmatch(text)) and (rest := label.group(1) or label.group(2) or label.group(3)):
        text = rest
    pieces = [piece for piece in _SURE_CUT.split(text) if piece]
    if len(pieces) > 1:
        if sum(map(bool, map(_PIECE.fullmatch, pieces))) > 1:
            return True
        if _PIECE.fullmatch(pieces[0]) and all(map(_ENDING.fullmatch, pieces[1:])):
            return True
    for pieces in (_SLASH.split(text), text.split()):
        if len(pieces) > 1 and all(map(_LONG_PIECE.fullmatch, pieces)):
            return True
    if _AND_MORE.fullmatch(text):
        return True
    if (ends := _RANGE.fullmatch(text)) and all(any(map(str.isdigit, end)) for end in ends.groups()):
        return True
    dash = _DASH_RANGE.fullmatch(text)
    return dash is not None and len(dash[2]) == len(dash[3]) and dash[2] != dash[3]


def likely_serial(text: str, maker: str | None = None, model: str | None = None) -> str | None:
    """The serial number without label, brackets, bar code marks or scanner's prefix; None without these."""
    if _ADDRESS.search(text) or _MAC.search(text):
        return None
    if gs1 := _GS1.fullmatch(text):
        return gs1.group(1)
    if bracketed := _BRACKETED.fullmatch(text):
        return bracketed.group(1) or bracketed.group(2) or bracketed.group(3)
    bare = text.strip(_MARKS)
    if bare and bare != text:
        return likely_serial(bare, maker, model) or bare
    if label := _LABEL.fullmatch(text):
        rest = (label.group(1) or label.group(2) or label.group(3)).strip(_MARKS)
        return likely_serial(rest, maker, model) or rest or None
    return _beside_words(text, (maker or "").casefold()) or _scanned(text, (maker or "").casefold(), model)


def _beside_words(text: str, maker: str) -> str | None:
    """The only serial number among words and short numbers, such as a remark, a count or a model."""
    parts = [part.strip(f"{_MARKS}.-") for part in _BETWEEN.split(_COUNT.sub(" ", f" {text} "))]
    parts = [part for part in parts if part]
    serials = [part for part in parts if _LONG_PIECE.fullmatch(part)]
    if len(serials) != 1 or serials[0] == text:
        return None
    others = [part for part in parts if part != serials[0]]
    if not others:
        return serials[0] if _COUNT.search(f" {text} ") else None
    told = any(_REMARK.fullmatch(part) or part.casefold() == maker for part in others)
    return serials[0] if told else None


def plain_form(text: str) -> str:
    """The text with plain letters in place of full-width ones and of similar letters of other scripts."""
    return unicodedata.normalize("NFKC", text.translate(_LOOK_ALIKE).translate(_DASHES)).strip()


def is_machine_type(model: str) -> bool:
    """Whether the text is a Lenovo machine type, which Lenovo's firmware reports as the model."""
    return _MACHINE_TYPE.fullmatch(model) is not None


def is_marketing_name(maker: str, model: str) -> bool:
    """Whether a model is a marketing name where the firmware has something else: Lenovo's."""
    return maker.strip().casefold() == "lenovo" and not is_machine_type(model.strip().upper())


def _found(code: str, field: str, detail: str) -> Said:
    return Said((Finding(code, field, detail),))


def _is_legal_form(text: str) -> bool:
    word = "".join(filter(str.isalnum, text)).casefold()
    return word in _LEGAL_FORM and (len(word) > 2 or len(text) > len(word))


def _scanned(text: str, maker: str, model: str | None) -> str | None:
    """Removes the data identifier that a scanner reads from a label: 1S and the machine type, or S."""
    if text.startswith("1S"):
        if model and text[2:].startswith(model) and len(text) > len(model) + 6:
            return text[2 + len(model) :]
        found = _SCANNED_1S.fullmatch(text)
        return found.group(2) if found else None
    if not text.startswith("S"):
        return None
    for name, shape in _AFTER_S:
        if maker.startswith(name):
            return text[1:] if shape.fullmatch(text, 1) else None
    found = None if maker else _LIKE_HP.fullmatch(text)
    return found.group(1) if found else None


def _character(text: str) -> str:
    place = next(at for at, character in enumerate(text) if not character.isascii())
    name = unicodedata.name(text[place], "without a name")
    return f'Character {place + 1}, "{text[place]}", is U+{ord(text[place]):04X} ({name}).'


def _not_ascii(text: str) -> str:
    words = f"{_character(text)} Serial numbers have plain letters and digits only."
    plain = plain_form(text)
    if plain.isascii() and plain:
        words += f" It is probably {quoted(plain)}."
    return words
