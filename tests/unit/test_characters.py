"""Characters that deceive the reader of a name are found, reported and escaped; no letter is mistaken."""

import json
import re
import unicodedata

import pytest

from app.domain.characters import (
    UNSAFE_CLASS,
    escaped,
    unsafe,
    unsafe_in_cell,
    unseen,
    unstorable,
)

EVERY = [chr(code) for code in range(0x110000)]
DIRECTIONS = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


def test_the_kind_is_control_characters_separators_surrogates_and_marks_of_direction() -> None:
    found = {character for character in EVERY if unsafe(character)}
    assert found == {
        character
        for character in EVERY
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character) in DIRECTIONS
        or character in "\u061c\u200e\u200f"
        or "\u206a" <= character <= "\u206f"
    }
    in_patterns = re.compile(f"[{UNSAFE_CLASS}]")
    storable = {character for character in found if unicodedata.category(character) != "Cs"}
    assert {character for character in EVERY if in_patterns.match(character)} == storable


def test_no_letter_mark_number_or_joiner_is_among_them() -> None:
    for character in EVERY:
        if unicodedata.category(character)[0] in "LMNPS" or character in "\u200c\u200d\u00ad\u00a0\u3000 ":
            assert unsafe(f"a{character}b") is None


def test_the_character_is_named_so_that_it_is_found() -> None:
    words = "Character 3 is U+202E, which cannot be seen."
    assert unsafe("ab\u202ec") == unseen("ab\u202ec") == unsafe_in_cell("ab\u202ec") == words
    assert unsafe("ab\u200bc") is None
    assert unseen("ab\u200bc") == "Character 3 is U+200B, which cannot be seen."
    assert unsafe_in_cell("a\tb\r\nc") is None
    assert unsafe_in_cell("a\tb\x1bc") == "Character 4 is U+001B, which cannot be seen."
    assert (unstorable("a\u202e"), unstorable("a\x00")) == (
        None,
        "Character 2 is U+0000, which cannot be seen.",
    )
    assert unstorable("\ud800") == "Character 1 is U+D800, which cannot be seen."


@pytest.mark.parametrize("text", ["a\x1b[2J\x9b\u202eb", "\u2028\x7f\ud800", "plain \u00e9 \U0001f600"])
def test_json_means_the_same_escaped(text: str) -> None:
    document = json.dumps({text: [text]}, ensure_ascii=False, indent=2)
    shown = escaped(document, keep="\n")
    assert all(unsafe(line) is None for line in shown.split("\n"))
    assert json.loads(shown) == {text: [text]}
