"""Answers of Microsoft that contradict our record of a group tag."""

import re
from collections.abc import Sequence
from enum import StrEnum

from app.domain.upstream import NoRelationship, Refused


class TagAnswer(StrEnum):
    """Outcome of an attempt that found the tag otherwise than our note of it says."""

    EXISTS = "group_tag_exists"  # it was to be created
    MISSING = "group_tag_missing"  # devices were to be added to it


_EXISTS = re.compile(r"\bbatch\b.*\balready exists?\b", re.IGNORECASE)
_MISSING = re.compile(r"\bbatch\b.*\b(not found|does not exist)\b", re.IGNORECASE)


def read(refused: Refused, *, create: bool) -> TagAnswer | None:
    """Creating what exists is 409, adding to what does not is 404; a 400 says either in words."""
    if isinstance(refused, NoRelationship):
        return None
    status, words = refused.said.status, refused.said.description or ""
    if create:
        return TagAnswer.EXISTS if status == 409 or (status == 400 and _EXISTS.search(words)) else None
    return TagAnswer.MISSING if status == 404 or (status == 400 and _MISSING.search(words)) else None


def is_there_unlisted(outcomes: Sequence[str | None]) -> bool:
    """Whether Microsoft has refused to create the tag because it exists, though its list does not show it.

    Then devices can perhaps be added to it. That is tried once: MISSING says that it is not there either.
    `outcomes` are those of the batch's calls that carried devices, oldest first.
    """
    if TagAnswer.EXISTS not in outcomes:
        return False
    return TagAnswer.MISSING not in outcomes[outcomes.index(TagAnswer.EXISTS) :]
