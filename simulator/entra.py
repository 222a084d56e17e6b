"""The Entra side: token endpoint (v2 and v1) and OpenID configuration, with errors as Entra writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from simulator.customers import Partner
from simulator.state import State
from simulator.tokens import Claims
from simulator.wire import Answer, Call, draw_guid, is_guid, json_answer

LOGIN = "https://login.microsoftonline.com"
"""The host in every metadata answer, whatever the real address: MSAL accepts only https."""

ERRORS: dict[int, tuple[int, str, str]] = {
    50034: (400, "invalid_grant", "The user account does not exist in the directory."),
    50057: (400, "invalid_grant", "The user account is disabled."),
    50059: (400, "invalid_request", "No tenant-identifying information found in the request."),
    50076: (
        400,
        "invalid_grant",
        "Due to a configuration change made by your administrator, or because you moved to a new location, "
        "you must use multi-factor authentication to access the resource.",
    ),
    50079: (
        400,
        "invalid_grant",
        "Due to a configuration change made by your administrator, the user must enroll in multi-factor "
        "authentication to access the resource.",
    ),
    50173: (
        400,
        "invalid_grant",
        "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user "
        "might have changed or reset their password.",
    ),
    53003: (400, "invalid_grant", "Access has been blocked by Conditional Access policies."),
    65001: (
        400,
        "invalid_grant",
        "The user or administrator has not consented to use the application. Send an interactive "
        "authorization request for this user and resource.",
    ),
    70043: (
        400,
        "invalid_grant",
        "The refresh token has expired or is invalid due to sign-in frequency checks by Conditional Access.",
    ),
    70003: (400, "unsupported_grant_type", "The app requested an unsupported grant type."),
    90002: (400, "invalid_request", "Tenant not found. Check to make sure you have the correct tenant ID."),
    90033: (503, "temporarily_unavailable", "A transient error has occurred. Please try again."),
    700016: (400, "unauthorized_client", "Application was not found in the directory."),
    700082: (
        400,
        "invalid_grant",
        "The refresh token has expired due to inactivity. The token was issued more than 90 days ago.",
    ),
    900144: (400, "invalid_request", "The request body is missing a required parameter."),
    1002012: (400, "invalid_scope", "The provided value for scope is not valid. It must end in /.default."),
    7000215: (
        401,
        "invalid_client",
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret "
        "value, not the client secret ID.",
    ),
    7000216: (401, "invalid_client", "'client_assertion', 'client_secret' or 'request' is required."),
    7000222: (401, "invalid_client", "The provided client secret keys are expired."),
    9002313: (400, "invalid_grant", "Invalid request. Request is malformed or invalid."),
}
SUBERRORS = {
    50076: "basic_action",
    50079: "basic_action",
    70043: "token_expired",
    65001: "consent_required",
    53003: "message_only",
}


class Refused(Exception):
    """The token request is refused with this AADSTS code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def refusal(
    state: State,
    code: int,
    *,
    error_instead: str | None = None,
    suberror: str | None = None,
    numbers: str = "both",
) -> Answer:
    """Entra's error body for one AADSTS code; an unlisted code becomes invalid_grant."""
    status, error, text = ERRORS.get(code, (400, "invalid_grant", "The request was refused."))
    when = datetime.fromtimestamp(state.clock.now(), UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    trace, correlation = draw_guid(state.chance.getrandbits), draw_guid(state.chance.getrandbits)
    body: dict[str, Any] = {
        "error": error,
        "error_description": (
            f"AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {when}"
        ),
        "error_codes": [code],
        "timestamp": when,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"{LOGIN}/error?code={code}",
    }
    if suberror is not None or code in SUBERRORS:
        body["suberror"] = suberror or SUBERRORS[code]
    if error_instead is not None:
        body["error"] = error_instead
    if numbers != "both":
        del body["error_codes"]
    if numbers == "none":
        body["error_description"] = text
    return json_answer(body, status, {"cache-control": "no-store, no-cache"})


def route(call: Call) -> bool:
    """True when the path belongs to Entra; names the operation."""
    path = tuple(part.lower() for part in call.path)
    if len(path) >= 3 and path[1:] in (("oauth2", "v2.0", "token"), ("oauth2", "token")):
        call.operation = "token"
    elif path[-2:] == (".well-known", "openid-configuration") or path[-2:] == ("discovery", "instance"):
        call.operation = "openid"
    else:
        return False
    return True


def process(state: State, call: Call) -> Answer:
    if call.operation == "openid":
        if call.path[-1].lower() == "instance":
            return _instance()
        return _configuration(call)
    if call.method != "POST":
        return refusal(state, 900144)
    try:
        return _token(state, call)
    except Refused as refused:
        return refusal(state, refused.code)


def _configuration(call: Call) -> Answer:
    tenant = call.path[0]
    v2 = "v2.0" in (part.lower() for part in call.path)
    base = f"{LOGIN}/{tenant}/oauth2/v2.0" if v2 else f"{LOGIN}/{tenant}/oauth2"
    return json_answer(
        {
            "issuer": f"{LOGIN}/{tenant}/v2.0" if v2 else f"https://sts.windows.net/{tenant}/",
            "authorization_endpoint": f"{base}/authorize",
            "token_endpoint": f"{base}/token",
            "device_authorization_endpoint": f"{base}/devicecode",
            "jwks_uri": f"{LOGIN}/{tenant}/discovery/v2.0/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "tenant_region_scope": None,
            "cloud_instance_name": "microsoftonline.com",
        }
    )


def _instance() -> Answer:
    alias = LOGIN.removeprefix("https://")
    return json_answer(
        {
            "tenant_discovery_endpoint": f"{LOGIN}/common/v2.0/.well-known/openid-configuration",
            "api-version": "1.1",
            "metadata": [
                {"preferred_network": alias, "preferred_cache": "login.windows.net", "aliases": [alias]}
            ],
        }
    )


def _token(state: State, call: Call) -> Answer:
    form = dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))
    grant = form.get("grant_type")
    if not grant:
        raise Refused(900144)
    tenant = call.path[0].lower()
    v1 = len(call.path) == 3
    if grant == "client_credentials":
        if not is_guid(tenant):
            raise Refused(50059)
        partner = _known_app(state, tenant, form)
        return _grant_app_only(state, partner, _audience(form, v1, app_only=True))
    if grant == "refresh_token":
        return _redeem(state, tenant, form, v1)
    raise Refused(70003)


