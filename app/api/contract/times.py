"""Times in queries, answers and events."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from app.db.engine import stamp

Timestamp = Annotated[
    datetime,
    PlainSerializer(stamp, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""RFC 3339, UTC, milliseconds."""


def _written_out(value: Any) -> Any:
    """Refuses numbers, which pydantic would read as seconds since 1970."""
    if isinstance(value, str) and not _DATE_AND_TIME.match(value):
        raise PydanticCustomError(
            "datetime_parsing", "Input should be a date and time with its offset, as 2026-01-31T08:00:00Z"
        )
    return value


_DATE_AND_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}", re.ASCII)


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("datetime_out_of_range", "Input is outside the years 1 to 9999") from None


Moment = Annotated[AwareDatetime, BeforeValidator(_written_out), AfterValidator(_in_utc)]
"""A time in a query, with its offset."""
