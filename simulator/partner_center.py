"""Routes calls to Partner Center: finds the operation, checks access, and replays request ids.

The order of the checks is the service's as far as its documents say: token, throttling, app-only, customer,
replay, then the operation itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from simulator import batches, relationships, webhooks
from simulator.state import State
from simulator.tokens import GRAPH_AUDIENCES, PARTNER_CENTER, PARTNER_CENTER_APP, Claims
from simulator.wire import NOT_FOUND, Answer, Call, is_guid, json_answer, problem

Operate = Callable[[State, Call, Claims], Answer]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `*` in `path` is any segment; the first one is the customer."""

    name: str
    method: str
    path: tuple[str, ...]
    operate: Operate
    app_only: bool = True
    of_customer: bool = False
    deduplicated: bool = False


_CID = ("v1", "customers", "*")
OPERATIONS = (
    Operation("customers", "GET", ("v1", "customers"), relationships.list_customers),
    Operation(
        "relationship_request",
        "GET",
        ("v1", "customers", "relationshiprequests"),
        relationships.request_relationship,
        app_only=False,
    ),
    Operation("customer", "GET", _CID, relationships.get_customer, of_customer=True),
    Operation(
        "create",
        "POST",
        (*_CID, "devicebatches"),
        batches.create,
        of_customer=True,
        deduplicated=True,
    ),
    Operation("list_batches", "GET", (*_CID, "devicebatches"), batches.list_batches, of_customer=True),
    Operation(
        "append",
        "POST",
        (*_CID, "devicebatches", "*", "devices"),
        batches.append,
        of_customer=True,
        deduplicated=True,
    ),
    Operation(
        "list_devices",
        "GET",
        (*_CID, "devicebatches", "*", "devices"),
        batches.list_devices,
        of_customer=True,
    ),
    Operation(
        "delete_device",
        "DELETE",
        (*_CID, "devicebatches", "*", "devices", "*"),
        batches.delete_device,
        of_customer=True,
    ),
    Operation("status", "GET", (*_CID, "batchjobstatus", "*"), batches.status, of_customer=True),
    Operation("webhook", "GET", ("webhooks", "v1", "registration", "events"), webhooks.list_events),
    Operation("webhook", "GET", ("webhooks", "v1", "registration"), webhooks.get_registration),
    Operation("webhook", "POST", ("webhooks", "v1", "registration"), webhooks.register),
    Operation("webhook", "PUT", ("webhooks", "v1", "registration"), webhooks.replace),
    Operation("webhook", "POST", ("webhooks", "v1", "registration", "validationevents"), webhooks.validate),
    Operation(
        "webhook", "GET", ("webhooks", "v1", "registration", "validationevents", "*"), webhooks.get_validation
    ),
)


