"""The sandbox's scene: a made-up partner and two customers at the simulator, and a first order to paste.

The simulator forgets everything when it ends; the service does not. So the scene is kept in the data
directory and given to the simulator at every start: a connection made yesterday works today.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

import httpx

from app.db.paging import MAX_PAGE_SIZE, PageRequest
from app.domain.actor import OPERATOR, ActingFor
from app.kernel.settings import Settings
from app.runtime import Runtime
from app.services.access import identities
from app.services.connections import connections

SCENE_FILE = "sandbox.json"
GROUP_TAG = "Sandbox"


@dataclass(frozen=True)
class Scene:
    """Partners and customers at the simulator. Each data directory has its own ids and secrets."""

    partner_tenant: str
    client_id: str
    client_secret: str
    refresh_token: str
    consented_tenant: str
    unconsented_tenant: str

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        """The scene of this data directory. The first start makes it (a file of mode 0600)."""
        path = data_dir / SCENE_FILE
        if path.exists():
            return cls(**json.loads(path.read_text()))
        ids = [str(uuid4()) for _ in range(6)]
        scene = cls(
            partner_tenant=ids[0],
            client_id=ids[1],
            client_secret=f"sandbox-secret-{ids[2]}",
            refresh_token=f"sandbox-refresh-{ids[3]}",
            consented_tenant=ids[4],
            unconsented_tenant=ids[5],
        )
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(scene), file, indent=2)
        fresh.replace(path)
        return scene

    def tell(self, simulator: str) -> None:
        """Gives the scene to the simulator. Raises httpx.HTTPError."""
        customers = (
            (self.consented_tenant, "Consented Customer", "reseller"),
            (self.unconsented_tenant, "Hesitant Customer", "none"),
        )
        with httpx.Client(base_url=simulator, trust_env=False, timeout=10) as client:
            partner = {
                "tenant_id": self.partner_tenant,
                "name": "Sandbox Partner",
                "client_id": self.client_id,
                "client_secret": self.client_secret,
                "refresh_token": self.refresh_token,
            }
            client.post("/control/seed", json={"partner": partner, "customers": 0}).raise_for_status()
            for tenant, name, relationship in customers:
                customer = {"tenant_id": tenant, "name": name, "relationship": relationship}
                client.post("/control/customers", json=customer).raise_for_status()


async def renew_credentials(settings: Settings, scene: Scene) -> None:
    """Gives the connections of the scene's partner the refresh token that the simulator knows.

    Their present ones came from a simulator that has ended, and no other knows them.
    """
    runtime = await Runtime.open(settings, process="local")
    try:
        for partner in await identities.list_partners(runtime):
            principal = ActingFor(partner.id, OPERATOR)
            page = await connections.list_page(runtime, principal, PageRequest(MAX_PAGE_SIZE))
            for connection in page.items:
                if str(connection.entra_tenant_id) == scene.partner_tenant:
                    await connections.update(
                        runtime,
                        principal,
                        connection.id,
                        plain={},
                        client_secret=scene.client_secret,
                        refresh_token=scene.refresh_token,
                    )
    finally:
        await runtime.close()


def first_order(api_url: str, key: str, scene: Scene) -> str:
    """Shell lines that lead from nothing to a registered device. They need curl only."""
    connection = {
        "name": "Sandbox",
        "entra_tenant_id": scene.partner_tenant,
        "client_id": scene.client_id,
        "client_secret": scene.client_secret,
        "refresh_token": scene.refresh_token,
        "default_group_tag": GROUP_TAG,
    }
    customer = {"entra_tenant_id": scene.consented_tenant, "name": "Consented Customer"}
    device = {"serial_number": "SYN0000001", "manufacturer": "Contoso", "model": "Contoso Book 14"}
    order = {"reference": "first-order", "devices": [device]}
    return "\n".join(
        (
            f"API={api_url}/v1  KEY={key}",
            "registrar_post() {",
            """  curl -sS "$API/$1" -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \\""",
            """    -d "$2\"""",
            "}",
            # The id of the new object, or of the existing one when this is pasted again.
            "id_of() {",
            """  sed -E -e 's/.*"links":\\{"[a-z_]+":"([^"]*)".*/\\1/' -e t -e 's/.*"id":"([^"]*)".*/\\1/'""",
            "}",
            f"CONNECTION=$(registrar_post connections {_body(connection)} | id_of)",
            f"CUSTOMER=$(registrar_post customers {_body(customer, connection_id='CONNECTION')} | id_of)",
            f"ORDER=$(registrar_post orders {_body(order, customer_id='CUSTOMER')} | id_of)",
            "# Repeat until its state is completed (held at first, while the consent is being read):",
            """curl -sS "$API/orders/$ORDER" -H "Authorization: Bearer $KEY\"""",
        )
    )


def _body(values: object, **variables: str) -> str:
    """JSON as one shell word, with shell variables for some values."""
    text = json.dumps(values, separators=(",", ":"))
    for field, variable in variables.items():
        text = f'{{"{field}":"\0{variable}\0",' + text[1:]
    quoted = shlex.quote(text)
    for variable in variables.values():
        quoted = quoted.replace(f"\0{variable}\0", f"'\"${variable}\"'")
    return quoted
