"""Placeholders: words that firmware, databases and people write where a value is missing.

Two questions: `means_empty` asks whether a cell says that there is no value (N/A, NULL, -).
`is_filler_serial` and `is_filler_name` ask whether a value is what firmware reports, or people write, if none
was ever set. Case, blanks and punctuation are ignored. Hashes, files and the API's rows are all judged by
this table.
"""

import re
from functools import lru_cache
from typing import Final

LONGEST: Final = 64
"""The most characters of a placeholder."""

_EMPTY: Final = frozenset(
    # databases, spreadsheets and programs
    {"na", "null", "nil", "none", "nan", "nul", "undefined", "void", "missing", "empty", "blank", "nodata"}
    # English
    | {"notavailable", "notapplicable", "notspecified", "notset", "notprovided", "notknown", "notfound"}
    | {"notassigned", "unassigned", "unknown", "unspecified", "unavailable", "novalue", "noinformation"}
    | {"tbd", "tba", "tbc", "tobedetermined", "tobedefined", "tobeadded", "tobeconfirmed", "tobeannounced"}
    # German
    | {"ka", "kein", "keine", "keiner", "keines", "keineangabe", "keineangaben", "nichtverfügbar", "leer"}
    | {"nichtvorhanden", "nichtbekannt", "unbekannt", "fehlt", "entfällt", "nichtzutreffend"}
    # French, Spanish, Portuguese, Italian
    | {"nd", "aucun", "aucune", "inconnu", "inconnue", "nondisponible", "vide", "sansobjet", "nonrenseigné"}
    | {"ninguno", "ninguna", "nodisponible", "desconocido", "desconocida", "vacío", "noaplica", "sindatos"}
    | {"nenhum", "nenhuma", "desconhecido", "nãodisponível", "nãoaplicável", "vazio"}
    | {"nessuno", "nessuna", "sconosciuto", "nondisponibile", "vuoto", "nonapplicabile"}
    # Dutch, Nordic, Polish, Turkish, Russian, Japanese, Chinese, Korean
    | {"geen", "onbekend", "nvt", "nietbeschikbaar", "ingen", "inget", "okänd", "ukjent", "ukendt"}
    | {
        "brak",
        "nieznany",
        "yok",
        "bilinmiyor",
        "нет",
        "неизвестно",
        "なし",
        "無し",
        "不明",
        "無",
        "无",
        "未知",
        "없음",
    }
)
_NOT_ASSIGNED: Final = frozenset(
    {"nichtzugewiesen", "nichtzugeordnet", "nonattribué", "nonattribue", "nonassigné", "nonassigne"}
    | {"nonaffecté", "sinasignar", "noasignado", "noasignada", "nãoatribuído", "nonassegnato"}
    | {"niettoegewezen", "ikketildelt", "ejtilldelad", "nieprzypisano", "未割り当て", "未分配"}
)
_TAG_EMPTY: Final = (
    _EMPTY
    | _NOT_ASSIGNED
    | {"notag", "notags", "nogrouptag", "untagged", "withouttag", "keintag", "keingrouptag", "keingruppentag"}
    | {"ohnetag", "sanstag", "aucuntag", "sansétiquette", "sinetiqueta", "semetiqueta", "senzatag", "geentag"}
) - {"ka", "nd", "missing", "void", "blank", "空", "無", "无"}
"""Placeholders without words that somebody may have chosen as a group tag."""
_IN_BRACKETS: Final = re.compile(r"\(.*\)|\[.*\]|<.*>|\{.*\}", re.DOTALL)
"""How a pivot table shows an empty cell."""
_PIVOT_EMPTY: Final = _EMPTY | {"enblanco", "embranco"}
_FILLERS: Final = _EMPTY | frozenset(
    {"defaultstring", "tobefilledbyoem", "tobefilledbyom", "filledbyoem", "tobefilled", "oem", "invalid"}
    | {"type1productconfigid", "notdefined", "default", "placeholder", "dummy"}
    | {"pending", "seelabel", "seesticker", "seebox", "seeattached", "seeattachment", "seelist", "seebelow"}
    | {"todo", "dito", "ditto", "asabove", "sameasabove", "sieheoben", "sieheetikett", "sieheliste"}
)
_SERIAL_FILLERS: Final = _FILLERS | frozenset(
    {"systemserialnumber", "chassisserialnumber", "baseboardserialnumber", "boardserialnumber"}
    | {"serialnumber", "serialno", "serial", "sn", "noserial", "noserialnumber", "oemserialnumber"}
    | {"seriennummer", "snr", "numerodeserie", "numérodesérie", "productserialnumber", "servicetag"}
    | {
        "123456789abcdef",
        "0123456789abcdef",
        "1234567890abcdef",
        "systemserial",
        "assettag",
    }
)
_LOGICAL: Final = frozenset(
    {"true", "false", "wahr", "falsch", "vrai", "faux", "verdadero", "falso", "verdadeiro", "vero", "waar"}
    | {"yes", "no", "ja", "nein", "oui", "non", "ok"}
)
_TOTALS: Final = (
    "total|totals|subtotal|grand total|sum|summe|gesamt|gesamtsumme|gesamtanzahl|zwischensumme|insgesamt"
    "|somme|total général|sous-total|suma|soma|totale|somma|totaal|toplam|razem|итого|合計|合计|总计|小計"
    "|count|anzahl|stückzahl|quantity|qty|menge"
)
_PAGES: Final = "page|seite|pagina|página|pág|sida|side|strona|blatt|sheet|hoja|feuille"
_COUNTS: Final = (
    "pcs|pieces|units?|devices?|items?|laptops?|notebooks?|computers?|rows?|stück|stk|geräte?|zeilen?"
    "|pièces?|appareils?|unités?|unidades|equipos|dispositivos|unità|pezzi|stuks"
)
_OF_A_REPORT: Final = re.compile(
    rf"\W*(?:(?:{_TOTALS})(?:\s*[:=#]+\s*|[\s.]+)[\d.,\s]*(?:{_COUNTS})?"
    rf"|(?:{_TOTALS})\s*\W?\s*(?:{_COUNTS})(?:\s*[:=#]*\s*\d{{1,6}})?"
    rf"|(?:{_PAGES})(?:\s*[:#.]\s*|\s+)\d{{1,4}}(?:\s*(?:/|of|von|de|di|van|sur|av)\s*\d{{1,4}})?"
    rf"|\d{{1,5}}\s+(?:{_COUNTS}))\W*",
    re.IGNORECASE,
)
"""Lines that reports add below their rows: totals and page numbers."""
_ALONE: Final = frozenset(
    folded_word.replace(" ", "").replace("-", "") for folded_word in f"{_TOTALS}|{_PAGES}".split("|")
)
_SEE: Final = re.compile(
    r"(?:please )?(?:see|refer to|siehe|s\. ?o\.|voir|véase|ver|vedi|zie|se)\s+[^\W\d_]{2,}\b.*",
    re.IGNORECASE | re.DOTALL,
)
_WORD: Final = re.compile(r"(?!(?i:[B-DF-HJ-NP-TV-XZ]{5}))[^\W\d_]+(?:['’-][^\W\d_]+)*")
"""Letters only, not starting with five consonants."""
_NAME_FILLERS: Final = _FILLERS | frozenset(
    {"systemmanufacturer", "systemproductname", "systemname", "systemmodel", "systemversion", "systemsku"}
    | {"manufacturer", "manufacturername", "productname", "model", "modelname", "devicemodel", "vendor"}
    | {"oemmanufacturer", "oemmodel", "hersteller", "modell", "computermanufacturer", "computermodel"}
)
_NO_HASH: Final = _LOGICAL | _NOT_ASSIGNED | {"nv", "t0", "hash", "done"}
_NO_TAG: Final = frozenset("-–—−_.…?/\\*~ ")
"""A group tag of only these characters is none; a "#" alone may be one."""
_COUNTED: Final = re.compile(r"0?1234567(?:8(?:9(?:0)?)?)?")
"""Digits in sequence, at least from 1 to 7: typed by a person, not set by a manufacturer."""
_ONE_CHARACTER: Final = re.compile(r"(.)\1*")
_ORDINARY: Final = re.compile(r"(?!0?1234567)(?=[A-Z]*[0-9])(?=[0-9]*[A-Z])[A-Z0-9]{7,24}")
"""Capitals and digits mixed, so that it cannot be a word."""


