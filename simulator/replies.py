"""The JSON answers of the control routes."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response


def reply(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
