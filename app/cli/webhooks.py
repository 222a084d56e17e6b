"""`registrar webhook`: endpoints for webhooks, and whether deliveries arrive."""

from typing import Annotated, Final
from uuid import UUID, uuid4

import orjson
import typer

from app.cli.api_client import Api, JsonObject
from app.cli.outcome import ExitCode, Stop
from app.cli.screen import Screen, number
from app.cli.surroundings import DEFAULT_URL, WEBHOOKS_PANEL, ApiKey, ApiUrl, Ids, Json, surroundings

app = typer.Typer(help="Webhook endpoints and their deliveries.", no_args_is_help=False)

LOOKS: Final = 30
"""Looks at a test's delivery, a second apart."""


@app.command("list", rich_help_panel=WEBHOOKS_PANEL)
def list_endpoints(
    ctx: typer.Context,
    ids: Ids = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """List the webhook endpoints, and which of them fail."""
    screen = Screen(json=json, ids=ids)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = list(api.items("/v1/webhook-endpoints"))
    if json:
        screen.document(found)
    elif not found:
        screen.say("There are no webhook endpoints yet. `registrar webhook add URL` adds one.")
    else:
        rows = [
            (
                each["url"],
                each["state"],
                number(each["consecutive_failures"]),
                _events(each),
                each["description"],
                each["id"],
            )
            for each in found
        ]
        headers = ("Address", "State", "Failures in a row", "Events", "What for", "Id")
        screen.table(headers, rows, whole=("Address", "State"), ids=("Id",))
    return ExitCode.DONE


def _events(endpoint: JsonObject) -> str:
    types = endpoint["event_types"]
    return ", ".join(types) if types else "all"


@app.command("add", rich_help_panel=WEBHOOKS_PANEL)
def add_endpoint(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(help="The URL for the webhooks; https.")],
    event: Annotated[
        list[str] | None,
        typer.Option(
            help="An event to send, such as order.completed; may be given several times. Default: all."
        ),
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Add a webhook endpoint. The secret that signs its webhooks is shown this once."""
    screen = Screen(json=json)
    body: JsonObject = {"url": url, "event_types": event or []}
    if description is not None:
        body["description"] = description
    with surroundings(ctx).api(api_url, api_key) as api:
        made = api.post("/v1/webhook-endpoints", orjson.dumps(body), key=str(uuid4())).body
    if json:
        screen.document(made)
        return ExitCode.DONE
    screen.say(f"Webhooks go to {made['url']} from now on.", style="bold")
    screen.facts([("Id", made["id"]), ("Events", _events(made))])
    screen.say()
    screen.say("The secret that signs them:")
    screen.say(f"  {made['secret']}")
    screen.say("Store it in a safe place now: it will not be shown again.")
    screen.say(f"Try it: `registrar webhook test {made['id']}`")
    return ExitCode.DONE


@app.command("test", rich_help_panel=WEBHOOKS_PANEL)
def try_endpoint(
    ctx: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="The endpoint's id or address.")],
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Send a test webhook and say whether it arrived. Ends with 1 when it did not."""
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = _find(api, endpoint)
        delivery = api.post(f"/v1/webhook-endpoints/{found['id']}:test").body
        path = f"/v1/webhook-deliveries/{delivery['id']}"
        for _ in range(LOOKS):
            delivery = api.get(path).body
            if delivery["state"] != "pending":
                break
            api.sleep(1.0)
    code = ExitCode.DONE if delivery["state"] == "succeeded" else ExitCode.ERROR
    if json:
        screen.document({**delivery, "exit_code": int(code)})
    else:
        _show_test(screen, found, delivery)
    return code


def _show_test(screen: Screen, endpoint: JsonObject, delivery: JsonObject) -> None:
    status = delivery["last_status"]
    said = f"HTTP status {status}" if status else str(delivery["last_kind"] or "no attempt yet")
    if delivery["state"] == "succeeded":
        screen.say(f"The test webhook has arrived at {endpoint['url']} ({said}).", style="bold")
        return
    if delivery["state"] == "pending":
        screen.say("The test webhook has not been sent yet.", style="bold")
        screen.say("Is a worker running? `/readyz?all` says so.")
        return
    screen.say(
        f"The test webhook has not arrived at {endpoint['url']}: {said.replace('_', ' ')}.", style="bold"
    )
    for attempt in delivery["attempt_log"][:1]:
        if attempt["excerpt"]:
            screen.say(f"The endpoint said: {attempt['excerpt']}")
    screen.say("It is tried again automatically, with growing pauses.")


def _find(api: Api, wanted: str) -> JsonObject:
    try:
        return api.get(f"/v1/webhook-endpoints/{UUID(wanted.strip())}").body
    except ValueError:
        pass
    found = [each for each in api.items("/v1/webhook-endpoints") if each["url"] == wanted.strip()]
    if len(found) == 1:
        return found[0]
    if found:
        raise Stop(
            f"{wanted} is more than one endpoint. Give one of these ids:",
            *(f"  {each['id']}" for each in found),
            error_code="name_ambiguous",
        )
    raise Stop(
        f"There is no webhook endpoint {wanted}.",
        "`registrar webhook list` shows what there is.",
        error_code="name_not_found",
    )
