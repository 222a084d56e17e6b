"""The shapes callers meet: what they send and what they get, as OpenAPI shows them.

Answers are built from the services' records here and nowhere else. A field's description says
what a caller needs to know; credentials, keys and hashes have no answer shape at all.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.api.contract.texts import KeepsNoSecret, NamesATag, Safe, Seen, named


def _written_out(value: Any) -> Any:
    """pydantic would take any number for seconds since 1970."""
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


Text100 = Annotated[str, named(100), Safe, KeepsNoSecret]
Text255 = Annotated[str, named(255), Safe, KeepsNoSecret]
GroupTagText = Annotated[str, named(512), Seen, NamesATag, KeepsNoSecret]


def _present_word(value: Any) -> Any:
    """`reject_order` is what orders called it before imports came."""
    return "reject" if value == "reject_order" else value


OnInvalid = Annotated[
    Literal["accept_valid", "reject"],
    BeforeValidator(_present_word),
    Field(
        description="`accept_valid`: invalid rows are left out and the others are ordered. "
        "`reject`: nothing is ordered if a row is invalid."
    ),
]
"""One pair of words for orders and imports."""


class Input(BaseModel):
    """Strict: a field nobody knows is an error, not something to drop silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ROWS: ClassVar[tuple[str, type[BaseModel]] | None] = None
    """The long list of the body and what is in it. It fails at its first wrong row, so that a body wrong
    everywhere costs little; `decoding` then looks at one row after the other."""


class Patch(Input):
    """Changes what is given. Null empties a field that may be empty, and is refused for the others."""

    MAY_BE_EMPTY: ClassVar[frozenset[str]] = frozenset()

    @field_validator("*")
    @classmethod
    def _refuse_null(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None and info.field_name not in cls.MAY_BE_EMPTY:
            raise PydanticCustomError("not_nullable", "This field cannot be emptied")
        return value


class Output(BaseModel):
    model_config = ConfigDict(frozen=True)


class PageOf(Output):
    next_page_token: str | None = Field(
        None, description="Give it as `page_token` for the next page; null at the end."
    )


class ProblemError(Output):
    pointer: str = Field(description="JSON pointer into the body, or the parameter's name.")
    code: str = Field(description="A code of `GET /v1/error-codes`, or of the JSON shape.")
    detail: str
    row: int | None = Field(None, description="The device's number in the order, counted from 1.")
    field: str | None = Field(None, description="The field's name.")
    remedy: str | None = Field(None, description="What to do about it.")


class Problem(Output):
    """RFC 9457 problem details."""

    type: str = Field(description="A link to the code's entry.")
    title: str
    status: int
    detail: str
    code: str = Field(description="A code of `GET /v1/error-codes`.")
    remedy: str
    correlation_id: str = Field(description="Give it to the operator when asking for help.")
    errors: list[ProblemError] = Field(default_factory=list)
    links: dict[str, str] = Field(default_factory=dict, description="Ids of what the detail speaks of.")
