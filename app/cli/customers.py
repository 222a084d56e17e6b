"""Commands for customers: list, add and change them, show consent and the link that asks for it.

A customer is named by id, tenant, domain or name. If a name fits more than one, the command asks for an id
and does not guess.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Annotated, Final
from uuid import UUID, uuid4

import orjson
import typer

from app.cli.api_client import Api, ApiRefusal, JsonObject
from app.cli.connections import find_connection
from app.cli.outcome import ExitCode, Stop
from app.cli.screen import Screen, moment
from app.cli.surroundings import CUSTOMERS_PANEL, DEFAULT_URL, ApiKey, ApiUrl, Ids, Json, surroundings
from app.domain.consent import ConsentState, Evidence

app = typer.Typer()
customer_app = typer.Typer(no_args_is_help=False)
app.add_typer(
    customer_app,
    name="customer",
    help="Customers: list them, add one, change one.",
    rich_help_panel=CUSTOMERS_PANEL,
)

CONSENT_WORDS: Final[dict[ConsentState, str]] = {
    ConsentState.UNKNOWN: "not known yet",
    ConsentState.REQUESTED: "asked for, not accepted yet",
    ConsentState.GRANTED: "granted",
    ConsentState.STALE: "granted, but the proof is old or in doubt",
    ConsentState.REVOKED: "ended by the customer",
}
EVIDENCE_WORDS: Final[dict[Evidence, str]] = {
    Evidence.CUSTOMER_CREATED: "the customer was added here",
    Evidence.LINK_ISSUED: "the link was issued",
    Evidence.CUSTOMERS_LIST: "Microsoft's list of customers",
    Evidence.UPSTREAM_403: "Microsoft denied a call",
    Evidence.AGE: "the proof became too old",
    Evidence.TENANT_CHANGED: "the connection is another tenant's now",
    Evidence.MANUAL: "recorded by hand",
}


def find_customer(api: Api, wanted: str) -> JsonObject:
    """By id, Entra tenant, domain or name. Raises Stop if none or several match."""
    wanted = wanted.strip()
    found = look_for_customer(api, wanted)
    if len(found) == 1:
        return found[0]
    if found:
        choices = [f"  {c['id']}  {c['name']} (tenant {c['entra_tenant_id']})" for c in found]
        raise Stop(
            f"'{wanted}' is more than one customer. Give one of these ids:",
            *choices,
            error_code="name_ambiguous",
        )
    names = [customer["name"] for customer in api.items("/v1/customers")]
    near = get_close_matches(wanted, names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else "`registrar customer list` shows all there are."
    raise Stop(f"There is no customer '{wanted}'.", hint, error_code="name_not_found")


def look_for_customer(api: Api, wanted: str) -> list[JsonObject]:
    """Every customer that this name may refer to."""
    try:
        id = UUID(wanted)
    except ValueError:
        by_domain = list(api.items("/v1/customers", domain=wanted)) if "." in wanted else []
        if by_domain:
            return by_domain
        same = wanted.casefold()
        return [c for c in api.items("/v1/customers") if c["name"].strip().casefold() == same]
    try:
        return [api.get(f"/v1/customers/{id}").body]
    except ApiRefusal as refusal:
        if refusal.status != 404:
            raise
    return list(api.items("/v1/customers", entra_tenant_id=str(id)))


def customer_names(api: Api, ids: Iterable[str]) -> dict[str, str]:
    """Names for ids. A key that may not read customers sees the ids instead."""
    names = {}
    for id in dict.fromkeys(ids):
        try:
            names[id] = str(api.get(f"/v1/customers/{id}").body["name"])
        except ApiRefusal as refusal:
            if refusal.status not in (403, 404):
                raise
            names[id] = id
    return names


def consent_advice(customer: str) -> str:
    return f"`registrar consent {_quoted(customer)} --link` prints the link that asks for it."


@app.command("customers", hidden=True)
@customer_app.command("list", rich_help_panel=CUSTOMERS_PANEL)
def list_customers(
    ctx: typer.Context,
    ids: Ids = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """List the customers and whether they have given their consent."""
    screen = Screen(json=json, ids=ids)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = list(api.items("/v1/customers"))
    if json:
        screen.document(found)
    elif not found:
        screen.say("There are no customers yet. `registrar customer add` adds one.")
    else:
        rows = [
            (
                customer["name"],
                customer["domain"],
                CONSENT_WORDS[customer["consent"]["state"]],
                moment(customer["consent"]["since"]),
                customer["entra_tenant_id"],
                customer["id"],
            )
            for customer in found
        ]
        headers = ("Name", "Domain", "Consent", "Since", "Entra tenant", "Id")
        screen.table(headers, rows, whole=headers, ids=("Id", "Entra tenant"))
    return ExitCode.DONE


@customer_app.command("add", rich_help_panel=CUSTOMERS_PANEL)
def add_customer(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The customer's name.")],
    tenant: Annotated[UUID, typer.Option("--tenant", metavar="ID", help="Its Entra tenant id.")],
    connection: Annotated[
        str | None,
        typer.Option(help="The id or name of the connection that reaches it. Default: the only one."),
    ] = None,
    domain: Annotated[str | None, typer.Option(help="One of its domains.")] = None,
    group_tag: Annotated[
        str | None, typer.Option(help="For devices without a group tag. Default: the connection's.")
    ] = None,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Add a customer. Registrar looks up its consent at once."""
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        body = {
            "connection_id": _connection(api, connection)["id"],
            "entra_tenant_id": str(tenant),
            "name": name,
            "domain": domain,
            "default_group_tag": group_tag,
        }
        made = api.post("/v1/customers", orjson.dumps(body), key=str(uuid4())).body
    if json:
        screen.document(made)
    else:
        screen.say(f"{made['name']} has been added.", style="bold")
        screen.facts([("Id", made["id"]), ("Consent", CONSENT_WORDS[made["consent"]["state"]])])
        screen.say(f"`registrar consent {_quoted(made['name'])}` says whether its devices are sent.")
    return ExitCode.DONE


