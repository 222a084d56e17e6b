"""The API's checks of an order before anything goes to Microsoft, shown by line of the file.

The same for a dry run and for an accepted order: what is valid, how it is grouped, which devices are invalid
and why. The API names rows by their number in the order; people look them up by the file's line.
"""

from collections import Counter

from app.cli.api_client import JsonObject
from app.cli.device_file import Part
from app.cli.screen import SHOWN_ROWS, Screen, amount, field_words, number
from app.domain.catalogue import lookup


def show_preview(screen: Screen, part: Part, preview: JsonObject) -> None:
    counts = preview["counts"]
    valid = counts["total"] - counts["invalid"]
    batches = preview["batches"]
    tags = Counter[str]()
    for batch in batches:
        tags[batch["group_tag"]] += batch["devices"]
    screen.facts(
        [
            ("Valid", amount(valid, "device")),
            ("Invalid", amount(counts["invalid"], "device")),
            *((f"Group tag {tag}", amount(count, "device")) for tag, count in tags.items()),
            # Older APIs do not say.
            ("Files to upload" if preview.get("portal") else "Calls to Microsoft", number(len(batches))),
        ]
    )
    _show_problems(screen, part, preview, counts["invalid"])


def _show_problems(screen: Screen, part: Part, preview: JsonObject, invalid: int) -> None:
    bad = [row for row in preview["problems"] if not row["valid"]]
    found = [
        (problem, finding)
        for problem in bad[:SHOWN_ROWS]
        for finding in problem["findings"]
        if finding["severity"] == "error"
    ]
    own_lines = any(row.device["line_ref"] != str(row.number) for row in part.rows)
    rows = [
        (
            row.line if (row := part.row_of(problem["row"])) else None,
            row.number if row else problem["row"],
            *((problem["line_ref"],) if own_lines else ()),
            field_words(finding["field"]),
            finding["detail"],
        )
        for problem, finding in found
    ]
    if rows:
        screen.say()
        own = ("Line reference",) if own_lines else ()
        screen.table(("Line", "Row", *own, "Field", "What is wrong"), rows)
    shown = min(len(bad), SHOWN_ROWS)
    if invalid > shown:
        screen.say(f"... and {amount(invalid - shown, 'more invalid device')}.")
    screen.remedies((finding["code"], finding["remedy"]) for _, finding in found)
    remarks = Counter(
        finding["code"]
        for problem in preview["problems"]
        for finding in problem["findings"]
        if finding["severity"] == "warning"
    )
    for code, count in remarks.items():
        screen.say(f"Note, {amount(count, 'device')}: {lookup(code).title}.")
    screen.say()