def folded(text: str) -> str:
    """The letters and digits of the text, case-folded."""
    return "".join(filter(str.isalnum, text.casefold()))


def means_empty(text: str) -> bool:
    """Whether a cell says that there is no value."""
    if len(text) > LONGEST or text.isdecimal():
        return False
    word = folded(text)
    return not word or word in _EMPTY


def is_no_tag(text: str) -> bool:
    """Whether a group tag's text says that there is no tag.

    Words of two letters count only with their punctuation: N/A is empty, NA may mean North America.
    """
    if len(text) > LONGEST:
        return False
    word = folded(text)
    if not word:
        return _NO_TAG.issuperset(text)
    if word == "0":  # what a spreadsheet lookup returns for an empty cell
        return True
    if word in _PIVOT_EMPTY and _IN_BRACKETS.fullmatch(text.strip()):
        return True
    return word in (_TAG_EMPTY if len(word) > 2 else _EMPTY) and (len(word) > 2 or len(text) > len(word))


def is_no_hash(text: str) -> bool:
    """Whether a hash's cell says that there is none: a placeholder, or a remark in words."""
    if len(text) > LONGEST:
        return False
    word = folded(text)
    if not word or word in _FILLERS or word in _NO_HASH or _ONE_CHARACTER.fullmatch(word):
        return True
    return " " in text.strip() and not any(map(str.isdigit, word)) and not text.startswith("T0")


