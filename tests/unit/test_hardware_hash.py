import base64
import hashlib
import json
import random
import re
import struct
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.catalogue import CATALOGUE
from app.domain.hardware_hash import (
    HardwareHash,
    HashError,
    decode,
    encode,
    explain,
    findings,
)
from app.domain.placeholders import is_filler_serial
from app.local.synthetic import WINDOWS_PE, devices, hardware_hash

NOW = datetime(2026, 6, 1, tzinfo=UTC)
UUID_ = UUID("00112233-4455-4677-8899-aabbccddeeff")
MAC = bytes.fromhex("020000000001")
EK = b"\x80" + bytes(range(254)) + b"\x01"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
FIXTURES = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "fixtures" / "hardware-hashes.jsonl").read_text().splitlines()
]
VERDICTS = {
    "valid": None,
    "checksum": "hash_checksum_mismatch",
    "repairable: zero tail cut, not multiple of 4": None,
    "repairable: length 4001": None,
    "reject: header length > data": "hash_truncated",
    "reject: magic": "hash_not_a_hash",
}


def made(**changes: object) -> str:
    values: dict[str, object] = {
        "serial": "SYN1",
        "manufacturer": "Contoso",
        "model": "Contoso Book 14",
        "product_key": "9999000000001",
        "uuid": UUID_,
        "mac": MAC,
        "endorsement_key": EK,
    }
    return hardware_hash(**(values | changes))  # type: ignore[arg-type]


def packed(*records: tuple[int, bytes]) -> str:
    body = b"".join(struct.pack("<HH", kind, 4 + len(payload)) + payload for kind, payload in records)
    blob = b"OA" + struct.pack("<H", 4 + len(body)) + body
    blob += b"CS\x24\x00" + hashlib.sha256(blob).digest()
    return base64.b64encode(blob.ljust(3000, b"\0")).decode()


def code_of(text: str | bytes) -> str:
    with pytest.raises(HashError) as caught:
        decode(text)
    assert CATALOGUE[caught.value.code].category == "row"
    return caught.value.code


def codes(hardware: HardwareHash) -> set[str]:
    return {finding.code for finding in findings(hardware, now=NOW)}


@pytest.mark.parametrize("sample", FIXTURES, ids=lambda sample: str(sample["id"]))
def test_every_published_sample_gets_its_verdict(sample: dict[str, str]) -> None:
    verdict = VERDICTS[sample["expect"]]
    if verdict is not None:
        assert code_of(sample["hash"]) == verdict
        return
    whole = decode(sample["hash"])
    assert whole.repaired == sample["expect"].startswith("repairable")
    assert decode(encode(whole.data)).data == whole.data


