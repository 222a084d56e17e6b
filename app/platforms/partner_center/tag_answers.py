"""Answers of Microsoft that contradict our record of a group tag."""

import re
from collections.abc import Sequence
from enum import StrEnum

from app.domain.upstream import NoRelationship, Refused


class TagAnswer(StrEnum):
    """Outcome of an attempt if the tag's existence contradicts our record of it."""

    EXISTS = "group_tag_exists"  # it was to be created
    MISSING = "group_tag_missing"  # devices were to be added to it


_EXISTS = re.compile(r"\bbatch\b.*\balready exists?\b", re.IGNORECASE)
_MISSING = re.compile(r"\bbatch\b.*\b(not found|does not exist)\b", re.IGNORECASE)


def read(refused: Refused, *, create: bool) -> TagAnswer | None:
    """Creating an existing tag is 409, adding to a missing one is 404; a 400 says either in words."""
    if isinstance(refused, NoRelationship):
        return None
    status, words = refused.said.status, refused.said.description or ""
    if create:
        return TagAnswer.EXISTS if status == 409 or (status == 400 and _EXISTS.search(words)) else None
    return TagAnswer.MISSING if status == 404 or (status == 400 and _MISSING.search(words)) else None


def is_there_unlisted(outcomes: Sequence[str | None]) -> bool:
    """Whether Microsoft has refused to create the tag because it exists, though its list does not show it.

    Then adding devices to it may succeed. This is tried once: MISSING shows that it does not exist either.
    `outcomes` are those of the batch's calls with devices, oldest first.
    """
    if TagAnswer.EXISTS not in outcomes:
        return False
    return TagAnswer.MISSING not in outcomes[outcomes.index(TagAnswer.EXISTS) :]
