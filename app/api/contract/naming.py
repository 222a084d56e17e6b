"""Names in the OpenAPI document, from which generated clients make theirs.

An operation's id is its function's name in camelCase, such as `createOrder`; `show` becomes `get` (`show_me`
is `getMe`). For names that are clear only within their module, the table decides.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from fastapi.routing import APIRoute

KEYED: set[Callable[..., Any]] = set()
"""The dependencies that ask for an API key."""


OPERATION_IDS: Final = {
    "retry_failed": "retryFailedDevices",
    "list_registrations_of_order": "listOrderRegistrations",
    "download_result": "downloadOrderResult",
    "mark_uploaded": "markBatchUploaded",
    "undo_upload": "undoBatchUpload",
    "record_outcome": "recordBatchOutcome",
    "get_portal_file": "downloadPortalFile",
    "get_consent": "getCustomerConsent",
    "request_consent": "requestCustomerConsent",
    "recheck_consent": "recheckCustomerConsent",
    "record_consent": "recordCustomerConsent",
    "create_profile": "createVendorProfile",
    "list_profiles": "listVendorProfiles",
    "get_profile": "getVendorProfile",
    "update_profile": "updateVendorProfile",
    "delete_profile": "deleteVendorProfile",
    "create_endpoint": "createWebhookEndpoint",
    "list_endpoints": "listWebhookEndpoints",
    "get_endpoint": "getWebhookEndpoint",
    "update_endpoint": "updateWebhookEndpoint",
    "delete_endpoint": "deleteWebhookEndpoint",
    "test_endpoint": "testWebhookEndpoint",
    "rotate_secret": "rotateWebhookSecret",
    "list_deliveries_of_endpoint": "listWebhookEndpointDeliveries",
    "list_deliveries": "listWebhookDeliveries",
    "get_delivery": "getWebhookDelivery",
    "redeliver": "redeliverWebhook",
    "rotate_key": "rotateOwnKey",
    "revoke_key": "revokeOwnKey",
}
"""By the function's name."""


def operation_id(route: APIRoute) -> str:
    return OPERATION_IDS.get(route.name) or camel_case(re.sub("^show_", "get_", route.name))


def camel_case(name: str) -> str:
    """`create_order` and `order.accepted` in camelCase."""
    first, *others = name.replace(".", "_").split("_")
    return first + "".join(part.capitalize() for part in others)
