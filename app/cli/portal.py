"""`registrar portal`: files to upload by hand, and the outcomes that are recorded by hand.

Files are written unchanged and only for their owner, because they hold hardware hashes. An existing file is
never overwritten with other content.
"""

import os
from pathlib import Path
from typing import Annotated
from uuid import UUID

import orjson
import typer

from app.cli.api_client import Api, JsonObject
from app.cli.customers import CONSENT_WORDS, find_customer
from app.cli.orders import OrderId, find_order
from app.cli.outcome import ExitCode, Stop, reading
from app.cli.screen import SHOWN_ROWS, Screen, amount, count_words, number
from app.cli.surroundings import DEFAULT_URL, ApiKey, ApiUrl, Json, surroundings
from app.domain.registration import SUCCESS

app = typer.Typer(
    help="Orders as files to upload by hand, where the API cannot be used.", no_args_is_help=True
)

BatchId = Annotated[UUID, typer.Argument(help="The file's batch, as `registrar portal files` shows it.")]
STATES = {
    "held": "waits for consent",
    "queued": "to be uploaded",
    "submitted": "uploaded, outcome open",
    "settled": "over",
    "cancelled": "cancelled",
}
NEXT = {
    "held": "`registrar portal consent CUSTOMER --note ...`",
    "queued": "`registrar portal uploaded {batch}`, when it is uploaded.",
    "submitted": "`registrar portal result {batch} --registered`, or its file instead of --registered. If it "
    "was not uploaded after all: `registrar portal undo {batch}`.",
}
"""The next step with this program. The API's own steps are for every caller."""


