"""The Entra side of the simulator: grants, rotation, expiry, and the errors as Entra writes them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msal
import pytest

from tests.unit.simulator_scene import PARTNER_CENTER, Scene, fresh_scene


@pytest.fixture
async def scene() -> Scene:
    return await fresh_scene()


def assert_refused(response: httpx.Response, status: int, error: str, code: int) -> None:
    body = response.json()
    assert (response.status_code, body["error"], body["error_codes"]) == (status, error, [code])
    assert body["error_description"].startswith(f"AADSTS{code}: ")


async def test_a_redeemed_refresh_token_gives_a_new_one_and_the_old_one_stays_valid(scene: Scene) -> None:
    first, second = await scene.redeem(), await scene.redeem()
    tokens = {scene.partner["refresh_token"], first.json()["refresh_token"], second.json()["refresh_token"]}
    assert len(tokens) == 3
    assert first.json()["expires_in"] == 3599


async def test_a_redeemed_refresh_token_is_revoked_at_once_when_switched_so(scene: Scene) -> None:
    await scene.switch(refresh_token_reusable=False)
    successor = (await scene.redeem()).json()["refresh_token"]
    assert_refused(await scene.redeem(), 400, "invalid_grant", 50173)
    assert (await scene.redeem(refresh_token=successor)).status_code == 200


async def test_a_refresh_token_ends_after_ninety_days(scene: Scene) -> None:
    await scene.control("POST", "clock", {"advance_s": 90 * 86_400 + 1})
    assert_refused(await scene.redeem(), 400, "invalid_grant", 700082)


async def test_each_wrong_credential_has_its_own_error(scene: Scene) -> None:
    assert_refused(await scene.redeem(client_secret="wrong"), 401, "invalid_client", 7000215)
    assert_refused(await scene.redeem(client_id=scene.customer), 400, "unauthorized_client", 700016)
    assert_refused(await scene.redeem(refresh_token="garbage"), 400, "invalid_grant", 9002313)
    assert_refused(await scene.redeem(grant_type="password"), 400, "unsupported_grant_type", 70003)
    await scene.control("POST", f"partners/{scene.partner['tenant_id']}:revoke")
    assert_refused(await scene.redeem(), 400, "invalid_grant", 50173)


async def test_an_app_without_delegated_consent_cannot_redeem(scene: Scene) -> None:
    changed = {k: scene.partner[k] for k in ("tenant_id", "client_id", "client_secret", "refresh_token")}
    await scene.control("POST", "partners", changed | {"grants": {"delegated": False}})
    assert_refused(await scene.redeem(), 400, "invalid_grant", 65001)


async def test_the_v1_endpoint_takes_a_resource(scene: Scene) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_id": scene.partner["client_id"],
        "client_secret": scene.partner["client_secret"],
        "resource": PARTNER_CENTER,
    }
    response = await scene.client.post(f"/{scene.partner['tenant_id']}/oauth2/token", data=form)
    scene.token = response.json()["access_token"]
    assert (await scene.get("/v1/customers")).status_code == 200


async def test_partner_center_refuses_missing_unknown_expired_and_foreign_tokens(scene: Scene) -> None:
    async def codes(**claims: Any) -> tuple[int, str]:
        scene.token = (await scene.control("POST", "tokens", claims))["access_token"]
        response = await scene.get("/v1/customers")
        return response.status_code, response.json().get("code", "")

    assert (await scene.client.get("/v1/customers")).json()["code"] == "800001"
    assert await codes(audience="https://graph.windows.net") == (401, "900420")
    assert await codes(audience="https://graph.microsoft.com") == (401, "400")
    assert await codes(lifetime_s=-1) == (401, "400")
    assert (await codes())[0] == 200
    scene.token = "made.up.token"
    refused = await scene.get("/v1/customers")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("OAuth realm=urn:cpsvc:cpid:")


async def test_an_access_token_ends_after_its_lifetime(scene: Scene) -> None:
    assert (await scene.get("/v1/customers")).status_code == 200
    await scene.control("POST", "clock", {"advance_s": 3600})
    assert (await scene.get("/v1/customers")).status_code == 401


async def test_a_delegated_token_without_mfa_is_refused_in_either_manner(scene: Scene) -> None:
    scene.token = (await scene.control("POST", "tokens", {"mfa": False}))["access_token"]
    challenged = await scene.get("/v1/customers")
    assert challenged.status_code == 401
    assert challenged.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    await scene.switch(mfa_failure_style="code")
    assert (await scene.get("/v1/customers")).json()["code"] == "900421"
    await scene.switch(mfa_failure_style="off")
    accepted = await scene.get("/v1/customers", ValidateMfa="true")
    assert (accepted.status_code, accepted.headers["ismfacompliant"]) == (200, "false")


class _Rewritten:
    """MSAL's http client on the simulator: the login host is replaced, nothing else."""

    def __init__(self, scene: Scene, loop: asyncio.AbstractEventLoop) -> None:
        self._scene, self._loop = scene, loop

    def _send(self, method: str, url: str, **given: Any) -> httpx.Response:
        path = url.removeprefix("https://login.microsoftonline.com")
        assert path != url
        call = self._scene.client.request(
            method, path, params=given.get("params"), data=given.get("data"), headers=given.get("headers")
        )
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(10)

    def get(self, url: str, **given: Any) -> httpx.Response:
        return self._send("GET", url, **given)

    def post(self, url: str, **given: Any) -> httpx.Response:
        return self._send("POST", url, **given)

    def close(self) -> None:
        """Nothing to close."""


async def test_msal_signs_in_with_both_grants(scene: Scene) -> None:
    loop = asyncio.get_running_loop()

    def sign_in() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        app = msal.ConfidentialClientApplication(
            scene.partner["client_id"],
            client_credential=scene.partner["client_secret"],
            authority=f"https://login.microsoftonline.com/{scene.partner['tenant_id']}",
            http_client=_Rewritten(scene, loop),
        )
        scope = f"{PARTNER_CENTER}/user_impersonation"
        return (
            app.acquire_token_by_refresh_token(scene.partner["refresh_token"], [scope]),
            app.acquire_token_for_client([f"{PARTNER_CENTER}/.default"]),
            app.acquire_token_by_refresh_token("garbage", [scope]),
        )

    delegated, app_only, refused = await asyncio.to_thread(sign_in)
    assert delegated["refresh_token"] != scene.partner["refresh_token"]
    assert refused["error"] == "invalid_grant"
    for result in (delegated, app_only):
        scene.token = result["access_token"]
        assert (await scene.get("/v1/customers")).status_code == 200


async def test_an_armed_entra_error_refuses_once(scene: Scene) -> None:
    await scene.arm({"operation": "token", "kind": "entra", "aadsts": 50076})
    refused = await scene.redeem()
    assert_refused(refused, 400, "invalid_grant", 50076)
    assert refused.json()["suberror"] == "basic_action"
    assert (await scene.redeem()).status_code == 200
