"""The form of an API key, and what it tells without a database."""

import re
from binascii import crc32
from pathlib import Path

import pytest

from app.domain import api_key
from app.domain.scope import Scope
from app.services.access.identities import PRESETS, Preset, mint
from tests.architecture.source import ROOT

SECRET = "a2" * 26
KEY = api_key.compose("0a1b2c3d", SECRET)
FORMER = f"rk_0a1b2c3d_{SECRET}"


def test_a_new_key_is_ours_and_its_prefix_can_be_read() -> None:
    for _ in range(200):
        made = mint()
        assert re.fullmatch(api_key.PATTERN, made.secret)
        assert api_key.prefix_of(made.secret) == made.prefix


def test_the_checksum_is_the_crc_in_base62_as_scanners_compute_it() -> None:
    body, digits = KEY[:-6], KEY[-6:]
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    value = 0
    for digit in digits:
        value = 62 * value + alphabet.index(digit)
    assert value == crc32(body.encode())
    assert api_key.checksum("") == "000000"


def test_no_key_with_one_wrong_character_passes() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    for place in range(len("rgstr_"), len(KEY)):
        for letter in letters:
            wrong = KEY[:place] + letter + KEY[place + 1 :]
            if wrong != KEY:
                assert api_key.prefix_of(wrong) is None, (place, letter)


@pytest.mark.parametrize(
    "text",
    ["", "rgstr_", KEY.upper(), KEY + "0", KEY[:-1], f" {KEY}", f"{KEY}\n", FORMER + "aaaaaa", "rk_live_x",
     f"rgstr_0a1b2c3d_{SECRET}", KEY.replace("rgstr", "rk", 1), FORMER.replace("rk_", "rgstr_", 1), "é" * 73],
)  # fmt: skip
def test_what_cannot_be_a_key_has_no_prefix(text: str) -> None:
    assert api_key.prefix_of(text) is None


def test_a_key_of_a_release_before_still_has_its_prefix() -> None:
    assert api_key.prefix_of(FORMER) == "0a1b2c3d"


@pytest.mark.parametrize("text", [KEY, FORMER, "0a1b2c3d", " 0a1b2c3d ", "rgstr_0a1b2c3d", "rk_0a1b2c3d"])
def test_a_person_may_name_a_key_by_more_than_its_prefix(text: str) -> None:
    assert api_key.named(text) == "0a1b2c3d"


def test_presets_say_what_a_key_is_for() -> None:
    assert set(PRESETS) == set(Preset)
    assert set(PRESETS[Preset.OPERATOR]) == set(Scope)
    assert Scope.HASHES_READ in PRESETS[Preset.INTEGRATION]
    assert Scope.CONNECTIONS_WRITE not in PRESETS[Preset.INTEGRATION]
    assert {scope.value.partition(":")[2] for scope in PRESETS[Preset.READ_ONLY]} == {"read"}
    assert Scope.HASHES_READ not in PRESETS[Preset.READ_ONLY]


def test_the_pattern_for_scanners_is_documented() -> None:
    assert f"`{api_key.PATTERN}`" in Path(ROOT, "docs/security.md").read_text()