def _known_app(state: State, tenant: str, form: dict[str, str]) -> Partner:
    partner = state.directory.partners.get(tenant)
    if partner is None:
        raise Refused(90002)
    if form.get("client_id", "").lower() != partner.client_id.lower():
        raise Refused(700016)
    if not form.get("client_secret"):
        raise Refused(7000216)
    if form["client_secret"] != partner.client_secret:
        raise Refused(7000215)
    if partner.secret_expired:
        raise Refused(7000222)
    return partner


def _audience(form: dict[str, str], v1: bool, app_only: bool) -> str:
    if v1:
        if not form.get("resource"):
            raise Refused(900144)
        return form["resource"].rstrip("/")
    scope = next((s for s in form.get("scope", "").split() if "://" in s or is_guid(s.split("/")[0])), "")
    if not scope:
        raise Refused(900144)
    if app_only and not scope.endswith("/.default"):
        raise Refused(1002012)
    return scope.rsplit("/", 1)[0].rstrip("/")


def _grant_app_only(state: State, partner: Partner, audience: str) -> Answer:
    now = state.clock.now()
    lifetime = state.switches.access_token_lifetime_s
    claims = Claims(partner.tenant_id, partner.client_id, audience, False, False, now, now + lifetime)
    return _granted(state, claims, None, lifetime)


def _redeem(state: State, tenant: str, form: dict[str, str], v1: bool) -> Answer:
    token = form.get("refresh_token")
    if not token:
        raise Refused(900144)
    refresh = state.tokens.refresh(token)
    if tenant in ("common", "organizations") and refresh is not None:
        tenant = refresh.partner
    partner = _known_app(state, tenant, form)
    if refresh is None or refresh.partner != partner.tenant_id:
        raise Refused(9002313)
    now = state.clock.now()
    if refresh.revoked:
        raise Refused(50173)
    if now >= refresh.expires:
        raise Refused(700082)
    if not partner.delegated:
        raise Refused(65001)
    audience = _audience(form, v1, app_only=False)
    refresh.redeemed += 1
    refresh.revoked = not state.switches.refresh_token_reusable
    successor = state.tokens.issue_refresh(
        partner.tenant_id, partner.client_id, now + state.switches.refresh_token_lifetime_s
    )
    lifetime = state.switches.access_token_lifetime_s
    claims = Claims(partner.tenant_id, partner.client_id, audience, True, partner.mfa, now, now + lifetime)
    return _granted(state, claims, successor, lifetime)


def _granted(state: State, claims: Claims, refresh: str | None, lifetime: int) -> Answer:
    body: dict[str, Any] = {
        "token_type": "Bearer",
        "expires_in": lifetime,
        "ext_expires_in": lifetime,
        "access_token": state.tokens.issue_access(claims),
    }
    if refresh is not None:
        body |= {"scope": f"{claims.audience}/user_impersonation", "refresh_token": refresh}
    return json_answer(body, 200, {"cache-control": "no-store, no-cache"})
