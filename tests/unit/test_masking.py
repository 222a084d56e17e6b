"""A product key or a piece of a hash is in no text that is shown or kept, wherever it stands."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from app.domain.catalogue import CATALOGUE
from app.domain.directory import Directory, Entry
from app.domain.identity import CheckedDevice, Device, IdentityKind, Rules, check
from app.domain.masking import holds_secret, kept, quoted, shown
from app.local.synthetic import devices

RULES = Rules(frozenset(IdentityKind))
[DEVICE] = devices(1, kind=IdentityKind.HARDWARE_HASH)
HASH = str(DEVICE.hardware_hash)
KEY = "-".join(["VK7JG", "NPHTM", "C97JM", "9MPGT", "3V66T"])
SECRETS = [
    KEY,
    KEY.lower(),
    KEY.replace("-", " "),
    KEY.replace("-", ""),
    KEY.replace("-", "\N{EN DASH}"),
    KEY.replace("-", " - "),
    KEY.replace("-", "_"),
    f"Windows 11 Pro: {KEY}",
    f"{KEY} (spare)",
    f"key={KEY};",
    "-".join(["ABCDE"] * 5),
    HASH,
    HASH[100:148],
    HASH[500:576],
    f"hash {HASH[:64]}",
    f'"{HASH[:200]}"',
    f"{HASH[:76]}\r\n{HASH[76:152]}",
]
HARMLESS = [
    "Micro-Star International Co., Ltd.",
    "HP EliteBook x360 1040 14 inch G10 2-in-1 Notebook PC",
    "EMEA-Sales-Field-Notebook-Standard-2026-Rollout-Wave-3-Europe",
    "VMware-56 4d 3f 2a 11 22 33 44-55 66 77 88 99 aa bb cc",
    "019b0000-0000-7000-8000-000000000000",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "cjld2cjxh0000qzrmn831i7rn",
    "00330-80000-00000-AA200",
    "Black Stone Green Water Group",
    "10001 10002 10003 10004 10005",
    "12345-67890-12345-67890-12345",
    "PO 2026/11/28 for Contoso Distribution, second delivery of three",
    "x" * 256,
    "Müllerstraße 12345 Größe abcde fghij",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_found_wherever_it_stands(text: str) -> None:
    assert holds_secret(text)
    assert shown(text) is None
    assert quoted(text) == "(not shown)"
    assert kept(text) == ""


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_texts_are_shown_and_kept(text: str) -> None:
    assert not holds_secret(text)
    assert kept(text) == text


def test_a_hash_is_kept_in_its_own_column_only_and_a_key_nowhere() -> None:
    assert kept(HASH, "hardware_hash") == HASH
    assert kept(HASH, "serial_number") == ""
    assert kept("ABCDE" * 5, "product_key") == ""
    assert kept("ABCDE" * 5, "serial_number") == "ABCDE" * 5


def test_what_is_shown_is_bounded_and_printable() -> None:
    assert quoted("a\x07b") == '"a\ufffdb"'
    assert shown("Book " * 40) == ("Book " * 40)[:64] + "…"


def pieces(text: str) -> list[str]:
    """What must not be seen of it."""
    bare = "".join(filter(str.isalnum, text))
    return [bare[at : at + 20] for at in range(0, len(bare) - 20, 20)]


def judged(**values: str) -> CheckedDevice:
    return check(Device(**values), RULES, datetime(2026, 6, 1, tzinfo=UTC))


@pytest.mark.parametrize("text", [secret for secret in SECRETS if len(secret) < 256 and secret.isprintable()])
@pytest.mark.parametrize(
    "name", ["serial_number", "manufacturer", "model", "product_key", "group_tag", "line_ref"]
)
def test_a_checked_device_has_no_secret_in_any_field_or_sentence(name: str, text: str) -> None:
    parts = {"serial_number": "SYN0000001", "manufacturer": "Contoso", "model": "Book 14", name: text}
    device = judged(**parts)
    assert getattr(device, name) is None
    assert device.is_valid == (name == "line_ref")
    seen = "".join(filter(str.isalnum, repr(tuple(device)) + repr(device.findings)))
    assert not any(piece in seen for piece in pieces(text))
    wanted = {"line_ref": "secret_left_out"}.get(name, "value_is_secret")
    too_long = {"group_tag_too_long"} if name == "group_tag" and len(text) > RULES.max_group_tag else set()
    assert {finding.code for finding in device.findings} & {wanted, "product_key_is_license_key", *too_long}


@pytest.mark.parametrize("text", SECRETS)
def test_a_customer_that_is_not_found_is_not_repeated_if_it_holds_a_secret(text: str) -> None:
    _, finding = Directory([]).of_row(text, None)
    assert finding is not None
    assert finding.detail == "No customer has the tenant, domain or name (not shown)."
    _, finding = Directory([]).of_row("Contoso Ltd", None)
    assert finding is not None
    assert '"Contoso Ltd"' in finding.detail


def test_a_placeholder_names_no_customer() -> None:
    given = UUID(int=7)
    assert Directory([]).of_row("N/A", given) == (given, None)
    _, finding = Directory([]).of_row("-", None)
    assert finding is not None
    assert finding.code == "customer_missing"
    entry = Entry(UUID(int=1), UUID(int=2), None, "None")
    assert Directory([entry]).of_row("None", None) == (entry.id, None)


def test_the_remedies_of_secrets_say_that_nothing_was_stored() -> None:
    for code in ("value_is_secret", "secret_left_out"):
        assert "not stored" in CATALOGUE[code].remedy