def test_the_fields_inside_are_read() -> None:
    whole = decode(made(captured_at=datetime(2025, 2, 3, 4, 5, 6, tzinfo=UTC)))
    assert whole.serial_number == "SYN1"
    assert whole.manufacturer == "Contoso"
    assert whole.model == "Contoso Book 14"
    assert whole.product_key == "9999000000001"
    assert whole.smbios_uuid == str(UUID_)
    assert whole.ek_digest == hashlib.sha256(EK).digest()
    assert whole.has_tpm
    assert whole.os_type == 2
    assert whole.tool_version == 9
    assert whole.captured_at == datetime(2025, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert codes(whole) == set()


def test_a_usual_hash_is_not_called_repaired_and_encodes_to_itself() -> None:
    text = made()
    assert not decode(text).repaired
    assert encode(decode(text).data) == text


def test_bytes_are_read_as_text_is() -> None:
    assert decode(made().encode()) == decode(made())


def test_one_changed_character_is_found_at_every_position() -> None:
    text = made()
    chance = random.Random(1)
    started = time.process_time()
    for position, old in enumerate(text):
        new = chance.choice(ALPHABET.replace(old, ""))
        with pytest.raises(HashError):
            decode(text[:position] + new + text[position + 1 :])
    assert time.process_time() - started < 10


def test_one_character_replaced_by_anything_never_gives_other_data() -> None:
    text = made()
    chance = random.Random(2)
    data = decode(text).data
    for position in chance.sample(range(len(text)), 400):
        for new in "= \n\x00-_é":
            try:
                whole = decode(text[:position] + new + text[position + 1 :])
            except HashError:
                continue
            assert whole.repaired
            assert whole.data == data


@pytest.mark.parametrize("serial", ["SYN1", "SYN12", "SYN123"])
def test_padding_signs_right_behind_the_data_are_filling_cut_short(serial: str) -> None:
    text = made(serial=serial)
    data = decode(text).data
    end = -(-len(data) // 3) * 4
    spare = end // 4 * 3 - len(data)
    for signs in range(1, spare + 1):
        whole = decode(text[: end - signs] + "=" * signs + text[end:])
        assert whole.repaired
        assert encode(whole.data) == text


def test_a_cut_in_the_filling_is_repaired_and_a_cut_in_the_data_is_not() -> None:
    text = made()
    needed = -(-len(decode(text).data) * 4 // 3)
    for length in range(needed, 4000):
        whole = decode(text[:length])
        assert whole.repaired
        assert encode(whole.data) == text
    # The last bits may happen to be zero, so the last two characters of the data are left out.
    for length in range(6, needed - 2):
        assert code_of(text[:length]) == "hash_truncated"


def test_data_that_was_cut_and_filled_up_again_is_called_truncated() -> None:
    text = made()
    needed = -(-len(decode(text).data) * 4 // 3)
    assert code_of(text[: needed - 60].ljust(4000, "A")) == "hash_truncated"
    assert code_of(text[: needed // 2].ljust(4000, "A")) == "hash_truncated"


@pytest.mark.parametrize(
    "mangle",
    [
        lambda text: text + "A",
        lambda text: text + "=",
        lambda text: text + "==",
        lambda text: text + "A" * 96,
        lambda text: text[:3001],
        lambda text: text[:-2] + "==",
        lambda text: "\n".join(text[n : n + 76] for n in range(0, 4000, 76)),
        lambda text: "=\r\n".join(text[n : n + 75] for n in range(0, 4000, 75)),
        lambda text: text[:100] + "  " + text[100:],
    ],
)
def test_changes_outside_the_data_are_repaired_without_loss(mangle: object) -> None:
    text = made()
    whole = decode(mangle(text))  # type: ignore[operator]
    assert whole.repaired
    assert encode(whole.data) == text
    assert codes(whole) == {"hash_repaired"}


def test_blanks_around_a_hash_are_not_worth_a_word() -> None:
    assert not decode(f" {made()}\r\n").repaired


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "hash_not_a_hash"),
        (" \r\n", "hash_not_a_hash"),
        ("====", "hash_not_a_hash"),
        ("A" * 4000, "hash_not_a_hash"),
        ("A" * 16_385, "hash_not_a_hash"),
        ("SYN0000001", "hash_not_a_hash"),
        (made().lower(), "hash_not_a_hash"),
        (made()[1:], "hash_not_a_hash"),
        ('"' + made() + '"', "hash_not_base64"),
        (made().replace("A", "\ufeff", 1), "hash_not_base64"),
        (made()[:50] + "\ud800" + made()[50:], "hash_not_base64"),
        (made()[:50] + "-" + made()[51:], "hash_not_base64"),
        (base64.b64encode(b"x" * 128).decode(), "hash_obsolete"),
        (base64.b64encode(b"x" * 128).decode().rstrip("="), "hash_obsolete"),
        ("T0E", "hash_truncated"),
        (made() + made(), "hash_malformed"),
        (made()[:600] + made()[601:], "hash_malformed"),
        (base64.b64encode(b"OA\x04\x00".ljust(3000, b"\0")).decode(), "hash_malformed"),
        (base64.b64encode(b"OA\xff\xff".ljust(3000, b"\0")).decode(), "hash_malformed"),
    ],
)
def test_damage_is_named(text: str, code: str) -> None:
    assert code_of(text) == code


def rebuilt(change: object) -> str:
    blob = bytearray(base64.b64decode(made()))
    change(blob)  # type: ignore[operator]
    return base64.b64encode(blob).decode()


def test_damage_to_the_structure_is_told_from_damage_to_the_contents() -> None:
    size = len(decode(made()).data)

    def too_short_record(blob: bytearray) -> None:
        blob[6:8] = b"\x03\x00"

    def record_over_the_end(blob: bytearray) -> None:
        blob[6:8] = b"\xff\xff"

    def longer_list(blob: bytearray) -> None:
        blob[2:4] = struct.pack("<H", size + 100)

    def no_checksum_record(blob: bytearray) -> None:
        blob[size - 36] ^= 1

    def changed_checksum(blob: bytearray) -> None:
        blob[size - 1] ^= 1

    def changed_filling(blob: bytearray) -> None:
        blob[2999] = 1

    for change in (too_short_record, record_over_the_end, longer_list, no_checksum_record, changed_filling):
        assert code_of(rebuilt(change)) == "hash_malformed", change.__name__
    assert code_of(rebuilt(changed_checksum)) == "hash_checksum_mismatch"
    for change, words in (
        (too_short_record, "breaks at byte 4."),
        (record_over_the_end, "length of a record points beyond the end of its list."),
    ):
        with pytest.raises(HashError, match=re.escape(words)):
            decode(rebuilt(change))


def test_no_word_about_damage_contains_a_part_of_the_hash() -> None:
    text = made()
    for damaged in (
        text[:900],
        text.lower(),
        text[:700] + "?" + text[701:],
        text[:700] + "////" + text[704:],
    ):
        with pytest.raises(HashError) as caught:
            decode(damaged)
        assert not any(text[n : n + 8].lower() in str(caught.value).lower() for n in range(900))


def test_data_larger_than_a_hash_is_refused() -> None:
    body = b"".join(struct.pack("<HH", 14, 1000) + b"x" * 996 for _ in range(3))
    blob = b"OA" + struct.pack("<H", 4 + len(body)) + body
    blob += b"CS\x24\x00" + hashlib.sha256(blob).digest()
    assert code_of(base64.b64encode(blob).decode()) == "hash_malformed"
    with pytest.raises(ValueError, match="do not fit"):
        encode(bytes(3001))


def test_unknown_and_odd_records_are_no_reason_to_refuse() -> None:
    whole = decode(
        packed((60000, b"?"), (1, b"short"), (12, b"short"), (25, b""), (14, b" SYN9 \0rest"), (14, b"b"))
    )
    assert whole.serial_number == "SYN9"
    assert (whole.captured_at, whole.smbios_uuid, whole.ek_digest, whole.has_tpm) == (None, None, None, False)


def test_what_microsoft_refuses_inside_a_hash_is_an_error() -> None:
    assert codes(decode(made(serial="", manufacturer=" "))) == {
        "hash_lacks_serial",
        "hash_lacks_manufacturer",
    }
    assert codes(decode(packed((12, UUID_.bytes_le)))) == {
        "hash_lacks_serial",
        "hash_lacks_manufacturer",
        "hash_lacks_tpm",
    }


def test_weaknesses_of_a_capture_are_warnings() -> None:
    weak = decode(made(os_type=WINDOWS_PE, endorsement_key=None, serial="Default string"))
    assert codes(weak) == {"hash_from_winpe", "hash_lacks_tpm", "serial_placeholder_in_hash"}
    assert not any(finding.is_error for finding in findings(weak, now=NOW))


@pytest.mark.parametrize(
    "serial",
    [
        "Default string",
        "DEFAULT_STRING",
        "System Serial Number",
        "To Be Filled By O.E.M.",
        "None",
        "0",
        "0000000",
        "INVALID",
        "Not Specified",
        "Not Applicable",
        "O.E.M.",
        "SMBIOS_STRING_INDEX_0",
        "FFFFFFFF",
        " none ",
    ],
)
def test_placeholders_of_firmware_are_known(serial: str) -> None:
    assert is_filler_serial(serial)


@pytest.mark.parametrize("serial", ["SYN1", "0001", "F", "FF1", "5CD0000", "NONE1"])
def test_real_serial_numbers_are_no_placeholders(serial: str) -> None:
    assert not is_filler_serial(serial)


def test_every_record_is_explained() -> None:
    records = explain(decode(made()))
    by_name = {record.name: dict(record.values) for record in records}
    assert by_name["SmbiosSystemSerialNumber"] == {"text": "SYN1"}
    assert by_name["SmbiosUuid"] == {"UUID": str(UUID_)}
    assert by_name["OfflineDeviceId"]["id"] == by_name["TPMEkPub"]["SHA-256"]
    assert by_name["Header"]["OS build"] == "10.0.26100.1742"
    assert by_name["Header"]["UTC offset"] == "+60 minutes"
    assert by_name["Disk"]["bus"] == "NVMe"
    assert [dict(r.values)["medium"] for r in records if r.name == "NetworkAdapter"] == ["802.11", "Ethernet"]
    for sample in FIXTURES[:3]:
        assert all(record.name != "unknown" for record in explain(decode(sample["hash"])))


@given(
    st.lists(
        st.tuples(st.integers(0, 40) | st.integers(0, 65535), st.binary(max_size=60)), min_size=1, max_size=40
    )
)
def test_any_records_in_a_right_container_are_read_and_explained(records: list[tuple[int, bytes]]) -> None:
    whole = decode(packed(*records))
    assert [record.kind for record in explain(whole)] == [kind for kind, _ in records]
    assert encode(whole.data) == packed(*records)
    findings(whole, now=NOW)


def is_judged(text: str | bytes) -> bool:
    try:
        whole = decode(text)
    except HashError as error:
        return error.code in CATALOGUE and bool(error.detail)
    return decode(encode(whole.data)).data == whole.data


@given(
    st.text() | st.binary() | st.text(alphabet=ALPHABET + "= \n", max_size=300).map(lambda text: "T0E" + text)
)
def test_any_input_is_read_or_refused_with_a_code(text: str | bytes) -> None:
    assert is_judged(text)


@given(st.binary(max_size=200), st.integers(0, 2999), st.booleans())
def test_any_bytes_inside_a_hash_are_read_or_refused(noise: bytes, place: int, keep: bool) -> None:
    blob = bytearray(base64.b64decode(made()) if keep else b"OA".ljust(3000, b"\0"))
    blob[place : place + len(noise)] = noise
    assert is_judged(base64.b64encode(blob).decode())


@given(st.text(min_size=1, max_size=40), st.integers(0, 4100), st.integers(0, 4000))
def test_any_splice_never_gives_other_data(noise: str, start: int, length: int) -> None:
    text = made()
    try:
        whole = decode(text[:start] + noise + text[start + length :])
    except HashError:
        return
    assert encode(whole.data) == text


def test_a_whole_order_of_hashes_is_read_in_little_time() -> None:
    texts = [device.hardware_hash or "" for device in devices(1000, 3, kind=None)][2::3]
    started = time.process_time()
    for text in texts:
        decode(text)
    # 12 µs each on a small machine; the bound only catches a change of the order of growth.
    assert (time.process_time() - started) / len(texts) < 0.0005


def test_hopeless_input_is_refused_at_once() -> None:
    started = time.process_time()
    assert code_of("T0E" + "A" * 50_000_000) == "hash_not_a_hash"
    assert code_of("T0EA" * 4096) == "hash_malformed"
    assert time.process_time() - started < 2


def test_a_hash_shows_nothing_of_itself_when_printed() -> None:
    assert "SYN1" not in repr(decode(made()))