@app.command("files")
def show_files(
    ctx: typer.Context,
    order: OrderId,
    out: Annotated[Path | None, typer.Option(help="Write the files to upload into this folder.")] = None,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Show an order's files and what to do with them; write them with --out.

    Ends with 3 when files wait for the customer's consent.
    """
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        found = find_order(api, order)
        files = list(api.items(f"/v1/orders/{found['id']}/portal-files"))
        written = [] if out is None else _write_all(api, files, out)
    if json:
        screen.document({"files": files, "written": [str(path) for path in written]})
    else:
        _show(screen, files)
        for path in written:
            screen.say(f"Written: {path}")
        if out is not None:
            _say_left_out(screen, files)
    waiting = any(file["state"] == "held" for file in files)
    return ExitCode.WAITING if waiting else ExitCode.DONE


def _show(screen: Screen, files: list[JsonObject]) -> None:
    rows = [
        (
            file["name"],
            file["group_tag"],
            file["rows"],
            STATES.get(file["state"], file["state"]),
            file["batch_id"],
        )
        for file in files
    ]
    screen.table(("File", "Group tag", "Devices", "State", "Batch"), rows, whole=("Batch",))
    shown: set[str] = set()
    for file in files:
        if not file["steps"] or file["group_tag"] in shown:
            continue
        shown.add(file["group_tag"])
        screen.say()
        screen.say(f"What to do with {file['name']}", style="bold")
        for place, step in enumerate(file["steps"], start=1):
            screen.say(f"  {place}. {step}")
        if file["state"] in NEXT:
            screen.say(f"  Here: {NEXT[file['state']].format(batch=file['batch_id'])}")


def _say_left_out(screen: Screen, files: list[JsonObject]) -> None:
    """Says which files --out has not written, and why."""
    for file in files:
        if file["state"] != "queued":
            screen.say(f"Not written: {file['name']}, {STATES.get(file['state'], file['state'])}.")
        elif not file["href"]:
            screen.say(f"Not written: {file['name']}, it cannot be created now.")


def _write_all(api: Api, files: list[JsonObject], folder: Path) -> list[Path]:
    """Writes the files to upload. Leaves those that are already there as they are."""
    ready = [file for file in files if file["href"] and file["state"] == "queued"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(api.download(file["href"]), folder / Path(file["name"]).name) for file in ready]
    except OSError as error:
        raise Stop(f"The files cannot be written to {folder}: {error.strerror or error}.") from None


def _write(content: bytes, path: Path) -> Path:
    if path.exists():
        if path.read_bytes() == content:
            return path
        raise Stop(
            f"{path} is already there with other content.", "Nothing was replaced. Choose another --out."
        )
    part = path.with_name(f"{path.name}.part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    part.replace(path)
    return path


@app.command("uploaded")
def mark_uploaded(
    ctx: typer.Context,
    batch: BatchId,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Record that a file has been uploaded at the portal."""
    screen = Screen(json=json)
    with surroundings(ctx).api(api_url, api_key) as api:
        marked = api.post(f"/v1/batches/{batch}:mark-uploaded").body
    if json:
        screen.document(marked)
    else:
        screen.say(f"{amount(marked['counts']['total'], 'device')} of {marked['group_tag']}: uploaded.")
        screen.say(
            f"When the portal has finished: `registrar portal result {batch} --registered`, or its file."
        )
    return ExitCode.DONE


@app.command("undo")
def undo_upload(
    ctx: typer.Context,
    batch: BatchId,
    refused: Annotated[
        str | None, typer.Option(help="The portal's words, if it refused the whole file.")
    ] = None,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Record that a file is not at the portal: marked by mistake, or refused.

    Its devices wait again and none has failed. Upload the file again, or
    cancel the order.
    """
    screen = Screen(json=json)
    body = orjson.dumps({} if refused is None else {"refused": refused})
    with surroundings(ctx).api(api_url, api_key) as api:
        undone = api.post(f"/v1/batches/{batch}:undo-upload", body).body
    if json:
        screen.document(undone)
    else:
        screen.say(f"{amount(undone['counts']['total'], 'device')} of {undone['group_tag']}: to be uploaded.")
    return ExitCode.DONE


@app.command("result")
def record_result(
    ctx: typer.Context,
    batch: BatchId,
    file: Annotated[Path | None, typer.Argument(help="The portal's own file of results.")] = None,
    registered: Annotated[
        bool, typer.Option("--registered", help="Every device without an outcome is registered.")
    ] = False,
    failed: Annotated[
        str | None,
        typer.Option(
            help="Every device without an outcome failed with this code of Microsoft, such as 808.",
            metavar="CODE",
        ),
    ] = None,
    correct: Annotated[
        bool,
        typer.Option(
            "--correct", help="Replace outcomes that were recorded by mistake, even after the order's end."
        ),
    ] = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Record the outcomes of a file's devices: from the portal's list, or the same for all.

    --registered and --failed need a file that is marked as uploaded. A list of
    your own works too: columns `Serial number` (or `PKID`) and `Status`. So does
    the text of Intune's notification, which names rows of the file.
    Ends with 2 if devices failed or have no outcome yet, or a line matched none.
    """
    screen = Screen(json=json)
    if [registered, failed is not None, file is not None].count(True) != 1:
        raise Stop("Give the portal's list of results, or --registered, or --failed CODE.")
    with surroundings(ctx).api(api_url, api_key) as api:
        if file is None:
            outcome = {"outcome": "registered"} if failed is None else {"outcome": "failed", "code": failed}
            body = orjson.dumps(outcome | ({"correct": True} if correct else {}))
            said = api.post(f"/v1/batches/{batch}:record-outcome", body).body
        else:
            path = f"/v1/batches/{batch}/portal-result{'?correct=true' if correct else ''}"
            with reading(file):
                results = file.read_bytes()
            said = api.post(path, results, kind="text/csv").body
    if json:
        screen.document(said)
    else:
        _show_recorded(screen, said, "Line" if file else "Entry")
    failures = sum(count for state, count in said["outcomes"].items() if state not in SUCCESS)
    left = said["open"] or said["untouched_total"]
    return ExitCode.PARTIAL if failures or left else ExitCode.DONE


def _show_recorded(screen: Screen, said: JsonObject, place: str) -> None:
    order = said["order"]
    screen.say(
        f"Order {order['reference']} of {order['customer_name']}, group tag {said['batch']['group_tag']}:"
    )
    if not said["recorded"]:
        screen.say("  nothing recorded")
    for words, count in count_words(said["outcomes"]):
        screen.say(f"  {number(count)} {words}")
    by_row = [device for device in said["devices"] if device["state"] not in SUCCESS]
    if by_row:
        screen.say()
        failures = [
            (device["file_row"], device["serial_number"] or device["product_key"], device["error_code"])
            for device in by_row[:SHOWN_ROWS]
        ]
        screen.table(("Row of the file", "Device", "Code"), failures)
        screen.say()
    if said["unread_columns"]:
        screen.say(f"Columns that were not read: {', '.join(said['unread_columns'])}.")
    if said.get("corrected"):
        screen.say(f"{amount(said['corrected'], 'device')} of these had another outcome before.")
    if said["again"]:
        screen.say(
            f"{amount(said['again'], 'device')} had a temporary failure: there is a new file for them."
        )
    if said["untouched"]:
        screen.say()
        screen.say(f"{number(said['untouched_total'])} could not be recorded:", style="bold")
        rows = [(entry["place"], entry["reason"]) for entry in said["untouched"][:SHOWN_ROWS]]
        screen.table((place, "Why"), rows)
    if said["open"]:
        screen.say(f"{amount(said['open'], 'device')} of this file without an outcome yet.")
    else:
        screen.say("Every device of this file has its outcome.")


@app.command("consent")
def record_consent(
    ctx: typer.Context,
    customer: Annotated[str, typer.Argument(help="The customer's id, Entra tenant, domain or name.")],
    note: Annotated[str, typer.Option(help="What you saw, where and when.")],
    revoked: Annotated[
        bool, typer.Option("--revoked", help="The customer has withdrawn its consent.")
    ] = False,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Record a customer's consent, which Registrar cannot look up for portal connections."""
    screen = Screen(json=json)
    body = orjson.dumps({"state": "revoked" if revoked else "granted", "note": note})
    with surroundings(ctx).api(api_url, api_key) as api:
        target = find_customer(api, customer)
        state = api.post(f"/v1/customers/{target['id']}/consent:record", body).body
    if json:
        screen.document(state)
    else:
        screen.say(f"{target['name']}: {CONSENT_WORDS[state['state']]}.")
    return ExitCode.DONE