@lru_cache(maxsize=64)  # each row asks several times about the same text
def is_filler_serial(serial_number: str) -> bool:
    """Whether many devices may report this serial number, because none was set."""
    if _ORDINARY.fullmatch(serial_number):
        return False
    word = folded(serial_number)
    return (
        len(word) <= LONGEST and (not word or word in _SERIAL_FILLERS or _COUNTED.fullmatch(word) is not None)
    ) or (
        word.startswith("smbiosstringindex")
        or not word.strip("0")
        or (len(word) >= 3 and _ONE_CHARACTER.fullmatch(word) is not None)
        or is_remark(serial_number)
    )


def is_remark(text: str) -> bool:
    """Whether the text is a remark by a person or a report in place of a serial number.

    A single run of letters may be a serial number, unless it is one of a few words.
    """
    if len(text) > 4 * LONGEST:
        return False
    word = folded(text)
    if word in _LOGICAL or word in _ALONE or word in _NOT_ASSIGNED:
        return True
    if _OF_A_REPORT.fullmatch(text) or _SEE.fullmatch(text):
        return True
    words = [part.strip(".,;:!?()[]\"'") for part in text.split()]
    longest = max(map(len, words), default=0)  # pairs of letters may belong to a virtual machine's digits
    return len(words) > 1 and longest > 2 and all(not word or _WORD.fullmatch(word) for word in words)


def is_filler_name(text: str) -> bool:
    """Whether a manufacturer or a model is what firmware reports if none was set."""
    if len(text) > LONGEST:
        return False
    word = folded(text)
    return (
        not word
        or word in _NAME_FILLERS
        or word.startswith("smbiosstringindex")
        or not word.strip("0")
        or (len(word) >= 3 and _ONE_CHARACTER.fullmatch(word) is not None)
    )
