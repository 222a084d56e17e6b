"""Answers of Microsoft about a group tag."""

import pytest

from app.domain.upstream import NoRelationship, Refused, Said
from app.platforms.partner_center import tag_answers
from app.platforms.partner_center.tag_answers import TagAnswer

EXISTS, MISSING = TagAnswer.EXISTS, TagAnswer.MISSING


@pytest.mark.parametrize(
    ("create", "status", "words", "answer"),
    [
        (True, 409, None, EXISTS),
        (True, 400, "A device batch with this id already exists.", EXISTS),
        (True, 400, "A device of the batch is invalid.", None),
        (True, 404, "Not found.", None),
        (False, 404, None, MISSING),
        (False, 400, "Device batch not found.", MISSING),
        (False, 400, "The batch does not exist.", MISSING),
        (False, 400, "The request is invalid.", None),
        (False, 409, None, None),
    ],
)
def test_what_a_refusal_says_of_the_tag(
    create: bool, status: int, words: str | None, answer: TagAnswer | None
) -> None:
    refused = Refused("batch_refused", Said(status, None, words))
    assert tag_answers.read(refused, create=create) is answer


def test_a_refusal_for_the_customer_says_nothing_of_the_tag() -> None:
    assert tag_answers.read(NoRelationship(Said(404, "60003")), create=False) is None


@pytest.mark.parametrize(
    ("outcomes", "unlisted"),
    [
        ([], False),
        (["unknown", None], False),
        ([EXISTS.value], True),
        ([MISSING.value, EXISTS.value], True),
        ([EXISTS.value, "interrupted"], True),
        ([EXISTS.value, MISSING.value], False),
        ([EXISTS.value, MISSING.value, EXISTS.value], False),
    ],
)
def test_adding_to_a_tag_that_is_there_and_not_listed_is_tried_once(
    outcomes: list[str | None], unlisted: bool
) -> None:
    assert tag_answers.is_there_unlisted(outcomes) is unlisted