def _fits(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    return len(pattern) == len(path) and all(
        want in ("*", given) for want, given in zip(pattern, path, strict=True)
    )


def route(call: Call) -> Operation | None:
    """The operation; None if the path, or the method on it, is not served."""
    path = tuple(part.lower() for part in call.path)
    for operation in OPERATIONS:
        if operation.method == call.method and _fits(operation.path, path):
            call.operation = operation.name
            if operation.of_customer:
                call.customer = path[2]
            return operation
    return None


def process(state: State, call: Call, operation: Operation | None) -> Answer:
    """The answer of the service to one call."""
    claims = _authenticate(state, call)
    if isinstance(claims, Answer):
        return claims
    now = state.settle()
    limited = _throttle(state, call, claims, now)
    if limited is not None:
        return limited
    if operation is None:
        path = tuple(part.lower() for part in call.path)
        known = any(_fits(other.path, path) for other in OPERATIONS)
        known = known or _fits((*_CID, "devicebatches", "*"), path)
        return (
            problem(405, 405, "Method not allowed.")
            if known
            else problem(404, NOT_FOUND, "Resource not found.")
        )
    if not claims.delegated and not _app_only_allowed(state, operation):
        return problem(403, 900329, "This resource does not support app-only authentication.")
    if operation.of_customer:
        refused = _refuse_customer(state, call, claims)
        if refused is not None:
            return refused
    answer = _operate(state, call, claims, operation, now)
    if claims.delegated and call.headers.get("validatemfa", "").lower() == "true":
        answer.headers["isMfaCompliant"] = str(claims.mfa).lower()
    return answer


def _app_only_allowed(state: State, operation: Operation) -> bool:
    return state.switches.app_only_create if operation.name == "create" else operation.app_only


def _operate(state: State, call: Call, claims: Claims, operation: Operation, now: float) -> Answer:
    given = call.headers.get("ms-requestid", "").lower()
    if not (operation.deduplicated and state.switches.request_id_dedup and given):
        return operation.operate(state, call, claims)
    key = (claims.partner, call.method, given, *(part.lower() for part in call.path))
    first = state.remembered(key, now)
    if first is not None:
        call.replayed = True
        return Answer(first.status, first.body, dict(first.headers))
    answer = operation.operate(state, call, claims)
    if answer.status < 300:
        state.remember(key, Answer(answer.status, answer.body, dict(answer.headers)), now)
    return answer


def unauthorized(partner: str = "", code: int = 400, description: str = "Access denied.") -> Answer:
    return problem(401, code, description, {"www-authenticate": f"OAuth realm=urn:cpsvc:cpid:{partner}"})


def _authenticate(state: State, call: Call) -> Claims | Answer:
    scheme, _, token = call.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return unauthorized(code=800001, description="Partner token is missing from the request context.")
    claims = state.tokens.claims(token.strip())
    if claims is None or claims.expires <= state.clock.now():
        return unauthorized(claims.partner if claims else "")
    if claims.audience.lower() in GRAPH_AUDIENCES:
        return unauthorized(
            claims.partner, 900420, "The token audience graph.windows.net is no longer accepted."
        )
    if claims.audience.lower() not in (PARTNER_CENTER, PARTNER_CENTER_APP):
        return unauthorized(claims.partner)
    if claims.delegated and not claims.mfa:
        match state.switches.mfa_failure_style:
            case "challenge":
                return Answer(401, b"", {"www-authenticate": 'Bearer error="invalid_token"'})
            case "code":
                return problem(401, 900421, "The access token does not carry the MFA claim.")
            case "off":
                pass
    partner = state.directory.partners.get(claims.partner)
    if not claims.delegated and partner is not None and not partner.app_only:
        return problem(403, 2032, "Access denied: the application is not registered in Partner Center.")
    return claims


def throttled(retry_after: float) -> Answer:
    """A 429, whose body differs from the other failures' error object."""
    seconds = max(1, ceil(retry_after))
    message = f"Rate limit is exceeded. Try again in {seconds} seconds."
    return json_answer({"statusCode": 429, "message": message}, 429, {"retry-after": str(seconds)})


def _throttle(state: State, call: Call, claims: Claims, now: float) -> Answer | None:
    key = claims.partner
    if state.switches.throttle_scope == "customer":
        key += "/" + (call.customer or "")
    wait = state.throttle(key, now)
    return None if wait is None else throttled(wait)


def _refuse_customer(state: State, call: Call, claims: Claims) -> Answer | None:
    customer = call.customer or ""
    if not is_guid(customer):
        return problem(400, 900118, "Invalid customer id.")
    if call.operation == "customer":
        allowed = state.directory.customers.get(customer)
        if allowed is not None and allowed.relationships.get(claims.partner, "none") != "none":
            return None
    elif state.directory.may_register(claims.partner, customer):
        return None
    if state.switches.unknown_customer_style == "not_found":
        return problem(404, NOT_FOUND, "Customer not found.")
    return problem(403, 20002, "The partner has no commerce relationship with the customer.")
