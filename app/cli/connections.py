"""`registrar connection`: the partner's enrolments at Microsoft, and whether they work."""

from typing import Annotated
from uuid import UUID

import typer

from app.cli.api_client import Api, JsonObject
from app.cli.outcome import ExitCode, Stop
from app.cli.screen import Screen, moment
from app.cli.surroundings import CUSTOMERS_PANEL, DEFAULT_URL, ApiKey, ApiUrl, Ids, Json, surroundings
from app.domain.catalogue import CATALOGUE

app = typer.Typer(help="Your enrolments at Microsoft.", no_args_is_help=False)

Connection = Annotated[str, typer.Argument(help="The connection's id or name.")]


def find_connection(api: Api, wanted: str) -> JsonObject:
    """By id or name. Raises Stop when there is none."""
    wanted = wanted.strip()
    try:
        return api.get(f"/v1/connections/{UUID(wanted)}").body
    except ValueError:
        pass
    found = list(api.items("/v1/connections"))
    same = [each for each in found if each["name"].strip().casefold() == wanted.casefold()]
    if len(same) == 1:
        return same[0]
    names = ", ".join(each["name"] for each in found) or "none"
    raise Stop(f"There is no connection '{wanted}'.", f"There are: {names}.", error_code="name_not_found")


@app.command("list", rich_help_panel=CUSTOMERS_PANEL)
def list_connections(
    ctx: typer.Context,
    ids: Ids = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """List the connections, and which of them are in trouble."""
    screen = Screen(json=json, ids=ids)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = list(api.items("/v1/connections"))
    if json:
        screen.document(found)
    elif not found:
        screen.say("There are no connections yet. `POST /v1/connections` adds one.")
    else:
        rows = [
            (
                each["name"],
                each["platform"],
                _state(each),
                each["default_group_tag"],
                moment(each["checked_at"]),
                each["entra_tenant_id"],
                each["id"],
            )
            for each in found
        ]
        headers = ("Name", "Platform", "State", "Group tag", "Checked", "Entra tenant", "Id")
        screen.table(headers, rows, whole=headers, ids=("Id", "Entra tenant"))
    return ExitCode.DONE


@app.command("show", rich_help_panel=CUSTOMERS_PANEL)
def show_connection(
    ctx: typer.Context,
    connection: Connection,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Show a connection: what it can do, and what has to be fixed. Credentials are never shown.

    Ends with 1 while it is in trouble.
    """
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_connection(api, connection)
    if json:
        screen.document(found)
    else:
        _show(screen, found)
    return ExitCode.ERROR if found["trouble"] else ExitCode.DONE


def _show(screen: Screen, found: JsonObject) -> None:
    token = f"since {moment(found['refresh_token_at'])}" if found["has_refresh_token"] else "none"
    screen.facts(
        [
            ("Connection", found["name"]),
            ("Id", found["id"]),
            ("Platform", found["platform"]),
            ("Entra tenant", found["entra_tenant_id"]),
            ("App", found["client_id"] or "none: its files are uploaded at the portal by hand"),
            ("Refresh token", token),
            ("Region", found["region"] or ""),
            ("Group tag", found["default_group_tag"]),
            ("Customers read", moment(found["customers_read_at"])),
            ("Checked", moment(found["checked_at"])),
            ("State", _state(found)),
        ]
    )
    if trouble := found["trouble"]:
        screen.say()
        screen.facts([("Trouble since", moment(trouble["since"])), ("Microsoft said", trouble["said"] or "")])
        screen.remedies([(trouble["code"], trouble["remedy"])])


@app.command("check", rich_help_panel=CUSTOMERS_PANEL)
def check_connection(
    ctx: typer.Context,
    connection: Connection,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Test a connection at Microsoft with fresh tokens. Ends with 1 when it does not work."""
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_connection(api, connection)
        said = api.post(f"/v1/connections/{found['id']}:check", repeatable=True).body
    code = ExitCode.DONE if said["ok"] else ExitCode.ERROR
    if json:
        screen.document({**said, "exit_code": int(code)})
        return code
    words = "works" if said["ok"] else "does not work"
    screen.say(f"{found['name']} {words}.", style="bold")
    proved = ", ".join(said["proved"]).replace("_", " ")
    screen.facts([("Proved", proved or "nothing"), *_unless_empty("Microsoft said", said["said"])])
    screen.remedies([(said["code"], said["remedy"])])
    return code


def _unless_empty(name: str, value: str | None) -> list[tuple[str, str]]:
    return [(name, value)] if value else []


def _state(connection: JsonObject) -> str:
    if trouble := connection["trouble"]:
        known = CATALOGUE.get(trouble["code"])
        return f"trouble: {known.title if known else trouble['code']}"
    return "portal, by hand" if connection["portal"] else "works"
