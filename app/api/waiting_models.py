"""What work waits for, as every answer and every event shows it."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from app.db.engine import stamp
from app.domain.catalogue import Advice

_Time = Annotated[datetime, PlainSerializer(stamp, return_type=str, when_used="json")]


class WaitingOut(BaseModel):
    """One reason why devices wait. Several can hold at once."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(description="A code of `GET /v1/error-codes`.")
    title: str = Field(description="The code in words.")
    advice: Advice = Field(
        description="`person`: somebody has to do what `remedy` says; `retry`, `none`: it ends by itself."
    )
    since: _Time | None = Field(description="Since when it holds, as far as is known.")
    until: _Time | None = Field(
        description="When it ends or Registrar tries again; null where nobody can know."
    )
    remedy: str = Field(description="What to do about it.")
    detail: str | None = Field(description="Particulars, for instance Microsoft's own words.")
    devices: int = Field(description="Devices that wait for it.")
