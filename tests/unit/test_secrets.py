"""Sealed values open with their own key, in their own place, unchanged, or not at all."""

import base64
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.secrets import KEY_BYTES, Place, SecretError, Secrets


def at(row: str, **other: str) -> Place:
    """A place that differs by its row only."""
    given = {"table": "connections", "column": "client_secret", "former": f"former:{row}", **other}
    return Place(partner_id=UUID(int=1), row=row, **given)


OLD, NEW = b"o" * KEY_BYTES, b"n" * KEY_BYTES


@given(st.binary(max_size=5000), st.text(max_size=100))
def test_a_sealed_value_opens_in_its_context(value: bytes, context: str) -> None:
    secrets = Secrets([OLD])
    assert secrets.open(secrets.seal(value, at(context)), at(context)) == value


def test_text_comes_back_as_text() -> None:
    secrets = Secrets([OLD])
    assert secrets.open_text(secrets.seal("gеheim ✓", at("c")), at("c")) == "gеheim ✓"


def test_the_same_value_is_sealed_differently_each_time_and_shows_nothing_of_itself() -> None:
    secrets = Secrets([OLD])
    sealed = {secrets.seal("the-client-secret", at("c")) for _ in range(50)}
    assert len(sealed) == 50
    assert not any(b"the-client-secret" in value or OLD in value for value in sealed)


def test_another_context_does_not_open_it() -> None:
    secrets = Secrets([OLD])
    sealed = secrets.seal("value", at("client_secret:partner 1"))
    for other in ("client_secret:partner 2", "refresh_token:partner 1", ""):
        with pytest.raises(SecretError):
            secrets.open(sealed, at(other))


def test_no_byte_can_be_changed_and_nothing_cut_off_or_added() -> None:
    secrets = Secrets([OLD])
    sealed = secrets.seal("value", at("c"))
    damaged = [bytes([*sealed[:i], sealed[i] ^ 1, *sealed[i + 1 :]]) for i in range(len(sealed))]
    damaged += [sealed[:length] for length in range(len(sealed))]
    damaged += [sealed + b"\x00", b"\x00" + sealed, b"value"]
    for value in damaged:
        with pytest.raises(SecretError):
            secrets.open(value, at("c"))


def test_keys_are_rotated_the_first_seals_and_all_open() -> None:
    before = Secrets([OLD]).seal("value", at("c"))
    both = Secrets([NEW, OLD])
    assert both.open_text(before, at("c")) == "value"
    after = both.seal("value", at("c"))
    assert Secrets([NEW]).open_text(after, at("c")) == "value"
    for keys, sealed in (([OLD], after), ([NEW], before)):
        with pytest.raises(SecretError, match="REGISTRAR_SECRET_KEYS no longer has"):
            Secrets(keys).open(sealed, at("c"))


@pytest.mark.parametrize("keys", [[], [b""], [b"short"], [OLD, b"x" * 31], [b"x" * 33]])
def test_keys_of_another_length_than_32_bytes_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(SecretError):
        Secrets(keys)


@pytest.mark.parametrize("text", ["not base64!", "schlüssel", "QUJD", "", "QUJD=QUJD"])
def test_a_key_that_is_no_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SecretError) as refused:
        Secrets.from_base64([text])
    assert not text or text not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_generated_key_is_kept_for_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    sealed = Secrets.from_data_dir(directory).seal("value", at("c"))
    assert Secrets.from_data_dir(directory).open_text(sealed, at("c")) == "value"
    path = directory / "secret.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(base64.b64decode(path.read_text())) == KEY_BYTES
    assert os.listdir(directory) == ["secret.key"]


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    for round_ in range(20):
        directory = tmp_path / str(round_)
        with ThreadPoolExecutor(8) as pool:
            opened = list(pool.map(lambda _: Secrets.from_data_dir(directory), range(8)))  # noqa: B023
        sealed = [secrets.seal("value", at("c")) for secrets in opened]
        for secrets in opened:
            assert {secrets.open_text(value, at("c")) for value in sealed} == {"value"}


def test_a_damaged_key_file_is_refused_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_text("half a k")
    with pytest.raises(SecretError):
        Secrets.from_data_dir(tmp_path)
    assert path.read_text() == "half a k"


@pytest.mark.parametrize(
    "other",
    [
        at("another row"),
        at("row", table="webhook_secrets"),
        at("row", column="refresh_token"),
        Place("connections", "client_secret", UUID(int=2), "row", "former:row"),
    ],
)
def test_a_value_opens_in_its_table_column_partner_and_row_only(other: Place) -> None:
    secrets = Secrets([OLD])
    sealed = secrets.seal("value", at("row"))
    assert secrets.open_text(sealed, at("row")) == "value"
    with pytest.raises(SecretError, match="sealed for another row"):
        secrets.open(sealed, other)


def test_a_value_of_before_opens_and_is_not_current() -> None:
    secrets = Secrets([OLD])
    secrets.binds_to_rows = False
    former = secrets.seal("value", at("row"))
    # So did the release before: the partner and the purpose, no row.
    assert former[0] == 1
    assert secrets.open_text(former, at("another row", former="former:row")) == "value"
    assert not secrets.is_current(former)
    secrets.binds_to_rows = True
    bound = secrets.seal("value", at("row"))
    assert secrets.is_current(bound)
    assert not Secrets([NEW, OLD]).is_current(bound)
    for value in (bytes([1]) + bound[1:], bytes([2]) + former[1:]):
        with pytest.raises(SecretError):
            secrets.open(value, at("row"))
