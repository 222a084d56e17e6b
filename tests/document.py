"""The OpenAPI document, made once a test process: making the API takes a second. Only to be read."""

from functools import cache
from typing import Any

from fastapi import FastAPI

from app.main import build
from app.settings import Settings


@cache
def api() -> FastAPI:
    """With the usual settings, and nothing behind it."""
    return build(Settings())


@cache
def openapi() -> dict[str, Any]:
    return api().openapi()
