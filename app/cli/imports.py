"""`registrar import`: turns a file of up to a million rows into orders, with a preview in between.

The service reads the file; this module sends it, follows the import and shows it. The same command finds the
same import again, because the Idempotency-Key is made of the file and its options.
"""

import hashlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from app.cli.api_client import Api, ApiRefusal, JsonObject
from app.cli.customers import customer_names, find_customer
from app.cli.device_file import EncodingName, known_encoding
from app.cli.dialect_words import format_words, read_words
from app.cli.doubts import doubts, is_doubt, show_doubts
from app.cli.following import Timeout, bars, look, watch
from app.cli.outcome import ExitCode, Stop, combine, judge_followed, judge_order
from app.cli.results import WENT_WRONG, conclude
from app.cli.screen import SHOWN_ROWS, Screen, amount, field_words, number, plain
from app.cli.surroundings import (
    DEFAULT_URL,
    ORDERS_PANEL,
    ApiKey,
    ApiUrl,
    IncludeHidden,
    Json,
    SheetName,
    surroundings,
)
from app.intake.table import OMISSIONS

app = typer.Typer()

PIECE: Final = 256 * 1024
MOVING: Final = frozenset({"uploading", "uploaded", "reading", "committing"})
STATE_WORDS: Final = {
    "uploading": "arriving",
    "uploaded": "waiting to be read",
    "reading": "being read",
    "committing": "becoming orders",
}
OVER: Final = frozenset({"refused", "discarded", "expired"})
HASHES_READ: Final = "hashes:read"
_DETAIL_WITHOUT_ADVICE: Final = frozenset({"file_without_rows", "import_given_up"})
"""Refusals whose detail says only what is wrong. That of the others also says what to do."""


