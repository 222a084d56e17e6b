"""Shapes of what the service says of itself, as callers meet them."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from app.api.contract.models import Output
from app.api.contract.times import Timestamp
from app.domain.catalogue import Advice, Category, Severity
from app.domain.identity import IdentityKind
from app.domain.scope import Scope
from app.platforms.base import Channel, Profiles, TagUse


class PlatformOut(Output):
    name: str
    title: str
    max_devices: int = Field(description="The most devices in one upload.")
    identities: list[IdentityKind]
    profiles: Profiles
    channel: Channel
    group_tags: TagUse = Field(
        description="group: a group of devices with this name; device: a value of each device; none: the "
        "order keeps it, and the platform does not get it."
    )
    automated: bool = Field(description="Whether Registrar calls its API.")
    portal: bool = Field(description="Whether orders can be files to upload at its portal by hand.")
    retired: bool
    note: str


class Platforms(Output):
    items: list[PlatformOut]


class CodeOut(Output):
    code: str
    category: Category
    severity: Severity
    advice: Advice = Field(
        description="retry: the same later; person: do the remedy first; never: send something else."
    )
    title: str
    remedy: str


class Codes(Output):
    items: list[CodeOut]


class Me(Output):
    partner_id: UUID
    partner_name: str
    partner_role: str
    scopes: list[Scope]
    key: "OwnKey"


class OwnKey(Output):
    prefix: str = Field(description="Identifies the key in logs and lists. The rest of it is stored nowhere.")
    name: str
    expires_at: Timestamp | None = Field(description="Null: never.")


class Health(Output):
    status: Literal["ok"] = "ok"


class Readiness(Output):
    ready: bool = Field(description="Whether everything below is as it should be.")
    stopping: bool = Field(description="The process is stopping and takes no new calls.")
    database: bool
    schema_: str = Field(alias="schema", description="`current`, or what is wrong with the schema.")
    redis: bool | None = Field(description="Null without `?all`.")
    worker: str | None = Field(description="`alive`, or when the last one was seen. Null without `?all`.")
