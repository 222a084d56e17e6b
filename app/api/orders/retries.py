"""Selects the rows of an order to retry: all that failed, or those that the body selects."""

from typing import Annotated

from fastapi import Request
from pydantic import Field

from app.api.contract.models import Input
from app.api.contract.texts import SOUGHT_PATTERN, Storable
from app.api.requests import read
from app.db.chosen import Choice
from app.domain.registration import RegistrationState

MOST = 10_000
"""The most rows that one call may name."""

Row = Annotated[int, Field(ge=1, le=2**31 - 1)]
Word = Annotated[str, Field(min_length=1, max_length=255, pattern=SOUGHT_PATTERN), Storable]


class RetryChoice(Input):
    """A row is tried again if it matches every given field. Without any, all are."""

    rows: Annotated[list[Row], Field(min_length=1, max_length=MOST)] | None = Field(
        None, description="The devices' numbers in the order, counted from 1."
    )
    line_refs: Annotated[list[Word], Field(min_length=1, max_length=MOST)] | None = Field(
        None, description="Your own lines."
    )
    states: Annotated[list[RegistrationState], Field(min_length=1)] | None = Field(
        None, strict=False, description="`failed`, `conflict` or `unknown`; others are never tried again."
    )
    codes: Annotated[list[Word], Field(min_length=1, max_length=100)] | None = Field(
        None, description="Values of `error_code`."
    )


async def read_choice(request: Request) -> Choice:
    """The body's choice, or every row if there is no body. Raises Unprocessable."""
    given, _ = await read(request, RetryChoice, nothing=RetryChoice())
    return Choice(
        rows=given.rows,
        line_refs=given.line_refs,
        states=None if given.states is None else [state.value for state in given.states],
        codes=given.codes,
    )
