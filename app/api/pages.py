"""Pages of lists as answers. A large one is written in a thread, so that others are answered meanwhile."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from anyio import to_thread
from fastapi import Response
from pydantic import BaseModel

from app.api.http.turns import LARGE_PAGE
from app.db.paging import Page

Row = TypeVar("Row")
Items = TypeVar("Items", bound=BaseModel)


async def answer(
    model: type[Items], found: Page[Row], render: Callable[[Row], BaseModel], **more: object
) -> Items | Response:
    """The page as the model, or as its JSON already. `more`: other fields of the model."""
    if len(found.items) < LARGE_PAGE:
        return _model(model, found, render, more)

    def write() -> str:
        return _model(model, found, render, more).model_dump_json()

    return Response(await to_thread.run_sync(write), media_type="application/json")


def _model(
    model: type[Items], found: Page[Row], render: Callable[[Row], BaseModel], more: Mapping[str, object]
) -> Items:
    return model(items=[render(row) for row in found.items], next_page_token=found.next_token, **more)
