"""The page of messages names every code, shows the catalogue's words, and its examples are true."""

import pytest

from app.domain.catalogue import CATALOGUE
from tests.messages import File, codes_of
from tests.messages.examples import EXAMPLES
from tests.messages.page import PAGE, page

FILES = {code: example for code, example in EXAMPLES.items() if isinstance(example, File)}


def test_every_code_has_an_example_and_no_example_is_of_a_code_that_has_gone() -> None:
    assert set(EXAMPLES) == set(CATALOGUE)


@pytest.mark.parametrize("code", sorted(FILES))
def test_an_example_of_a_file_is_judged_as_the_page_says(code: str) -> None:
    assert code in codes_of(FILES[code].content)


def test_the_page_is_the_one_that_the_catalogue_gives() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.messages`"
