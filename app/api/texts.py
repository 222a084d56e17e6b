"""What a text of a caller must not be, whatever field it is for."""

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from app.domain.masking import holds_secret
from app.domain.placeholders import is_no_tag


def _keeps_no_secret(value: str) -> str:
    if holds_secret(value):
        raise PydanticCustomError("value_is_secret", "Input holds a product key or a piece of a hash")
    return value


def _names_a_tag(value: str) -> str:
    if is_no_tag(value):
        raise PydanticCustomError("value_placeholder", "Input is a placeholder: leave the group tag out")
    return value


KeepsNoSecret = AfterValidator(_keeps_no_secret)
"""For texts that are stored and shown: neither a product key nor a piece of a hash is taken."""
NamesATag = AfterValidator(_names_a_tag)
