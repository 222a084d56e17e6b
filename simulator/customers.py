"""Partners, customers, and the relationships between them. Consent is the relationship `reseller`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Partner:
    """One partner tenant with its app registration and what that app was granted."""

    tenant_id: str
    name: str
    client_id: str
    client_secret: str
    app_only: bool = True
    delegated: bool = True
    mfa: bool = True
    secret_expired: bool = False


@dataclass(slots=True)
class Customer:
    """One customer tenant; `relationships` maps a partner's tenant to reseller, advisor or none."""

    tenant_id: str
    name: str
    domain: str
    relationships: dict[str, str] = field(default_factory=dict)

    def view(self) -> dict[str, Any]:
        return {
            "tenant_id": self.tenant_id,
            "name": self.name,
            "domain": self.domain,
            "relationships": self.relationships,
        }


class Directory:
    """All partners and customers. Tenant ids are compared in lower case."""

    def __init__(self) -> None:
        self.partners: dict[str, Partner] = {}
        self.customers: dict[str, Customer] = {}

    def reseller_customers(self, partner: str) -> list[Customer]:
        """In order of creation."""
        return [c for c in self.customers.values() if c.relationships.get(partner, "none") != "none"]

    def may_register(self, partner: str, customer: str) -> bool:
        found = self.customers.get(customer)
        return found is not None and found.relationships.get(partner) == "reseller"

    def only_partner(self) -> str | None:
        """The partner's tenant when there is exactly one."""
        return next(iter(self.partners)) if len(self.partners) == 1 else None
