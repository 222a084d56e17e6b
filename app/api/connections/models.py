"""The shapes of connections, as callers meet them."""

from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from app.api.contract.models import GroupTagText, Input, Output, PageOf, Patch, Text100, Text255
from app.api.contract.times import Timestamp

Secret = Annotated[str, StringConstraints(min_length=1, max_length=8192, pattern=r"^[\x21-\x7e]+$")]


class ConnectionIn(Input):
    name: Text100
    platform: Text100 = "partner_center"
    entra_tenant_id: UUID = Field(strict=False, description="The partner's own Entra tenant.")
    client_id: Text255 | None = Field(
        None,
        description="The app registered in Partner Center. A portal connection (an indirect reseller's, or "
        "one of a platform without an API) has no credentials: with any of the three it is refused.",
    )
    client_secret: Secret | None = Field(None, description="Write-only. Refused for a portal connection.")
    refresh_token: Secret | None = Field(
        None,
        description="Write-only. App+User consent with MFA; without it no new group tag can be created. "
        "Refused for a portal connection.",
    )
    region: Text100 | None = Field(None, description="Sales region, for your own use.")
    default_group_tag: GroupTagText = Field(
        description="For devices without a group tag. Otherwise Partner Center would invent one."
    )


class ConnectionPatch(Patch):
    MAY_BE_EMPTY = frozenset({"region", "client_secret", "refresh_token"})

    name: Text100 | None = None
    entra_tenant_id: UUID | None = Field(
        None,
        strict=False,
        description="The partner's own Entra tenant. Where it changes, send `client_secret` and, if the "
        "connection has one, `refresh_token` in the same call. Customers' consents are then unknown, and "
        "their orders held until the new tenant's customers list has been read, which happens at once.",
    )
    client_id: Text255 | None = Field(
        None,
        description="The app registered in Partner Center. Where it changes, send `client_secret` and, if "
        "the connection has one, `refresh_token` in the same call. Refused for a portal connection.",
    )
    client_secret: Secret | None = Field(
        None,
        description="Null removes the stored one: the connection is in trouble until it has another. "
        "Refused for a portal connection.",
    )
    refresh_token: Secret | None = Field(
        None, description="Null removes the stored one. Refused for a portal connection."
    )
    region: Text100 | None = None
    default_group_tag: GroupTagText | None = None


class Trouble(Output):
    code: str
    said: str | None = Field(description="Microsoft's own words.")
    since: Timestamp
    remedy: str


class ConnectionOut(Output):
    id: UUID
    name: str
    platform: str
    portal: bool = Field(
        description="Its orders are uploaded and its consents recorded by hand: the platform is not used by "
        "API, or not for the partner's role."
    )
    entra_tenant_id: UUID
    client_id: str | None
    has_client_secret: bool
    has_refresh_token: bool
    refresh_token_at: Timestamp | None = Field(description="It is valid for 90 days from then.")
    region: str | None
    default_group_tag: str
    trouble: Trouble | None = Field(description="What must be fixed; null when all is well.")
    customers_read_at: Timestamp | None
    checked_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp


class Connections(PageOf):
    items: list[ConnectionOut]


class CheckOut(Output):
    ok: bool
    proved: list[str] = Field(description="The calls that Microsoft answered as expected.")
    code: str | None = Field(description="What is wrong, as a code of `GET /v1/error-codes`.")
    said: str | None = Field(description="Microsoft's own words.")
    remedy: str | None
