"""What arrives at an endpoint when a connection stops working, and when it works again."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from app.api.models import Output
from app.api.times import Timestamp
from app.domain.event import EventType


class ConnectionTroubleData(Output):
    connection_id: UUID
    name: str
    code: str = Field(description="A code of `GET /v1/error-codes`.")
    detail: str | None = Field(description="Microsoft's own words, shortened; never a credential.")
    remedy: str = Field(description="What a person has to do.")
    since: Timestamp
    sequence: None = None


class ConnectionTroubleEvent(Output):
    type: Literal[EventType.CONNECTION_TROUBLE]
    timestamp: Timestamp
    data: ConnectionTroubleData


class ConnectionRecoveredData(Output):
    connection_id: UUID
    name: str
    code: str = Field(description="The trouble that has ended.")
    since: Timestamp = Field(description="When it had begun.")
    sequence: None = None


class ConnectionRecoveredEvent(Output):
    type: Literal[EventType.CONNECTION_RECOVERED]
    timestamp: Timestamp
    data: ConnectionRecoveredData
