"""Models of calls and answers, as OpenAPI shows them.

A field's description says what a caller needs to know. No answer has a field for credentials, keys or hashes.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.api.contract.texts import KeepsNoSecret, NamesATag, Safe, Seen, named
from app.api.contract.times import Timestamp
from app.domain.catalogue import Advice

Text100 = Annotated[str, named(100), Safe, KeepsNoSecret]
Text255 = Annotated[str, named(255), Safe, KeepsNoSecret]
GroupTagText = Annotated[str, named(512), Seen, NamesATag, KeepsNoSecret]


def _present_word(value: Any) -> Any:
    """Also takes `reject_order`, the word that orders used before there were imports."""
    return "reject" if value == "reject_order" else value


OnInvalid = Annotated[
    Literal["accept_valid", "reject"],
    BeforeValidator(_present_word),
    Field(
        description="`accept_valid`: invalid rows are left out and the others are ordered. "
        "`reject`: nothing is ordered if a row is invalid."
    ),
]
"""What to do about invalid rows, for orders and imports alike."""


class Input(BaseModel):
    """Strict: an unknown field is an error and is not dropped silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ROWS: ClassVar[tuple[str, type[BaseModel]] | None] = None
    """The long list of the body and the type of its items. Validation stops at the first wrong row, so that a
    body that is wrong everywhere costs little; `decoding` then checks one row after the other."""


class Patch(Input):
    """Changes the given fields. Null empties a field that may be empty, and is refused for the others."""

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


class WaitingOut(Output):
    """One reason why devices wait. Several can hold at once."""

    code: str = Field(description="A code of `GET /v1/error-codes`.")
    title: str = Field(description="The code in words.")
    advice: Advice = Field(
        description="`person`: somebody must do what `remedy` says; `retry`, `none`: it ends by itself."
    )
    since: Timestamp | None = Field(description="Since when it holds, if known.")
    until: Timestamp | None = Field(
        description="When it ends or Registrar tries again; null if that is not known."
    )
    remedy: str = Field(description="What to do about it.")
    detail: str | None = Field(description="Details, for instance Microsoft's own words.")
    devices: int = Field(description="Devices that wait for it.")


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
    links: dict[str, str] = Field(default_factory=dict, description="Ids of what the detail is about.")