def _connection(api: Api, wanted: str | None) -> JsonObject:
    if wanted is not None:
        return find_connection(api, wanted)
    found = list(api.items("/v1/connections", limit=100))
    if len(found) == 1:
        return found[0]
    names = ", ".join(each["name"] for each in found)
    raise Stop(
        "Through which connection is the customer reached?" if found else "There is no connection yet.",
        f"Name one with --connection: {names}." if found else "`POST /v1/connections` adds one.",
        error_code="command_misused" if found else "name_not_found",
    )


@customer_app.command("edit", rich_help_panel=CUSTOMERS_PANEL)
def edit_customer(
    ctx: typer.Context,
    customer: Annotated[str, typer.Argument(help="The customer's id, Entra tenant, domain or name.")],
    name: Annotated[str | None, typer.Option(help="Its new name.")] = None,
    domain: Annotated[str | None, typer.Option(help="Its new domain; '' removes it.")] = None,
    group_tag: Annotated[
        str | None, typer.Option(help="For devices without a group tag; '' uses the connection's.")
    ] = None,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Change a customer's name, domain or group tag. Its tenant cannot be changed."""
    screen = Screen(json=json)
    given = {"name": name, "domain": domain, "default_group_tag": group_tag}
    body = {field: value or None for field, value in given.items() if value is not None}
    if not body:
        raise Stop(
            "Nothing to change was given.",
            "Give --name, --domain or --group-tag.",
            error_code="command_misused",
        )
    with surroundings(ctx).api(api_url, api_key) as api:
        target = find_customer(api, customer)
        changed = api.patch(f"/v1/customers/{target['id']}", orjson.dumps(body)).body
    if json:
        screen.document(changed)
    else:
        screen.facts(
            [
                ("Customer", changed["name"]),
                ("Id", changed["id"]),
                ("Domain", changed["domain"] or ""),
                ("Group tag", changed["default_group_tag"] or "the connection's"),
            ]
        )
    return ExitCode.DONE


@app.command("consent", rich_help_panel=CUSTOMERS_PANEL)
def show_consent(
    ctx: typer.Context,
    customer: Annotated[str, typer.Argument(help="The customer's id, Entra tenant, domain or name.")],
    recheck: Annotated[bool, typer.Option("--recheck", help="Ask Microsoft now.")] = False,
    link: Annotated[
        bool, typer.Option("--link", help="Print the link that the customer's administrator opens.")
    ] = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Show whether a customer has consented; get the link that asks for consent.

    Ends with 0 when devices are sent, 3 when they wait for consent.
    """
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        target = find_customer(api, customer)
        path = f"/v1/customers/{target['id']}/consent"
        url = api.post(f"{path}:request").body["url"] if link else None
        state = api.post(f"{path}:recheck").body if recheck else api.get(path).body
    if json:
        screen.document({**state, "link": url} if link else state)
    else:
        if url is not None:
            _show_link(screen, target["name"], url)
        _show_consent(screen, target, state)
    return ExitCode.DONE if link or state["lets_pass"] else ExitCode.WAITING


def _show_link(screen: Screen, name: str, url: str) -> None:
    screen.say(f"A global administrator of {name} opens this link and accepts:")
    screen.say()
    screen.say(f"  {url}")
    screen.say()


def _show_consent(screen: Screen, customer: JsonObject, consent: JsonObject) -> None:
    screen.facts(
        [
            ("Customer", customer["name"]),
            ("Id", customer["id"]),
            ("Consent", CONSENT_WORDS[consent["state"]]),
            ("Since", moment(consent["since"])),
            ("It rests on", EVIDENCE_WORDS[consent["evidence"]]),
            ("Last seen in Microsoft's list", moment(consent["proved_at"])),
            ("List last read", moment(consent["checked_at"])),
            ("Devices", "are sent" if consent["lets_pass"] else "wait until the customer consents"),
        ]
    )
    changes: Sequence[JsonObject] = consent["history"]
    if len(changes) > 1:
        screen.say()
        rows = [
            (moment(c["at"]), CONSENT_WORDS[c["to_state"]], EVIDENCE_WORDS[c["evidence"]]) for c in changes
        ]
        screen.table(("When", "Consent", "Because"), rows)


def _quoted(text: str) -> str:
    return text if text.replace("-", "").replace(".", "").isalnum() else f'"{text}"'
