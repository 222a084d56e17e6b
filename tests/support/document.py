"""The OpenAPI document, made once per test process because building the API takes a second. Read-only."""

from functools import cache
from typing import Any

from fastapi import FastAPI

from app.kernel.settings import Settings
from app.main import build


@cache
def api() -> FastAPI:
    """Of an API with the usual settings and nothing behind it."""
    return build(Settings())


@cache
def openapi() -> dict[str, Any]:
    return api().openapi()
