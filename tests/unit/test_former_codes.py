"""Former names of codes: accepted, and shown under their present names, for one release."""

import pytest
from pydantic import TypeAdapter

from app.api.contract.texts import CodeSought
from app.domain.catalogue import CATALOGUE, Advice
from app.domain.former_codes import PRESENT_NAMES, present_name, stored

NAMES = sorted(PRESENT_NAMES.items())


@pytest.mark.parametrize(("former", "present"), NAMES)
def test_a_former_name_leads_to_the_entry_of_the_present_one(former: str, present: str) -> None:
    assert former not in CATALOGUE, "a name is never used again for something else"
    assert stored(former) == stored(present) == CATALOGUE[present]


def test_a_filter_takes_both_names() -> None:
    sought: TypeAdapter[str] = TypeAdapter(CodeSought)
    assert sought.validate_python("pdf") == sought.validate_python("file_is_pdf") == "file_is_pdf"
    assert sought.validate_python("serial_placeholder") == "serial_placeholder"


def test_a_present_name_is_nobodys_former_name() -> None:
    assert {present_name(code) for code in CATALOGUE} == set(CATALOGUE)


def test_a_code_of_a_later_release_is_shown_and_not_an_error() -> None:
    entry = stored("code_of_tomorrow")
    assert (entry.code, entry.advice) == ("code_of_tomorrow", Advice.PERSON)
