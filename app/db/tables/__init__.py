"""The tables. PostgreSQL 15 or newer; rows belong to a partner, except those of the service itself.

Each file has the tables of one noun. What SQLAlchemy cannot express (row-level security, triggers, roles) is
only in the migrations.
"""

from app.db.tables.base import metadata
from app.db.tables.customers import connections, consent_changes, consents, customers, group_tags
from app.db.tables.devices import device_backfill, devices
from app.db.tables.imports import (
    import_hashes,
    import_options,
    import_orders,
    import_pieces,
    import_rows,
    imports,
    vendor_profiles,
)
from app.db.tables.orders import (
    batch_attempts,
    batches,
    device_hashes,
    orders,
    registration_counts,
    registrations,
)
from app.db.tables.partners import (
    api_key_successors,
    api_keys,
    idempotency_keys,
    partner_networks,
    partner_quotas,
    partner_turns,
    partner_uses,
    partners,
)
from app.db.tables.service import removals, row_sealing, worker_heartbeats
from app.db.tables.webhooks import (
    deleted_webhook_endpoints,
    deliveries,
    delivery_attempts,
    events,
    webhook_endpoints,
    webhook_pauses,
    webhook_secrets,
)

__all__ = [
    "api_key_successors",
    "api_keys",
    "batch_attempts",
    "batches",
    "connections",
    "consent_changes",
    "consents",
    "customers",
    "deleted_webhook_endpoints",
    "deliveries",
    "delivery_attempts",
    "device_backfill",
    "device_hashes",
    "devices",
    "events",
    "group_tags",
    "idempotency_keys",
    "import_hashes",
    "import_options",
    "import_orders",
    "import_pieces",
    "import_rows",
    "imports",
    "metadata",
    "orders",
    "partner_networks",
    "partner_quotas",
    "partner_turns",
    "partner_uses",
    "partners",
    "registration_counts",
    "registrations",
    "removals",
    "row_sealing",
    "vendor_profiles",
    "webhook_endpoints",
    "webhook_pauses",
    "webhook_secrets",
    "worker_heartbeats",
]
