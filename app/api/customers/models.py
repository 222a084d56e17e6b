"""The shapes of customers and their consent, as callers meet them."""

from uuid import UUID

from pydantic import Field

from app.api.contract.models import GroupTagText, Input, Output, PageOf, Patch, Text255
from app.api.contract.times import Timestamp
from app.domain.consent import ConsentState, Evidence


class CustomerIn(Input):
    connection_id: UUID = Field(strict=False)
    entra_tenant_id: UUID = Field(strict=False, description="The customer's Entra tenant.")
    name: Text255
    domain: Text255 | None = None
    default_group_tag: GroupTagText | None = None


class CustomerPatch(Patch):
    MAY_BE_EMPTY = frozenset({"domain", "default_group_tag"})

    name: Text255 | None = None
    domain: Text255 | None = None
    default_group_tag: GroupTagText | None = None


class ConsentSummary(Output):
    state: ConsentState
    since: Timestamp
    evidence: Evidence = Field(description="The evidence for the state.")
    proved_at: Timestamp | None = Field(description="When the customer was last seen in the customers list.")
    checked_at: Timestamp | None = Field(description="When the customers list was last read.")


class ConsentChange(Output):
    from_state: ConsentState | None
    to_state: ConsentState
    evidence: Evidence
    at: Timestamp
    note: str | None = Field(description="The note that was recorded with it.")
    made_by: UUID | None = Field(description="The API key that recorded it.")


class ConsentOut(ConsentSummary):
    customer_id: UUID
    lets_pass: bool = Field(description="Whether devices are sent in this state.")
    history: list[ConsentChange] = Field(description="Newest first, at most 100.")


class ConsentLink(Output):
    url: str = Field(description="For a global administrator of the customer to open and accept.")


class CustomerOut(Output):
    id: UUID
    connection_id: UUID
    entra_tenant_id: UUID
    name: str
    domain: str | None
    default_group_tag: str | None
    consent: ConsentSummary
    created_at: Timestamp
    updated_at: Timestamp


class Customers(PageOf):
    items: list[CustomerOut]
