"""Times as every answer and every event writes them."""

from datetime import datetime
from typing import Annotated

from pydantic import PlainSerializer, WithJsonSchema

from app.db.engine import stamp

Timestamp = Annotated[
    datetime,
    PlainSerializer(stamp, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""RFC 3339, UTC, milliseconds."""
