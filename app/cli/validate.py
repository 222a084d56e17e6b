"""`registrar validate`: checks a file on this machine, without a server, a database or settings.

So a supplier gets an answer before a customer exists. The checks are the service's own code; the output says
what only the service can check. The file is read row by row, so that its size does not matter: once, or twice
if only a later row shows that an earlier one is a duplicate.
"""

import json as json_format
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, BinaryIO, Final, cast

import typer

from app.cli.api_client import JsonObject
from app.cli.device_file import STDIN, EncodingName, columns_unused, known_encoding
from app.cli.dialect_words import show_dialect
from app.cli.doubts import doubts, show_doubts
from app.cli.outcome import ExitCode, Stop, reading
from app.cli.screen import Screen, amount, field_words, number
from app.cli.surroundings import ORDERS_PANEL, IncludeHidden, Json, SheetName
from app.domain.catalogue import lookup
from app.domain.identity import IdentityKind, Rules
from app.domain.planning import OrderRules
from app.intake.bounds import CHUNK, MAX_BYTES
from app.intake.corrections import Corrections
from app.intake.dry_run import Review, Reviewed
from app.intake.problems import Problem
from app.intake.profiles import Profile, ProfileError
from app.intake.rows import Dialect, UnreadableFile, Wanted, read

app = typer.Typer()

EXAMPLES: Final = 3
"""The most rows that are shown for each problem."""

KIND_WORDS: Final = {
    IdentityKind.HARDWARE_HASH: "by hardware hash",
    IdentityKind.PRODUCT_KEY: "by PKID",
    IdentityKind.TUPLE: "by serial number, manufacturer and model",
}


