import base64
import hashlib
import struct
import time
from itertools import islice
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.catalogue import Severity
from app.domain.hardware_hash import decode, encode, explain, findings
from app.domain.identity import IdentityKind
from app.local.synthetic import (
    CAPTURED_AT,
    SyntheticDevice,
    devices,
    hardware_hash,
    write_collector_csv,
    write_partner_center_csv,
)

HASH = IdentityKind.HARDWARE_HASH
UUID_ = UUID("00112233-4455-4677-8899-aabbccddeeff")
MAC = bytes.fromhex("020000000001")


@given(st.integers(0, 999), st.integers(1, 30))
def test_every_hash_reads_back_as_the_device_it_was_made_for(seed: int, n: int) -> None:
    for device in devices(n, seed, HASH):
        text = device.hardware_hash or ""
        whole = decode(text)
        assert len(text) == 4000
        assert encode(whole.data) == text
        assert (whole.serial_number, whole.manufacturer, whole.model, whole.product_key) == (
            device.serial_number,
            device.manufacturer,
            device.model,
            device.product_key,
        )
        assert findings(whole, now=CAPTURED_AT) == []


WORD = st.text(
    alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Cs"]), max_size=60
)


@given(WORD, WORD, WORD, st.none() | WORD, st.uuids(), st.none() | st.binary(min_size=256, max_size=256))
def test_any_values_give_a_hash_that_holds_them(
    serial: str, maker: str, model: str, product_key: str | None, uuid: UUID, key: bytes | None
) -> None:
    text = hardware_hash(serial, maker, model, product_key, uuid=uuid, mac=MAC, endorsement_key=key)
    whole = decode(text)
    assert encode(whole.data) == text
    assert whole.serial_number == (serial.strip() or None)
    assert whole.manufacturer == (maker.strip() or None)
    assert whole.model == (model.strip() or None)
    assert whole.product_key == ((product_key or "").strip() or None)
    assert whole.smbios_uuid == str(uuid)
    assert whole.ek_digest == (hashlib.sha256(key).digest() if key else None)
    assert whole.has_tpm == (key is not None)
    assert whole.captured_at == CAPTURED_AT


def test_a_hash_has_the_records_and_the_checksum_that_windows_writes() -> None:
    (device,) = devices(1, 1, HASH)
    blob = base64.b64decode(device.hardware_hash or "")
    (total,) = struct.unpack_from("<H", blob, 2)
    assert blob[:2] == b"OA"
    assert blob[total : total + 4] == b"CS\x24\x00"
    assert blob[total + 4 : total + 36] == hashlib.sha256(blob[:total]).digest()
    assert blob[total + 36 :] == bytes(3000 - total - 36)
    kinds = {record.kind for record in explain(decode(device.hardware_hash or ""))}
    assert kinds == {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 23, 24, 25}


def test_a_seed_always_gives_the_same_devices_and_another_one_others() -> None:
    once = list(devices(60, 4))
    assert list(islice(devices(1000, 4), 60)) == once
    others = list(devices(60, 5))
    for name in ("serial_number", "product_key"):
        assert len({getattr(device, name) for device in once + others}) == 120


def test_devices_look_invented() -> None:
    for device in devices(30, 2):
        assert device.serial_number.startswith("SYN")
        assert device.product_key.startswith("9999")
        assert len(device.product_key) == 13


def test_without_a_kind_all_kinds_take_turns_and_each_gives_its_own_fields() -> None:
    names = [set(device.fields()) for device in devices(3, 1)]
    assert names == [
        {"serial_number", "manufacturer", "model"},
        {"product_key"},
        {"serial_number", "hardware_hash"},
    ]
    assert {device.kind for device in devices(5, 1, IdentityKind.TUPLE)} == {IdentityKind.TUPLE}


def test_the_collectors_file_is_as_windows_powershell_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "collector.csv"
    made = list(devices(2, 1, HASH))
    write_collector_csv(path, made)
    raw = path.read_bytes()
    assert raw.startswith(b"\xff\xfe")
    lines = raw[2:].decode("utf-16-le").split("\r\n")
    assert lines == [
        "Device Serial Number,Windows Product ID,Hardware Hash",
        *(f"{device.serial_number},,{device.hardware_hash}" for device in made),
        "",
    ]
    write_collector_csv(path, made, group_tag="Kiosk")
    lines = path.read_bytes().decode("utf-16").split("\r\n")
    assert lines[0].endswith(",Hardware Hash,Group Tag")
    assert all(line.endswith(",Kiosk") for line in lines[1:3])


def test_partner_centers_file_has_one_identity_a_row(tmp_path: Path) -> None:
    path = tmp_path / "partner-center.csv"
    made = list(devices(3, 1))
    write_partner_center_csv(path, made)
    assert path.read_bytes().decode("cp1252").split("\r\n") == [
        "Device serial number,Windows product ID,Hardware hash,Manufacturer name,Device model",
        f"{made[0].serial_number},,,{made[0].manufacturer},{made[0].model}",
        f",{made[1].product_key},,,",
        f",,{made[2].hardware_hash},,",
        "",
    ]


def test_what_a_file_can_not_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "refused.csv"
    odd = SyntheticDevice("SYN1", "Contoso, Inc.", "Book", "9999000000001", None, IdentityKind.TUPLE)
    with pytest.raises(ValueError, match="no quotes"):
        write_partner_center_csv(path, [odd])
    with pytest.raises(ValueError, match="without a hash"):
        write_collector_csv(path, [odd])
    with pytest.raises(ValueError, match="no quotes"):
        write_collector_csv(path, devices(1, 1, HASH), group_tag="a,b")
    assert not path.exists()


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        hardware_hash("S" * 3000, "Contoso", "Book", uuid=UUID_, mac=MAC)
    with pytest.raises(ValueError, match="6 bytes"):
        hardware_hash("SYN1", "Contoso", "Book", uuid=UUID_, mac=b"")
    with pytest.raises(ValueError, match="256"):
        hardware_hash("SYN1", "Contoso", "Book", uuid=UUID_, mac=MAC, endorsement_key=b"short")


def test_a_finding_of_a_synthetic_device_is_never_an_error() -> None:
    text = hardware_hash("SYN1", "Contoso", "Book", uuid=UUID_, mac=MAC, os_type=1)
    found = findings(decode(text), now=CAPTURED_AT)
    assert {finding.code for finding in found} == {"hash_from_winpe", "hash_lacks_tpm"}
    assert {finding.severity for finding in found} == {Severity.WARNING}


def test_a_large_order_is_made_in_little_time() -> None:
    started = time.process_time()
    assert sum(1 for _ in devices(2000, 1, HASH)) == 2000
    # 26 µs each on a small machine; the bound only catches a change of the order of growth.
    assert time.process_time() - started < 2
