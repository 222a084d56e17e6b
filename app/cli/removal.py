"""`registrar partner remove`, `connection remove` and `customer remove`: show what would go, and remove it.

Without `--yes` they only show it. The operator removes partners in the database; the others go through the
API.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.api_client import Api, JsonObject
from app.cli.connections import Connection, find_connection
from app.cli.customers import find_customer
from app.cli.installation import use_installation
from app.cli.outcome import ExitCode
from app.cli.screen import Screen
from app.cli.surroundings import DEFAULT_URL, ApiKey, ApiUrl, Json, surroundings
from app.domain.actor import OPERATOR, ActingFor

if TYPE_CHECKING:
    from app.runtime import Runtime
    from app.services.operations.removal import Removal

NOUNS = {
    "api_keys": "API keys",
    "connections": "connections, with their credentials",
    "customers": "customers",
    "orders": "orders",
    "registrations": "devices of orders",
    "device_hashes": "hardware hashes",
    "events": "events",
    "deliveries": "webhook deliveries, also those that have not arrived",
    "webhook_endpoints": "webhook endpoints, with their secrets",
    "imports": "imported files",
    "vendor_profiles": "vendor profiles",
}
"""The tables that people see. Programs get every table."""

YesRemove = Annotated[
    bool, typer.Option("--yes", "-y", help="Remove it. Without this, only show what would be removed.")
]


def remove_partner(
    partner: Annotated[str, typer.Argument(help="The partner's name or id.")],
    yes: YesRemove = False,
    json: Json = False,
) -> int:
    """Permanently remove a partner with everything that it has. Its keys are refused at once."""

    async def work(runtime: "Runtime") -> JsonObject:
        from app.db.removal import Kind, Subject
        from app.services.access import identities
        from app.services.operations import removal

        owner = await identities.find_partner(runtime, partner)
        subject = Subject(Kind.PARTNER, owner.id, owner.id)
        operator = ActingFor(owner.id, OPERATOR)
        found = await removal.look(runtime, operator, subject)
        if yes and not found.obstacles:
            found = await removal.remove(runtime, operator, subject, everything=True)
        return _document(found, dry_run=not yes)

    return _tell(use_installation(work), "partner", json=json)


def _document(found: "Removal", *, dry_run: bool) -> JsonObject:
    return {
        "dry_run": dry_run,
        "finished": found.finished,
        "name": found.name,
        "counts": dict(found.counts),
        "obstacles": [
            {"kind": each.kind, "id": str(each.id), "name": each.name, "words": each.words}
            for each in found.obstacles
        ],
    }


def remove_connection(
    ctx: typer.Context,
    connection: Connection,
    yes: YesRemove = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Permanently remove a connection, its credentials, and its customers with their orders."""
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_connection(api, connection)
        told = _remove(api, f"/v1/connections/{found['id']}", yes=yes)
    return _tell(told, "connection", json=json)


def remove_customer(
    ctx: typer.Context,
    customer: Annotated[str, typer.Argument(help="The customer's id, name, domain or tenant id.")],
    yes: YesRemove = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Permanently remove a customer with its orders. Devices at Microsoft stay registered."""
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_customer(api, customer)
        told = _remove(api, f"/v1/customers/{found['id']}", yes=yes)
    return _tell(told, "customer", json=json)


def _remove(api: Api, path: str, *, yes: bool) -> JsonObject:
    """Shows what is there; with `yes`, removes it in as many calls as it takes. Reports the first counts."""
    told = api.delete(path, dry_run="true").body
    if not yes or told["obstacles"]:
        return {**told, "dry_run": not yes}
    while True:
        if api.delete(path, everything="true").body["finished"]:
            return {**told, "dry_run": False, "finished": True}


def _amount(rows: int) -> str:
    from app.db.removal import COUNTED_TO

    return f"{COUNTED_TO:,} or more" if rows >= COUNTED_TO else f"{rows:,}"


def _tell(told: JsonObject, noun: str, *, json: bool) -> int:
    blocked: Sequence[Mapping[str, Any]] = told["obstacles"]
    code = ExitCode.STILL_WAITING if blocked else ExitCode.DONE
    screen = Screen(json=json)
    if json:
        screen.document({**told, "exit_code": int(code)})
        return code
    if told["finished"]:
        screen.say(f"The {noun} {told['name']} has been removed, with:", style="bold")
    else:
        screen.say(f"The {noun} {told['name']} has:", style="bold")
    counts = told["counts"]
    counted = [(words, _amount(counts[table])) for table, words in NOUNS.items() if counts.get(table)]
    screen.facts(counted or [("Contents", "nothing")])
    if blocked:
        screen.say()
        screen.say("It cannot be removed before this is finished:", style="bold")
        screen.table(
            ("What", "Reference", "Why", "Id"),
            [(each["kind"], each["name"], each["words"], each["id"]) for each in blocked],
            whole=("Reference", "Why"),
        )
    elif not told["finished"]:
        screen.say()
        screen.say("Nothing has been removed. Add --yes to remove all of it permanently.")
    return code