@dataclass(slots=True)
class _Problems:
    """The problems of a file by code and column, with the first rows of each."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[tuple[Reviewed, Problem]]] = field(default_factory=dict)

    def note(self, reviewed: Reviewed) -> None:
        for key, problem in {(p.code, p.column or ""): p for p in reviewed.problems}.items():
            self.counts[key] += 1
            shown = self.examples.setdefault(key, [])
            if len(shown) < EXAMPLES:
                shown.append((reviewed, problem))

    def __iter__(self) -> Iterator[tuple[Problem, int, list[tuple[Reviewed, Problem]]]]:
        """Errors first, the most frequent first."""
        found = [(self.examples[key][0][1], count, self.examples[key]) for key, count in self.counts.items()]
        yield from sorted(found, key=lambda entry: (not entry[0].is_error, -entry[1]))


@app.command("validate", rich_help_panel=ORDERS_PANEL)
def validate(
    file: Annotated[
        str, typer.Argument(help="A file of a collector, a supplier or a portal; `-` reads the input.")
    ],
    profile: Annotated[
        Path | None, typer.Option(help="The supplier's saved mapping, a JSON file.", show_default=False)
    ] = None,
    platform: Annotated[str, typer.Option(help="Where the devices would be registered.")] = "partner_center",
    group_tag: Annotated[
        str | None, typer.Option(help="For devices without a group tag, as with `registrar submit`.")
    ] = None,
    sheet: SheetName = None,
    include_hidden: IncludeHidden = None,
    encoding: EncodingName = None,
    errors: Annotated[
        Path | None,
        typer.Option(help="Write the invalid rows there, to be corrected and checked again."),
    ] = None,
    json: Json = False,
) -> int:
    """Check a file on this machine, without a server.

    Says what the file is, which columns are read, what is wrong with
    which row, and into which batches the rest would go. Ends with 0 when
    all rows are fine, 2 when some are invalid or left out, 4 when nothing
    is usable, 1 when the file cannot be read.
    """  # fmt: skip
    screen = Screen(json=json)
    order = _order_rules(platform, group_tag)
    mapping = _profile(profile)
    name = "standard input" if file == STDIN else Path(file).name
    now = datetime.now(UTC)
    wanted = Wanted(sheet, include_hidden, known_encoding(encoding))
    review = Review(order, now)
    with ExitStack() as stack:
        source = _open(stack, file)
        try:
            source = stack.enter_context(_rewindable(source))
            start = source.tell()
            dialect, problems = _review(review, source, mapping, wanted, file, errors)
            if late := review.late:
                source.seek(start)
                review = Review(order, now, late)
                dialect, problems = _review(review, source, mapping, wanted, file, errors)
        except UnreadableFile as error:
            raise Stop(f"{name} cannot be read.", error.words) from None
        except OSError as error:
            raise Stop(f"{error.filename or name}: {error.strerror}.") from None
    code = _judge(review, dialect)
    if json:
        screen.document(_document(name, platform, dialect, review, problems, code))
        return code
    show_dialect(screen, name, dialect, review.rows)
    _show(screen, review, problems, group_tag)
    show_doubts(screen, _doubts(review, dialect, problems), "Check this before you send it")
    screen.say()
    screen.say("Only checked, on this machine: nothing was sent.")
    if errors is not None and review.invalid:
        screen.say(f"{errors} has the invalid rows. Correct them there and send it as a separate file.")
    return code


def _review(
    review: Review,
    source: BinaryIO,
    profile: Profile | None,
    wanted: Wanted,
    file: str,
    errors: Path | None,
) -> tuple[Dialect, _Problems]:
    """All rows through `review`, the invalid ones into `errors`. Raises UnreadableFile."""
    problems = _Problems()
    corrections: Corrections | None = None
    dialect, rows = read(source, profile, wanted=wanted)
    with ExitStack() as stack:
        for row in rows:
            reviewed = review.judge(row)
            if reviewed.problems:
                problems.note(reviewed)
            if errors is not None and not reviewed.device.is_valid:
                corrections = corrections or _corrections(stack, errors, file, dialect, profile)
                corrections.add(row, reviewed.problems)
    return dialect, problems


def _order_rules(platform: str, group_tag: str | None) -> OrderRules:
    # Platforms import the HTTP client, which takes most of a second.
    from app.platforms.base import discover

    platforms = discover()
    if platform not in platforms:
        raise Stop(f"There is no platform {platform}.", f"There are {', '.join(platforms)}.")
    capabilities = platforms[platform].capabilities
    rules = Rules(capabilities.identities)
    if group_tag is not None and len(group_tag) > rules.max_group_tag:
        raise Stop(f"A group tag has at most {rules.max_group_tag} characters.")
    return OrderRules(rules, capabilities.max_devices, group_tag or "", capabilities.one_spelling)


def _profile(path: Path | None) -> Profile | None:
    if path is None:
        return None
    try:
        with reading(path):
            return Profile.accept(json_format.loads(path.read_bytes()))
    except ProfileError as error:
        raise Stop(f"The profile {path.name} is wrong at {error.pointer or '/'}.", error.words) from None
    except (ValueError, RecursionError):
        raise Stop(f"The profile {path.name} is not JSON.") from None


def _open(stack: ExitStack, path: str) -> BinaryIO:
    if path == STDIN:
        return typer.get_binary_stream("stdin")
    with reading(path):
        return stack.enter_context(Path(path).open("rb"))


@contextmanager
def _rewindable(source: BinaryIO) -> Iterator[BinaryIO]:
    """Opens the file so that it can be read twice. A pipe is copied to an unnamed temporary file."""
    if source.seekable():
        yield source
        return
    with TemporaryFile() as copy:
        # A larger file is refused, so the rest need not be copied.
        while copy.tell() <= MAX_BYTES and (piece := source.read(CHUNK)):
            copy.write(piece)
        copy.seek(0)
        yield cast(BinaryIO, copy)


def _corrections(
    stack: ExitStack, path: Path, source: str, dialect: Dialect, profile: Profile | None
) -> Corrections:
    if source != STDIN and path.exists() and path.samefile(source):
        raise Stop("The invalid rows would overwrite the file itself.", "Give --errors another name.")
    try:
        target = stack.enter_context(path.open("wb"))
    except OSError as error:
        raise Stop(f"{path} cannot be written: {error.strerror}.") from None
    return Corrections(target.write, dialect.columns, profile)


def _judge(review: Review, dialect: Dialect) -> ExitCode:
    if review.invalid >= review.rows:
        return ExitCode.REFUSED
    return ExitCode.PARTIAL if review.invalid or dialect.omits else ExitCode.DONE


# --- what a person reads --------------------------------------------------------------------------


def _show(screen: Screen, review: Review, problems: _Problems, group_tag: str | None) -> None:
    valid = review.valid.total()
    screen.say()
    screen.facts(
        [
            ("Valid", amount(valid, "device")),
            *(
                (f"  {KIND_WORDS[kind]}", number(review.valid[kind]))
                for kind in KIND_WORDS
                if review.valid[kind]
            ),
            ("Invalid", amount(review.invalid, "row")),
            ("With remarks", amount(review.with_warnings, "valid device")),
        ]
    )
    if valid:
        screen.say()
        tags = [
            ("(the customer's default)" if tag is None else tag, count, review.batches[tag])
            for tag, count in review.tags.most_common()
        ]
        screen.table(("Group tag", "Devices", "Batches"), tags[:50], whole=("Group tag",))
        if len(tags) > 50:
            screen.say(f"... and {number(len(tags) - 50)} more group tags.")
    if review.orders > 1:
        screen.say(f"`registrar submit` would make {number(review.orders)} orders of it.")
    _show_problems(screen, problems)


def _doubts(review: Review, dialect: Dialect, problems: _Problems) -> list[str]:
    return doubts(
        unused=columns_unused(dialect),
        notices=[(notice.code, notice.words) for notice in dialect.notices],
        remarks=[(problem.code, problem.detail, count) for problem, count, _ in problems],
        invalid=review.invalid,
    )


def _show_problems(screen: Screen, problems: _Problems) -> None:
    found = list(problems)
    if not found:
        return
    screen.say()
    rows = [
        (
            count if at == 0 else "",
            (problem.severity.value if at == 0 else ""),
            (lookup(problem.code).title if at == 0 else ""),
            example.column or field_words(example.field or ""),
            reviewed.row.line,
            reviewed.row.number,
            example.value,
            example.detail,
        )
        for problem, count, examples in found
        for at, (reviewed, example) in enumerate(examples)
    ]
    screen.table(("Rows", "Severity", "Problem", "Column", "Line", "Row", "Value", "What is wrong"), rows)
    screen.remedies((problem.code, problem.remedy) for problem, _, _ in found if problem.is_error)


# --- what a program reads -------------------------------------------------------------------------


def _document(
    name: str, platform: str, dialect: Dialect, review: Review, problems: _Problems, code: ExitCode
) -> JsonObject:
    return {
        "exit_code": int(code),
        "platform": platform,
        "file": {
            "name": name,
            "format": dialect.format,
            "container": dialect.container,
            "sheet": dialect.sheet,
            "kind": dialect.kind.value,
            "encoding": dialect.encoding,
            "header_row": dialect.header_row,
            "columns": [{"name": name, "field": known} for name, known in dialect.columns],
            "notices": [
                {
                    "code": notice.code,
                    "severity": notice.severity.value,
                    "column": notice.column,
                    "detail": notice.words,
                    "remedy": lookup(notice.code).remedy,
                }
                for notice in dialect.notices
            ],
        },
        "counts": {
            "rows": review.rows,
            "valid": review.valid.total(),
            "invalid": review.invalid,
            "with_warnings": review.with_warnings,
        },
        "identities": {kind.value: review.valid[kind] for kind in KIND_WORDS},
        "orders": review.orders,
        "group_tags": [
            {"group_tag": tag, "devices": count, "batches": review.batches[tag]}
            for tag, count in review.tags.most_common()
        ],
        "problems": [_problem(problem, count, examples) for problem, count, examples in problems],
    }


def _problem(problem: Problem, count: int, examples: list[tuple[Reviewed, Problem]]) -> dict[str, Any]:
    return {
        "code": problem.code,
        "severity": problem.severity.value,
        "title": lookup(problem.code).title,
        "column": problem.column,
        "field": problem.field,
        "rows": count,
        "remedy": problem.remedy,
        "examples": [
            {
                "row": reviewed.row.number,
                "line": reviewed.row.line,
                "value": example.value,
                "detail": example.detail,
            }
            for reviewed, example in examples
        ],
    }
