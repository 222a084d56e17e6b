"""Customers and consent into answers."""

from app.api.contract.fields import same
from app.api.customers.models import ConsentSummary, CustomerOut
from app.domain.customer import Customer


def consent_summary(record: Customer) -> ConsentSummary:
    return ConsentSummary(
        state=record.consent_state,
        since=record.consent_since,
        evidence=record.consent_evidence,
        proved_at=record.consent_proved_at,
        checked_at=record.consent_checked_at,
    )


def customer(record: Customer) -> CustomerOut:
    return CustomerOut(**same(record, CustomerOut, but=("consent",)), consent=consent_summary(record))
