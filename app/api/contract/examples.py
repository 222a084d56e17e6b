"""Made-up examples of every JSON body that the API takes, by the name of its model."""

from typing import Any, Final

_CONNECTION: Final = "019b2f60-5a00-7000-8000-000000000001"
_CUSTOMER: Final = "019b2f60-5a00-7000-8000-000000000002"
_TENANT: Final = "5f3a1c52-9d0e-4c6b-8a57-2f1f3f0a7c11"

BODIES: Final[dict[str, dict[str, Any]]] = {
    "OrderIn": {
        "customer_id": _CUSTOMER,
        "reference": "PO-4711",
        "devices": [
            {
                "line_ref": "1",
                "serial_number": "SYN0001",
                "manufacturer": "Contoso",
                "model": "Contoso Book 14",
            },
            {"line_ref": "2", "product_key": "9999000000017", "group_tag": "Kiosk"},
        ],
    },
    "CommitIn": {"on_invalid": "accept_valid"},
    "ConnectionIn": {
        "name": "Partner Center EU",
        "entra_tenant_id": _TENANT,
        "client_id": "1b730954-1685-4b74-9bfd-dac224a7b894",
        "client_secret": "the-secret-of-the-app",
        "refresh_token": "the-refresh-token-of-the-consent",
        "default_group_tag": "Standard",
    },
    "ConnectionPatch": {"client_secret": "the-new-secret-of-the-app"},
    "CustomerIn": {
        "connection_id": _CONNECTION,
        "entra_tenant_id": _TENANT,
        "name": "Contoso Ltd",
        "domain": "contoso.example",
    },
    "CustomerPatch": {"default_group_tag": "Office"},
    "ConsentRecordIn": {"state": "granted", "note": "Seen in the portal on 28 November 2026."},
    "EndpointIn": {"url": "https://hooks.example.com/registrar", "description": "ERP"},
    "EndpointPatch": {"event_types": ["order.completed", "order.failed"]},
    "KeyRotationIn": {"overlap_seconds": 86400},
    "RotationIn": {"overlap_seconds": 86400},
    "UndoUploadIn": {"refused": "The header of the file is not valid."},
    "RetryChoice": {"rows": [3, 7]},
    "OutcomeIn": {
        "rows": [
            {"line_ref": "1", "outcome": "registered"},
            {"serial_number": "SYN0002", "outcome": "failed", "code": "808"},
        ]
    },
    "ProfileIn": {
        "name": "Supplier",
        "definition": {
            "columns": {"Serial No.": "serial_number"},
            "constants": {"manufacturer": "Contoso"},
        },
    },
    "ProfilePatch": {"name": "Supplier (old)"},
}
