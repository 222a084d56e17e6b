"""Group tags: which spellings are the same tag, which spelling is used, and which tag a device gets."""

import unicodedata
from collections.abc import Mapping

from app.domain.catalogue import Finding
from app.domain.masking import quoted


def tag_key(group_tag: str) -> str:
    """The key that all spellings of one group tag share.

    Partner Center ignores case. Its treatment of letters outside ASCII is not documented; this follows
    Unicode: NFC, then case folding (`Großkunden` and `GROSSKUNDEN` are one tag).
    """
    return unicodedata.normalize("NFC", group_tag).casefold()


class Spellings:
    """One customer's group tags, each in the spelling that was seen first."""

    def __init__(self, known: Mapping[str, str] | None = None, *, one_each: bool = True) -> None:
        """`known`: spellings by `tag_key`. `one_each`: the platform takes one spelling of each tag."""
        self._of = dict(known or {})
        self._one_each = one_each

    def conflict(self, group_tag: str) -> Finding | None:
        """A finding if the customer already has this tag in another spelling."""
        spelling = self._of.setdefault(tag_key(group_tag), group_tag)
        if spelling == group_tag or not self._one_each:
            return None
        words = (
            f"The platform cannot tell {quoted(group_tag)} from {quoted(spelling)}, which is there already."
        )
        return Finding("group_tag_case_conflict", "group_tag", words)


def tag_of(*candidates: str | None) -> str:
    """The first tag that is given: the device's, the order's, the customer's default or the connection's."""
    return next((each for each in candidates if each), "")
