"""Stored values into the fields of answers."""

from collections.abc import Sequence
from typing import Any

from app.domain.catalogue import CATALOGUE


def remedy(code: str | None) -> str | None:
    entry = CATALOGUE.get(code or "")
    return entry.remedy if entry else None


def same(record: object, model: type[Any], but: Sequence[str] = ()) -> dict[str, Any]:
    """The value's attributes with the same names as the model's fields."""
    return {name: getattr(record, name) for name in model.model_fields if name not in but}