@app.command("import", rich_help_panel=ORDERS_PANEL)
def import_file(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV, TSV, XLSX, JSON Lines or OA3.xml, also as .gz.")],
    customer: Annotated[
        str | None,
        typer.Option(
            help="Id, Entra tenant, domain or name. Leave it out if the file names each row's customer."
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Your own number. Default: from the file's name and content.")
    ] = None,
    group_tag: Annotated[
        str | None, typer.Option(help="For devices without a group tag. Default: the customer's.")
    ] = None,
    purchase_order: Annotated[str | None, typer.Option(help="Default: the one the file names.")] = None,
    profile: Annotated[str | None, typer.Option(help="The vendor profile for reading the file.")] = None,
    sheet: SheetName = None,
    include_hidden: IncludeHidden = None,
    encoding: EncodingName = None,
    commit: Annotated[bool, typer.Option("--commit", help="Order the valid rows.")] = False,
    reject_invalid: Annotated[
        bool, typer.Option("--reject-invalid", help="Order nothing if one device is invalid.")
    ] = False,
    errors: Annotated[
        Path | None, typer.Option(help="Write the invalid rows here, to be corrected and imported again.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--watch/--no-watch", help="Follow the orders to their end.")
    ] = False,
    timeout: Timeout = None,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Let the service check a file of up to a million rows; order it with --commit.

    Ends as `submit` does. Without --commit: 0 when every row is valid, 2
    when some are not or are left out, 4 when none is valid or the file
    cannot be read.
    """  # fmt: skip
    screen = Screen(json=json)
    if not file.is_file():
        raise Stop(f"There is no file {file}.")
    if errors is not None and errors.exists() and errors.samefile(file):
        raise Stop("The invalid rows would overwrite the file itself.", "Give --errors another name.")
    with surroundings(ctx).api(api_url, api_key) as api:
        target = find_customer(api, customer) if customer else None
        given = {
            "customer_id": target["id"] if target else None,
            "reference": reference,
            "group_tag": group_tag,
            "purchase_order": purchase_order,
            "profile": profile,
            "encoding": known_encoding(encoding),
            "file_name": plain(file.name)[:255],
        }
        if sheet is not None:
            given["sheet"] = sheet
        if include_hidden is not None:
            given["include_hidden"] = "true" if include_hidden else "false"
        found = _arrive(screen, api, file, given, again=not commit)
        _show(screen, api, found)
        if errors is not None and found["counts"]["invalid"]:
            _write_errors(screen, api, found, errors)
        if found["state"] in OVER:
            raise _over(found)
        orders: list[JsonObject] = []
        if commit or found["state"] == "committed":
            found = _commit(screen, api, found, reject_invalid=reject_invalid)
            orders = [api.get(f"/v1/orders/{made['order_id']}").body for made in found["orders"]]
            if follow:
                orders = watch(screen, api, orders, timeout=timeout)
                conclude(screen, api, orders, WENT_WRONG)
        code = _judge(found, orders, followed=follow)
        if json:
            screen.document({"exit_code": int(code), "import": found, "orders": orders})
        elif code is ExitCode.REFUSED:
            screen.say("Nothing in it can be ordered as it is.")
        elif not orders:
            screen.say("Only checked: nothing was ordered. The same command with --commit orders it.")
    return code


def _shows_hashes(api: Api) -> bool:
    """Whether `errors.csv` has hashes for this key. Older APIs, without the scope, showed them to every
    key."""
    scopes = api.get("/v1/me").body["scopes"]
    return HASHES_READ in scopes


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(PIECE):
            yield piece


def _key(file: Path, given: JsonObject) -> str:
    digest = hashlib.sha256(orjson.dumps(given, option=orjson.OPT_SORT_KEYS))
    for piece in _pieces(file):
        digest.update(piece)
    return f"import/{digest.hexdigest()}"


def _arrive(screen: Screen, api: Api, file: Path, given: JsonObject, *, again: bool) -> JsonObject:
    """This file's import: that of an earlier command if it is still usable, otherwise a new one.

    A finished one is not usable. With `again`, neither is one with invalid rows: the customer may have been
    added since, or the profile corrected. It is discarded, so that a later --commit does not find it.
    """
    key = _key(file, given)
    for attempt in count(1):
        name = key if attempt == 1 else f"{key}/{attempt}"
        answer = api.upload("/v1/imports", lambda: _pieces(file), key=name, **given)
        found = _follow(screen, api, answer.body["id"])
        if not answer.replayed:
            break
        if again and found["state"] == "ready_with_errors" and not found["orders"]:
            api.post(f"/v1/imports/{found['id']}:discard", repeatable=True)
        elif found["state"] not in OVER:
            break
    return found


# --- following ------------------------------------------------------------------------------------


def _follow(screen: Screen, api: Api, import_id: str) -> JsonObject:
    """Watches the import until it stops moving."""
    with bars(screen) as bar:
        task = bar.add_task("", total=None, words="")
        while True:
            found, pause = look(screen, api, f"/v1/imports/{import_id}")
            if found["state"] not in MOVING:
                return found
            progress = found["progress"]
            bar.update(
                task,
                description=STATE_WORDS[found["state"]],
                total=progress["size_bytes"] or None,
                completed=progress["bytes_read"],
                words=f"{number(progress['rows_read'])} rows",
            )
            api.sleep(pause)


def _over(found: JsonObject) -> Stop:
    failure = found["failure"] or {}
    words = failure.get("detail") or f"The import is {found['state']}."
    said = found["state"] == "refused" and failure.get("code") not in _DETAIL_WITHOUT_ADVICE
    advice = filter(None, [None if said else failure.get("remedy")])
    full = failure.get("code") == "quota_exceeded"  # the file is as it should be
    code = ExitCode.ERROR if full else ExitCode.REFUSED
    return Stop(words, *advice, code=code, error_code=failure.get("code"))


def _commit(screen: Screen, api: Api, found: JsonObject, *, reject_invalid: bool) -> JsonObject:
    body = orjson.dumps({"on_invalid": "reject" if reject_invalid else "accept_valid"})
    if found["state"] != "committed":
        try:
            api.post(f"/v1/imports/{found['id']}:commit", body, repeatable=True)
        except ApiRefusal as refusal:
            if refusal.status not in (409, 422) or refusal.error_code == "quota_exceeded":
                raise
            raise Stop(
                refusal.words, *refusal.advice, code=ExitCode.REFUSED, error_code=refusal.error_code
            ) from None
        found = _follow(screen, api, found["id"])
    if found["state"] != "committed":
        raise _over(found)
    changed = found["preview"]["changed"]
    if changed:
        screen.say(f"Note: {amount(changed, 'row')} became invalid since they were read.")
    for made in found["orders"]:
        screen.say(f"Order {made['reference']} is accepted ({made['order_id']}).", style="bold")
    return found


def _judge(found: JsonObject, orders: list[JsonObject], *, followed: bool) -> ExitCode:
    counts = found["counts"]
    codes = {notice["code"] for notice in (found["dialect"] or {}).get("notices", ())}
    is_partial = bool(counts["invalid"]) or not OMISSIONS.isdisjoint(codes)
    if orders:
        code = combine([(judge_followed if followed else judge_order)(order) for order in orders])
        return ExitCode.PARTIAL if code is ExitCode.DONE and is_partial else code
    if counts["invalid"] == counts["total"]:
        return ExitCode.REFUSED
    return ExitCode.PARTIAL if is_partial else ExitCode.DONE


# --- showing --------------------------------------------------------------------------------------


def _show(screen: Screen, api: Api, found: JsonObject) -> None:
    counts, dialect, preview = found["counts"], found["dialect"], found["preview"]
    pairs = [("Import", f"{found['reference']} ({found['id']})"), ("File", found["file_name"] or "")]
    if dialect:
        read = [read_words(c["name"], field_words(c["field"])) for c in dialect["columns"] if c["field"]]
        pairs += [("Format", format_words(**dialect)), ("Read as", ", ".join(read))]
        if dialect["columns_unused"]:
            pairs.append(("Not used", ", ".join(dialect["columns_unused"])))
    pairs += [
        ("Rows", number(counts["total"])),
        ("  valid", number(counts["valid"])),
        ("  valid, please check", number(counts["warning"])),
        ("  invalid", number(counts["invalid"])),
    ]
    screen.facts(pairs)
    notices = [(notice["code"], notice["detail"]) for notice in dialect["notices"]] if dialect else []
    for code, words in notices:
        if code not in ("column_unknown", "column_not_sent") and not is_doubt(code):
            screen.say(f"Note: {words}")
    if preview is None:
        return
    _show_customers(screen, api, preview)
    rows = [
        (
            problem["title"],
            problem["rows"],
            _first(problem, "first_lines"),
            _first(problem, "first_rows"),
        )
        for problem in preview["problems"][:SHOWN_ROWS]
    ]
    if rows:
        screen.say()
        screen.table(("Problem", "Rows", "Lines of the file", "Row numbers"), rows)
        screen.remedies((p["code"], p["remedy"]) for p in preview["problems"] if p["severity"] == "error")
    found_doubts = doubts(
        unused=dialect["columns_unused"] if dialect else (),
        notices=notices,
        remarks=[(p["code"], f"{p['title']}.", p["rows"]) for p in preview["problems"]],
        invalid=counts["invalid"],
    )
    show_doubts(screen, found_doubts, "Check this before you order")
    screen.say()


def _first(problem: JsonObject, which: str) -> str:
    """Lines of a problem's first rows. Older APIs do not have them."""
    shown = problem.get(which, [])
    more = " ..." if shown and problem["rows"] > len(shown) else ""
    return ", ".join(map(number, shown)) + more


def _show_customers(screen: Screen, api: Api, preview: JsonObject) -> None:
    tags = preview["group_tags"][:SHOWN_ROWS]
    if not tags:
        return
    names = customer_names(api, sorted({tag["customer_id"] for tag in tags}))
    rows = [(names[tag["customer_id"]], tag["group_tag"], tag["devices"], tag["batches"]) for tag in tags]
    screen.say()
    screen.table(("Customer", "Group tag", "Devices", "Batches"), rows)
    if preview["group_tags_total"] > len(tags):
        screen.say(f"... and {amount(preview['group_tags_total'] - len(tags), 'more group tag')}.")


def _write_errors(screen: Screen, api: Api, found: JsonObject, target: Path) -> None:
    try:
        with target.open("wb") as stream:
            write: Callable[[bytes], object] = stream.write
            api.save(f"/v1/imports/{found['id']}/errors.csv", write)
    except OSError as error:
        raise Stop(f"{target} cannot be written: {error.strerror}.") from None
    rows = f"{amount(found['counts']['invalid'], 'row')} to correct: {target}."
    columns = (found["dialect"] or {}).get("columns", ())
    if not any(each["field"] == "hardware_hash" for each in columns) or _shows_hashes(api):
        screen.say(f"{rows} Then import that file.")
    else:
        screen.say(f"{rows} Its hashes are left out, because your API key lacks the scope {HASHES_READ}.")
        screen.say("Correct the file with a key that has it: without their hashes these are other rows.")
