"""A partner's list of customers, and the link by which a customer gives its consent."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import orjson

from simulator.batches import continuation, continue_from
from simulator.customers import Customer
from simulator.state import State
from simulator.tokens import Claims
from simulator.wire import NOT_FOUND, Answer, Call, folded, json_answer, problem

LARGEST_PAGE = 500


def list_customers(state: State, call: Call, claims: Claims) -> Answer:
    """Pages of `size`; the next one needs seekOperation=Next and MS-ContinuationToken."""
    size = call.query.get("size", "")
    if size and not size.isdigit():
        return problem(400, 3000, "Invalid property: size.")
    count = min(int(size or 0) or LARGEST_PAGE, LARGEST_PAGE)
    token = call.headers.get("ms-continuationtoken", "")
    start = continue_from(token)
    if start is None or (token and call.query.get("seekoperation", "").lower() != "next"):
        return problem(400, 3000, "Invalid continuation token or seek operation.")
    found = state.directory.reseller_customers(claims.partner)
    if "filter" in call.query:
        prefix = _prefix(call.query["filter"])
        if prefix is None:
            return problem(400, 900126, "The filter could not be parsed.")
        found = [c for c in found if getattr(c, prefix[0]).lower().startswith(prefix[1].lower())]
    page = found[start : start + count]
    links: dict[str, Any] = {"self": _link(f"/v1/customers?{urlencode({'size': count})}")}
    body: dict[str, Any] = {"totalCount": len(found), "items": [_item(c, claims.partner) for c in page]}
    if start + count < len(found):
        following = continuation(start + count)
        links["next"] = _link(f"/v1/customers?size={count}&seekOperation=Next") | {
            "headers": [{"key": "MS-ContinuationToken", "value": following}]
        }
        body["continuationToken"] = following
    return json_answer(body | {"links": links, "attributes": {"objectType": "Collection"}})


def _prefix(text: str) -> tuple[str, str] | None:
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(given, dict):
        return None
    given = folded(given)
    attribute = {"companyname": "name", "domain": "domain"}.get(str(given.get("field")).lower())
    if attribute is None or given.get("operator") != "starts_with" or not isinstance(given.get("value"), str):
        return None
    return attribute, given["value"]


def _link(uri: str) -> dict[str, Any]:
    return {"uri": uri, "method": "GET", "headers": []}


def _item(customer: Customer, partner: str) -> dict[str, Any]:
    path = f"/v1/customers/{customer.tenant_id}"
    return {
        "id": customer.tenant_id,
        "companyProfile": {
            "tenantId": customer.tenant_id,
            "domain": customer.domain,
            "companyName": customer.name,
            "links": {"self": _link(f"{path}/profiles/company")},
            "attributes": {"objectType": "CustomerCompanyProfile"},
        },
        "relationshipToPartner": customer.relationships.get(partner, "none"),
        "links": {"self": _link(path)},
        "attributes": {"objectType": "Customer"},
    }


def get_customer(state: State, call: Call, claims: Claims) -> Answer:
    customer = state.directory.customers.get(call.customer or "")
    if customer is None:
        return problem(404, NOT_FOUND, "Customer not found.")
    extra = {"commerceId": customer.tenant_id, "allowDelegatedAccess": False}
    return json_answer(_item(customer, claims.partner) | extra)


def request_relationship(state: State, call: Call, claims: Claims) -> Answer:
    """The link to send to a customer. It has no callback: callers find out about acceptance by asking."""
    url = (
        "https://admin.microsoft.com/Adminportal/Home?invType=ResellerRelationship"
        f"&partnerId={claims.partner}&msppId=0&DAP=false#/BillingAccounts/partner-invitation"
    )
    return json_answer({"url": url, "attributes": {"objectType": "RelationshipRequest"}})
