"""Damage told apart: every changed character is found, and every cut gets the right name."""

from collections import Counter
from datetime import timedelta
from uuid import UUID

import pytest

from app.domain.hardware_hash import HashError, decode
from app.domain.identity import IdentityKind
from app.local.synthetic import CAPTURED_AT, WINDOWS_PE, devices, hardware_hash

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def capture(seconds: int = 0, tool: int = 9, os_type: int = 2, key: bool = True) -> str:
    return hardware_hash(
        "SYN0000042",
        "Contoso",
        "Contoso Book 14",
        "9999000000042",
        uuid=UUID(int=42, version=4),
        mac=b"\x02\x00\x00\x00\x00\x2a",
        endorsement_key=b"\x80" + bytes(254) + b"\x01" if key else None,
        captured_at=CAPTURED_AT + timedelta(seconds=seconds),
        os_type=os_type,
        tool_version=tool,
    )


WHOLE = [
    *(device.hardware_hash or "" for device in devices(3, seed=77, kind=IdentityKind.HARDWARE_HASH)),
    capture(),
    capture(tool=3, key=False),
    capture(os_type=WINDOWS_PE, seconds=999),
]


@pytest.mark.parametrize("number", range(6))
def test_one_changed_character_is_found_at_each_of_four_thousand_places(number: int) -> None:
    whole = WHOLE[number]
    assert not decode(whole).repaired
    undetected, called_cut = [], []
    for at in range(4000):
        # Another character of the alphabet each time, a neighbour as often as a stranger.
        other = ALPHABET[(ALPHABET.index(whole[at]) + 1 + at % 63) % 64]
        try:
            decode(whole[:at] + other + whole[at + 1 :])
        except HashError as error:
            if error.code == "hash_truncated":
                called_cut.append(at)
        else:
            undetected.append(at)
    assert undetected == []
    # The header's length is in the first eight characters: changed, it can promise more than there is.
    assert all(at < 8 for at in called_cut)


@pytest.mark.parametrize("number", range(6))
def test_a_cut_is_told_by_what_it_cuts(number: int) -> None:
    whole = WHOLE[number]
    data = decode(whole).data
    needed = -(-len(data) * 8 // 6)
    for length in range(len(whole)):
        cut = whole[:length]
        if length >= needed:
            found = decode(cut)
            assert found.repaired, length
            assert found.data == data
            continue
        with pytest.raises(HashError) as caught:
            decode(cut)
        expected = "hash_truncated" if length >= 3 else "hash_not_a_hash"
        assert caught.value.code == expected, (length, caught.value)


@pytest.mark.parametrize("number", range(6))
def test_a_cut_that_was_filled_up_again_is_a_cut_or_between_two_elements_a_wrong_checksum(
    number: int,
) -> None:
    whole = WHOLE[number]
    needed = -(-len(decode(whole).data) * 8 // 6)
    codes: Counter[str] = Counter()
    for length in range(8, needed - 60):
        with pytest.raises(HashError) as caught:
            decode(whole[:length].ljust(4000, "A"))
        codes[caught.value.code] += 1
    assert codes.keys() == {"hash_truncated", "hash_malformed"}
    assert codes["hash_truncated"] > 9 * codes["hash_malformed"]


def test_other_things_in_a_hashs_place_are_named() -> None:
    def code(text: str) -> str:
        with pytest.raises(HashError) as caught:
            decode(text)
        return caught.value.code

    assert code("x" * 171 + "=") == "hash_obsolete"
    assert code("0284750002680") == "hash_not_a_hash"
    assert code("5CD1234XYZ") == "hash_not_a_hash"
    assert code(WHOLE[0].lower()) == "hash_not_a_hash"
    assert code("Hardware Hash!") == "hash_not_base64"
    assert code(WHOLE[0] + WHOLE[1]) == "hash_malformed"
    assert decode("\n".join(WHOLE[0][at : at + 76] for at in range(0, 4000, 76))).repaired
