"""The webhook registration operations, and the one event about consent that Partner Center announces."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from simulator.notifications import Notification, Registration
from simulator.state import State
from simulator.tokens import Claims
from simulator.wire import INVALID_INPUT, NOT_FOUND, Answer, Call, draw_guid, folded, json_answer, problem

ACCEPTED = "reseller-relationship-accepted-by-customer"
EVENTS = (
    "test-created",
    "subscription-updated",
    "usagerecords-thresholdExceeded",
    "referral-created",
    "referral-updated",
    "invoice-ready",
    "granular-admin-relationship-approved",
    "granular-admin-relationship-terminated",
    "dap-admin-relationship-approved",
    "dap-admin-relationship-terminated",
    ACCEPTED,
    "indirect-reseller-relationship-accepted-by-customer",
)
VALIDATIONS_PER_MINUTE = 2


def list_events(state: State, call: Call, claims: Claims) -> Answer:
    return json_answer(list(EVENTS))


def get_registration(state: State, call: Call, claims: Claims) -> Answer:
    found = state.notifications.registrations.get(claims.partner)
    return problem(404, NOT_FOUND, "No registration.") if found is None else _view(found)


def _view(registration: Registration) -> Answer:
    return json_answer(
        {
            "SubscriberId": registration.subscriber,
            "WebhookUrl": registration.url,
            "WebhookEvents": registration.events,
        }
    )


def register(state: State, call: Call, claims: Claims) -> Answer:
    if claims.partner in state.notifications.registrations:
        return problem(409, 409, "A registration exists already.")
    return _store(state, call, claims)


def replace(state: State, call: Call, claims: Claims) -> Answer:
    if claims.partner not in state.notifications.registrations:
        return problem(404, NOT_FOUND, "No registration.")
    return _store(state, call, claims)


def _store(state: State, call: Call, claims: Claims) -> Answer:
    try:
        body = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        body = None
    given = folded(body) if isinstance(body, dict) else {}
    url, events = given.get("webhookurl"), given.get("webhookevents")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return problem(400, INVALID_INPUT, "Invalid property: WebhookUrl.")
    if not isinstance(events, list) or not events or any(event not in EVENTS for event in events):
        return problem(400, INVALID_INPUT, "Invalid property: WebhookEvents.")
    registration = Registration(
        draw_guid(state.chance.getrandbits),
        url,
        events,
        bool(given.get("signaturetokentomssignatureheader")),
        state.switches.public_url.rstrip("/") or call.base_url,
    )
    state.notifications.registrations[claims.partner] = registration
    return _view(registration)


def validate(state: State, call: Call, claims: Claims) -> Answer:
    """Sends a test-created notification; two a minute."""
    registration = state.notifications.registrations.get(claims.partner)
    if registration is None or "test-created" not in registration.events:
        return problem(400, INVALID_INPUT, "Not registered for test-created.")
    now = state.clock.now()
    recent = [at for at in state.notifications.validations.get(claims.partner, []) if now - at < 60]
    if len(recent) >= VALIDATIONS_PER_MINUTE:
        message = "Rate limit is exceeded. Try again in 60 seconds."
        return json_answer({"statusCode": 429, "message": message}, 429, {"retry-after": "60"})
    state.notifications.validations[claims.partner] = [*recent, now]
    notification = _notify(state, registration, claims.partner, "test-created", None, "TestEvent", None)
    return json_answer({"correlationId": notification.id})


def get_validation(state: State, call: Call, claims: Claims) -> Answer:
    found = state.notifications.sent.get(call.path[4].lower())
    if found is None or found.partner != claims.partner:
        return problem(404, NOT_FOUND, "No such validation event.")
    return json_answer(
        {
            "correlationId": found.id,
            "partnerId": found.partner,
            "status": "completed" if found.status != "pending" else "pending",
            "callbackUrl": found.url,
            "results": [
                {
                    "responseCode": str(attempt.get("status", "")),
                    "responseMessage": "",
                    "systemError": "error" in attempt,
                    "dateTimeUtc": attempt["at"],
                }
                for attempt in found.attempts
            ],
        }
    )


def announce_acceptance(state: State, partner: str, customer: str) -> Notification | None:
    """Notifies the partner that a customer accepted, if it registered for that event."""
    registration = state.notifications.registrations.get(partner)
    if registration is None or ACCEPTED not in registration.events:
        return None
    ticks = int(state.clock.now() * 10_000_000) + 621_355_968_000_000_000
    base = registration.base_url
    audit = (
        f"{base}/auditactivity/v1/auditrecords/"
        f"{partner}_{customer}_resellerrelationshipacceptedbycustomer_{ticks}"
    )
    return _notify(
        state, registration, partner, ACCEPTED, f"{base}/v1/customers/{customer}", "Customer", audit
    )


def _notify(
    state: State,
    registration: Registration,
    partner: str,
    event: str,
    resource: str | None,
    resource_name: str,
    audit: str | None,
) -> Notification:
    changed = datetime.fromtimestamp(state.clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0+00:00")
    notification = Notification(draw_guid(state.chance.getrandbits), partner, event, registration.url)
    payload = {
        "EventName": event,
        "ResourceUri": resource,
        "ResourceName": resource_name,
        "AuditUri": audit,
        "ResourceChangeUtcDate": changed,
    }
    state.notifications.send(notification, payload, registration, state.switches.webhook_retry_ms / 1000)
    return notification
