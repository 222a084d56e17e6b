"""Default quotas: the limits of a partner for whom the operator has set none."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings

from app.domain.quota import LARGEST, QUOTAS, SMALLEST, Quota


def _quota(quota: Quota) -> Any:
    terms = QUOTAS[quota]
    words = f"Quota of one partner: {terms.noun}. {terms.counts}"
    return Field(terms.default, ge=SMALLEST, le=LARGEST, description=words)


class QuotaSettings(BaseSettings):
    quota_devices: int = _quota(Quota.DEVICES)
    quota_customers: int = _quota(Quota.CUSTOMERS)
    quota_connections: int = _quota(Quota.CONNECTIONS)
    quota_webhook_endpoints: int = _quota(Quota.WEBHOOK_ENDPOINTS)
    quota_waiting_events: int = _quota(Quota.WAITING_EVENTS)
    quota_vendor_profiles: int = _quota(Quota.VENDOR_PROFILES)
    quota_api_keys: int = _quota(Quota.API_KEYS)
    quota_uploads: int = _quota(Quota.UPLOADS)
    quota_waiting_imports: int = _quota(Quota.WAITING_IMPORTS)
    quota_staged_rows: int = _quota(Quota.STAGED_ROWS)
    quota_staged_bytes: int = _quota(Quota.STAGED_BYTES)
    quota_idempotency_answers: int = _quota(Quota.IDEMPOTENCY_ANSWERS)

    @property
    def quotas(self) -> Mapping[Quota, int]:
        return {quota: getattr(self, f"quota_{quota.value}") for quota in Quota}
