"""Answers of more than one row: pages of lists, and CSV files."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from anyio import to_thread
from fastapi import Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from app.api.http.turns import LARGE_PAGE
from app.db.paging import Page

Row = TypeVar("Row")
Items = TypeVar("Items", bound=BaseModel)

MEDIA_TYPE = "text/csv; charset=utf-8"

CSV: dict[int | str, dict[str, Any]] = {
    200: {"description": "CSV in UTF-8.", "content": {"text/csv": {"schema": {"type": "string"}}}}
}
"""`responses` of a route that answers with one."""


async def page(
    model: type[Items], found: Page[Row], render: Callable[[Row], BaseModel], **more: object
) -> Items | Response:
    """The page as the model. A large one is written as JSON in a thread, so that others are answered
    meanwhile.

    `more`: other fields of the model.
    """
    if len(found.items) < LARGE_PAGE:
        return _model(model, found, render, more)

    def write() -> str:
        return _model(model, found, render, more).model_dump_json()

    return Response(await to_thread.run_sync(write), media_type="application/json")


def _model(
    model: type[Items], found: Page[Row], render: Callable[[Row], BaseModel], more: Mapping[str, object]
) -> Items:
    return model(items=[render(row) for row in found.items], next_page_token=found.next_token, **more)


def download(name: str, lines: AsyncIterator[bytes]) -> StreamingResponse:
    """A CSV file, sent as it is written."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type=MEDIA_TYPE, headers=headers)
