"""`registrar submit`: turns a file with devices into orders.

It says what it read before it sends anything, refuses what it cannot be sure of, asks at a terminal before it
leaves something out or uses a guess, and names rows by their line in the file. Reference and Idempotency-Key
are made from the file's content, so sending the same file again after any failure does no harm.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from app.cli.api_client import Answer, Api, ApiRefusal, JsonObject
from app.cli.customers import find_customer, look_for_customer
from app.cli.device_file import (
    DeviceFile,
    EncodingName,
    Part,
    body_of,
    columns_unused,
    cut,
    default_reference,
    known_encoding,
    open_file,
)
from app.cli.dialect_words import show_dialect
from app.cli.doubts import doubts, is_doubt, show_doubts
from app.cli.following import Timeout, watch
from app.cli.outcome import ExitCode, Stop, combine, judge_followed, judge_order
from app.cli.preview import show_preview
from app.cli.results import NEEDS_ATTENTION, WENT_WRONG, conclude, devices_in
from app.cli.screen import SHOWN_ROWS, Screen, amount, number
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
from app.domain.catalogue import lookup
from app.intake.rows import Wanted

app = typer.Typer()

ELSEWHERE: Final = frozenset({"registered_for_other_customer", "duplicate_open_elsewhere"})
"""Findings of the API to show before devices are sent."""


@app.command("submit", rich_help_panel=ORDERS_PANEL)
def submit(
    ctx: typer.Context,
    file: Annotated[
        str, typer.Argument(help="A file of a collector, a supplier or a portal; `-` reads stdin.")
    ],
    customer: Annotated[
        str | None,
        typer.Option(
            help="The customer's id, Entra tenant, domain or name. Default: the one the file names."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Your own number for the order. Default: from the file's name and content."),
    ] = None,
    group_tag: Annotated[
        str | None, typer.Option(help="For devices without a group tag. Default: the customer's.")
    ] = None,
    purchase_order: Annotated[str | None, typer.Option(help="Default: the one the file names.")] = None,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Check everything, send nothing.")
    ] = False,
    reject_invalid: Annotated[
        bool, typer.Option("--reject-invalid", help="Order nothing if one device is invalid.")
    ] = False,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Send the rest when rows cannot be read.")
    ] = False,
    sheet: SheetName = None,
    include_hidden: IncludeHidden = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Send without asking, even if something is left out or guessed."),
    ] = False,
    encoding: EncodingName = None,
    follow: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow the order to its end.")] = True,
    timeout: Timeout = None,
    api_url: ApiUrl = DEFAULT_URL,
    api_key: ApiKey = None,
    json: Json = False,
) -> int:
    """Register the devices of a file for a customer.

    Ends with 0 when all are registered, 1 on an error, 2 when some are
    invalid, failed or left out, 3 when they wait for the customer's consent, 4
    when nothing was valid or all was refused, 5 when they are not over
    after --timeout.

    With --no-watch, 0 means that the
    order is accepted and every device in it is valid.
    """  # fmt: skip
    screen = Screen(json=json)
    devices = open_file(file, Wanted(sheet, include_hidden, known_encoding(encoding)))
    show_file(screen, devices)
    with surroundings(ctx).api(api_url, api_key) as api:
        _check_rows(screen, devices, skip_unreadable)
        target = _customer(screen, api, devices, customer)
        terms = {
            "customer_id": target["id"],
            "purchase_order": purchase_order or _purchase_order(screen, devices),
            "group_tag": group_tag,
            "on_invalid": "reject" if reject_invalid else "accept_valid",
        }
        parts = cut(devices, reference or default_reference(devices))
        screen.say()
        if validate_only:
            return _validate(screen, api, devices, target, parts, terms)
        if reject_invalid and len(parts) > 1:
            # One bad device refuses all parts, including earlier ones.
            for part in parts:
                _post(api, part, terms, validate_only=True)
        ask = None if yes or json else surroundings(ctx).someone_to_ask()
        if ask is None:
            _warn(screen, devices)
        else:
            _ask(screen, api, devices, target, parts, terms, ask)
        answers = _send(screen, api, parts, terms)
        for part, answer in zip(parts, answers, strict=True):
            _show_accepted(screen, part, answer, target, preview=ask is None)
        orders = [answer.body for answer in answers]
        if follow:
            orders = watch(screen, api, [_order_of(api, answer) for answer in answers], timeout=timeout)
            conclude(screen, api, orders, WENT_WRONG, parts)
        elif not json:
            for order in orders:
                screen.say(f"Follow it with `registrar watch {order['id']}`.")
        code = _judge(orders, devices, followed=follow)
        if json:
            _document(screen, api, devices, target, orders, code)
    return code


# --- what the file says ---------------------------------------------------------------------------


def show_file(screen: Screen, file: DeviceFile) -> None:
    """Prints what was found in the file."""
    show_dialect(screen, file.name, file.dialect, file.row_count)
    for (code, words), count in file.remarks.items():
        if not is_doubt(code):
            screen.say(f"Note, {amount(count, 'row')}: {words}")


def _doubts(file: DeviceFile, invalid: int = 0) -> list[str]:
    return doubts(
        unused=columns_unused(file.dialect),
        notices=[(notice.code, notice.words) for notice in file.dialect.notices],
        remarks=[(code, words, count) for (code, words), count in file.remarks.items()],
        unreadable=len(file.unreadable),
        invalid=invalid,
    )


def _warn(screen: Screen, file: DeviceFile) -> None:
    if found := _doubts(file):
        show_doubts(screen, found, "Before it is sent")
        screen.say()


def _ask(
    screen: Screen,
    api: Api,
    file: DeviceFile,
    customer: JsonObject,
    parts: Sequence[Part],
    terms: Mapping[str, Any],
    ask: Callable[[str], bool],
) -> None:
    """Lets the API check the order, prints doubts, and asks if there are any. Raises Stop for a no."""
    previews = [_post(api, part, terms, validate_only=True).body for part in parts]
    for part, preview in zip(parts, previews, strict=True):
        show_preview(screen, part, preview)
    invalid = sum(preview["counts"]["invalid"] for preview in previews)
    found = [*_doubts(file, invalid), *_elsewhere(previews)]
    if not found:
        return
    show_doubts(screen, found, "Before it is sent")
    screen.say()
    valid = sum(preview["counts"]["total"] for preview in previews) - invalid
    if not ask(f"Send {amount(valid, 'device')} for {customer['name']}?"):
        raise Stop("Nothing was sent.", code=ExitCode.REFUSED)


def _elsewhere(previews: Sequence[JsonObject]) -> list[str]:
    """Prints devices of other orders or customers, which hint at a file for the wrong customer."""
    found = [
        finding
        for preview in previews
        for problem in preview["problems"]
        for finding in problem["findings"]
        if finding["code"] in ELSEWHERE
    ]
    counts = Counter(finding["code"] for finding in found)
    examples = {finding["code"]: finding["detail"] for finding in reversed(found)}
    return [
        f"{amount(count, 'device')}: {lookup(code).title}. For example: {examples[code]}"
        for code, count in counts.items()
    ]


def _check_rows(screen: Screen, file: DeviceFile, skip: bool) -> None:
    """Raises Stop for unreadable rows, unless the others may be sent without them."""
    bad = file.unreadable
    if bad:
        screen.say()
        screen.say(f"{amount(len(bad), 'row')} cannot be read reliably:", style="bold")
        rows = [(row.line, row.number, " ".join(row.reasons)) for row in bad[:SHOWN_ROWS]]
        screen.table(("Line", "Row", "Why"), rows)
        if len(bad) > SHOWN_ROWS:
            screen.say(f"... and {number(len(bad) - SHOWN_ROWS)} more.")
    if not file.rows:
        raise Stop("The file has no device that can be sent.", code=ExitCode.REFUSED)
    if bad and not skip:
        raise Stop(
            "Nothing was sent.",
            f"Correct them, or send the {amount(len(file.rows), 'other device')} with --skip-unreadable.",
            code=ExitCode.REFUSED,
        )


def _customer(screen: Screen, api: Api, file: DeviceFile, wanted: str | None) -> JsonObject:
    """The customer of --customer or of the file. Raises Stop if they differ."""
    if len(file.customers) > 1:
        raise Stop(
            f"The file names {len(file.customers)} customers; an order is for one.",
            "Cut the file by its customer column and submit each part.",
            code=ExitCode.REFUSED,
        )
    named = file.customers[0] if file.customers else None
    if wanted is None and named is None:
        raise Stop("The customer is not known.", "Name the customer with --customer.")
    target = find_customer(api, wanted or named or "")
    if wanted is None or named is None:
        return target
    meant = look_for_customer(api, named)
    if any(customer["id"] == target["id"] for customer in meant):
        return target
    if meant:
        raise Stop(
            f"The file is for {meant[0]['name']}, but --customer says {target['name']}.",
            "Nothing was sent. Correct one of the two: a device with the wrong owner is hard to get back.",
            code=ExitCode.REFUSED,
        )
    screen.say(f"Note: The file says '{named}', which is no customer here; --customer says {target['name']}.")
    return target


def _purchase_order(screen: Screen, file: DeviceFile) -> str | None:
    if len(file.purchase_orders) > 1:
        screen.say(
            f"Note: The file names {len(file.purchase_orders)} purchase orders and an order has one. None is "
            "sent. Choose one with --purchase-order."
        )
        return None
    return file.purchase_orders[0] if file.purchase_orders else None


# --- sending --------------------------------------------------------------------------------------


def _post(api: Api, part: Part, terms: Mapping[str, Any], *, validate_only: bool = False) -> Answer:
    """Sends a part. Raises Stop if it is refused, with lines of the file instead of rows of the order."""
    body = body_of(part, {**terms, "validate_only": validate_only})
    key = None if validate_only else f"{part.reference[:100]}/{hashlib.sha256(body).hexdigest()}"
    try:
        return api.post("/v1/orders", body, key=_ascii(key), repeatable=validate_only)
    except ApiRefusal as refusal:
        raise _refused(part, refusal) from None


def _ascii(key: str | None) -> str | None:
    return None if key is None else "".join(c if " " < c <= "~" else "_" for c in key)


def _refused(part: Part, refusal: ApiRefusal) -> Stop:
    if refusal.status not in (409, 413, 422) or refusal.problem_code == "quota_exceeded":
        return refusal  # the file is as it should be
    words, advice = refusal.words, list(refusal.advice)
    order_id = refusal.links.get("order") or refusal.links.get("order_id")
    if refusal.problem_code == "reference_taken":
        advice = list(refusal.advice[:1])
        if order_id:
            advice.append(f"`registrar watch {order_id}` follows the existing order.")
        advice.append("If this is a new order, give it another --reference.")
    elif refusal.problem_code == "order_rejected":
        words, advice = (
            refusal.detail,
            ["Correct the lines, or leave out --reject-invalid to send the valid devices."],
        )
    errors = [_by_line(part, error) for error in refusal.errors]
    return Stop(words, *advice, code=ExitCode.REFUSED, errors=errors, error_code=refusal.error_code)


def _by_line(part: Part, error: Mapping[str, Any]) -> Mapping[str, Any]:
    row = part.row_of(error["row"]) if error.get("row") else None
    return error if row is None else {**error, "line": row.line, "row": row.number}


def _send(screen: Screen, api: Api, parts: Sequence[Part], terms: Mapping[str, Any]) -> list[Answer]:
    answers: list[Answer] = []
    for part in parts:
        try:
            answers.append(_post(api, part, terms))
        except Stop as stop:
            if not answers:
                raise
            taken = ", ".join(answer.body["reference"] for answer in answers)
            again = f"Accepted before that: {taken}. The same command goes on from here."
            raise Stop(
                stop.words,
                *stop.advice,
                again,
                code=stop.code,
                errors=stop.errors,
                error_code=stop.error_code,
            ) from None
    return answers


def _order_of(api: Api, answer: Answer) -> JsonObject:
    """The order as it is now. A replayed answer shows it as it was when accepted."""
    return api.get(f"/v1/orders/{answer.body['id']}").body if answer.replayed else answer.body


def _show_accepted(
    screen: Screen, part: Part, answer: Answer, customer: JsonObject, *, preview: bool
) -> None:
    order = answer.body
    taken = "was accepted before; nothing is sent twice" if answer.replayed else "is accepted"
    screen.say(f"Order {order['reference']} for {customer['name']} {taken}.", style="bold")
    screen.facts([("Id", order["id"])])
    if preview:
        show_preview(screen, part, order["preview"])


# --- the end --------------------------------------------------------------------------------------


def _validate(
    screen: Screen,
    api: Api,
    file: DeviceFile,
    customer: JsonObject,
    parts: Sequence[Part],
    terms: Mapping[str, Any],
) -> int:
    previews = [_post(api, part, terms, validate_only=True).body for part in parts]
    for part, preview in zip(parts, previews, strict=True):
        screen.say(f"Order {part.reference} for {customer['name']} would be:", style="bold")
        show_preview(screen, part, preview)
    total = sum(preview["counts"]["total"] for preview in previews)
    invalid = sum(preview["counts"]["invalid"] for preview in previews)
    held = sum(preview["counts"]["held"] for preview in previews)
    if held:
        screen.say(f"{customer['name']} has not consented: {amount(held, 'device')} would wait for that.")
    show_doubts(screen, _doubts(file, invalid), "Check this before you send it")
    screen.say()
    screen.say("Only checked: nothing was sent.")
    if invalid == total:
        code = ExitCode.REFUSED
    else:
        code = ExitCode.PARTIAL if invalid or _leaves_out(file) else ExitCode.DONE
    if screen.json:
        screen.document({**_about(file, customer, code), "previews": previews})
    return code


def _judge(orders: Sequence[JsonObject], file: DeviceFile, *, followed: bool) -> ExitCode:
    code = combine([(judge_followed if followed else judge_order)(order) for order in orders])
    return ExitCode.PARTIAL if code is ExitCode.DONE and _leaves_out(file) else code


def _leaves_out(file: DeviceFile) -> bool:
    """Whether devices of the file are left out although no option says so."""
    return bool(file.unreadable) or file.dialect.omits


def _document(
    screen: Screen,
    api: Api,
    file: DeviceFile,
    customer: JsonObject,
    orders: Sequence[JsonObject],
    code: ExitCode,
) -> None:
    attention = [row for order in orders for row in devices_in(api, order, NEEDS_ATTENTION)]
    screen.document({**_about(file, customer, code), "orders": orders, "attention": attention})


def _about(file: DeviceFile, customer: JsonObject, code: ExitCode) -> JsonObject:
    return {
        "exit_code": int(code),
        "customer_id": customer["id"],
        "file": {
            "name": file.name,
            "sha256": file.digest,
            "format": file.dialect.format,
            "kind": file.dialect.kind.value,
            "encoding": file.dialect.encoding,
            "sheet": file.dialect.sheet,
            "notices": [
                {"code": notice.code, "column": notice.column, "detail": notice.words}
                for notice in file.dialect.notices
            ],
            "rows": file.row_count,
            "columns": [{"name": name, "field": field} for name, field in file.dialect.columns],
            "unreadable": [
                {"row": row.number, "line": row.line, "reasons": row.reasons} for row in file.unreadable
            ],
        },
    }
