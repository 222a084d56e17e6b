"""The OpenAPI document, made once a test process: making the API takes a second. Only to be read."""

from functools import cache
from typing import Any

from fastapi import FastAPI

from app.kernel.settings import Settings
from app.main import build


@cache
def api() -> FastAPI:
    """With the usual settings, and nothing behind it."""
    return build(Settings())


@cache
def openapi() -> dict[str, Any]:
    return api().openapi()
