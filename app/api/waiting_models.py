"""Reasons for waiting, as every answer and every event shows them."""

from pydantic import BaseModel, ConfigDict, Field

from app.api.contract.times import Timestamp
from app.domain.catalogue import Advice


class WaitingOut(BaseModel):
    """One reason why devices wait. Several can hold at once."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(description="A code of `GET /v1/error-codes`.")
    title: str = Field(description="The code in words.")
    advice: Advice = Field(
        description="`person`: somebody has to do what `remedy` says; `retry`, `none`: it ends by itself."
    )
    since: Timestamp | None = Field(description="Since when it holds, as far as is known.")
    until: Timestamp | None = Field(
        description="When it ends or Registrar tries again; null where nobody can know."
    )
    remedy: str = Field(description="What to do about it.")
    detail: str | None = Field(description="Particulars, for instance Microsoft's own words.")
    devices: int = Field(description="Devices that wait for it.")
