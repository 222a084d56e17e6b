"""`registrar discard`: deletes an import that is not needed."""

from typing import Annotated, Final
from uuid import UUID

import typer

from app.cli.api_client import Api, ApiRefusal, JsonObject
from app.cli.asking import Yes, confirm
from app.cli.imports import OVER
from app.cli.outcome import ExitCode, Stop
from app.cli.screen import Screen, amount
from app.cli.surroundings import DEFAULT_URL, ORDERS_PANEL, ApiKey, ApiUrl, Json, surroundings

app = typer.Typer()

LOOKED_AT: Final = 1000
"""How many of the newest imports are searched for a reference. Older ones need their id."""


@app.command("discard", rich_help_panel=ORDERS_PANEL)
def discard_import(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="IMPORT", help="The import's id, or its reference.")],
    yes: Yes = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Discard an import: stop reading it and delete its rows. It cannot be ordered afterwards.

    Ends with 4 if it has become orders. Use `registrar cancel` for those.
    """
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = _find(api, name.strip())
        if found["state"] != "discarded":
            confirm(f"Discard {_shown(found)}?", yes=yes)
            found = _discard(api, found)
    if json:
        screen.document({"exit_code": int(ExitCode.DONE), "import": found})
    else:
        screen.say(f"The import {found['reference']} ({found['id']}) is discarded.", style="bold")
        screen.say("Its rows are being deleted. The same file can be imported again.")
    return ExitCode.DONE


def _find(api: Api, name: str) -> JsonObject:
    try:
        id = UUID(name)
    except ValueError:
        return _of_reference(api, name)
    return api.get(f"/v1/imports/{id}").body


def _of_reference(api: Api, reference: str) -> JsonObject:
    """The import of this reference; if there are several, the only unfinished one. Raises Stop."""
    found = [each for each in api.items("/v1/imports", limit=LOOKED_AT) if each["reference"] == reference]
    chosen = [each for each in found if each["state"] not in OVER] or found[:1]
    if not chosen:
        words = f"None of the newest {LOOKED_AT:,} imports has the reference {reference}."
        raise Stop(words, "Give its id, which `registrar import` shows.", error_code="name_not_found")
    if len(chosen) > 1:
        raise Stop(
            f"{amount(len(chosen), 'import')} have the reference {reference}. Give the id of one of them:",
            *(f"  {each['id']}  {each['state']}  {each['created_at']}" for each in chosen),
            error_code="name_ambiguous",
        )
    return chosen[0]


def _shown(found: JsonObject) -> str:
    rows = found["counts"]["total"]
    return f"the import {found['reference']}" + (f" with {amount(rows, 'row')}" if rows else "")


def _discard(api: Api, found: JsonObject) -> JsonObject:
    try:
        return api.post(f"/v1/imports/{found['id']}:discard", repeatable=True).body
    except ApiRefusal as refusal:
        if refusal.error_code != "invalid_state":
            raise
        raise Stop(
            refusal.words, *refusal.advice, code=ExitCode.REFUSED, error_code=refusal.error_code
        ) from None
