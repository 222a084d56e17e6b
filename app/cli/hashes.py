"""`registrar hash`: what is inside a hardware hash, and what is wrong with it.

It explains the values and never prints the hash itself. It does show the identifiers in it, because that is
what the command is for, and says so.
"""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli.api_client import JsonObject
from app.cli.device_file import STDIN
from app.cli.outcome import ExitCode, Stop, reading
from app.cli.screen import Screen, amount
from app.cli.surroundings import ORDERS_PANEL, Json
from app.domain import hardware_hash
from app.domain.catalogue import Finding, lookup
from app.domain.hardware_hash import HardwareHash, HashError
from app.intake.rows import UnreadableFile, read

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a file in which a hash is looked for."""

app = typer.Typer()
hash_app = typer.Typer(no_args_is_help=False)
app.add_typer(hash_app, name="hash", help="Hardware hashes.", rich_help_panel=ORDERS_PANEL)


@hash_app.command("show")
def show(
    file: Annotated[
        str,
        typer.Argument(help="A file with a hash, or one with devices (CSV, .xlsx, OA3.xml); `-`: stdin."),
    ] = STDIN,
    row: Annotated[
        int, typer.Option(min=1, help="Which of the rows with a hash, in a file with devices.")
    ] = 1,
    json: Json = False,
) -> int:
    """Explain a hardware hash: its fields, whether it is whole, what is wrong.

    The hash itself is not printed, but the device's serial numbers, MAC
    addresses and other identifiers in it are: do not paste the output into
    a public place. Ends with 0 when the hash can be used, 4 when it
    cannot, 1 when none is found.
    """  # fmt: skip
    screen = Screen(json=json)
    text = _hash_in(_bytes(file), row)
    try:
        whole = hardware_hash.decode(text)
    except HashError as error:
        return _show_damage(screen, Finding(error.code, "hardware_hash", error.detail))
    findings = hardware_hash.findings(whole, now=datetime.now(UTC))
    code = ExitCode.REFUSED if any(finding.is_error for finding in findings) else ExitCode.DONE
    if json:
        screen.document(_document(whole, findings, code))
        return code
    screen.say(_verdict(whole, findings), style="bold")
    screen.say()
    screen.facts(
        (record.name if at == 0 else "", f"{name}: {value}" if name != "text" else value)
        for record in hardware_hash.explain(whole)
        for at, (name, value) in enumerate(record.values)
    )
    _show_findings(screen, findings)
    return code


def _verdict(whole: HardwareHash, findings: list[Finding]) -> str:
    if any(finding.is_error for finding in findings):
        return "The hash is whole, but Microsoft does not take it."
    return (
        "The hash was damaged and could be repaired without loss." if whole.repaired else "The hash is whole."
    )


def _show_damage(screen: Screen, finding: Finding) -> int:
    if screen.json:
        screen.document({"exit_code": int(ExitCode.REFUSED), "whole": False, "findings": [_told(finding)]})
    else:
        screen.say(f"{lookup(finding.code).title}.", style="bold")
        _show_findings(screen, [finding])
    return ExitCode.REFUSED


def _show_findings(screen: Screen, findings: list[Finding]) -> None:
    if findings:
        screen.say()
        screen.table(("Severity", "Notes"), [(f.severity.value, f.detail) for f in findings])
        screen.remedies((finding.code, lookup(finding.code).remedy) for finding in findings)


def _document(whole: HardwareHash, findings: list[Finding], code: ExitCode) -> JsonObject:
    return {
        "exit_code": int(code),
        "whole": True,
        "repaired": whole.repaired,
        "bytes": len(whole.data),
        "findings": [_told(finding) for finding in findings],
        "records": [
            {"type": record.kind, "name": record.name, "values": dict(record.values)}
            for record in hardware_hash.explain(whole)
        ],
    }


def _told(finding: Finding) -> JsonObject:
    entry = lookup(finding.code)
    return {
        "code": finding.code,
        "severity": entry.severity.value,
        "title": entry.title,
        "detail": finding.detail,
        "remedy": entry.remedy,
    }


def _bytes(path: str) -> bytes:
    with reading(path):
        if path == STDIN:
            data = typer.get_binary_stream("stdin").read(LARGEST + 1)
        else:
            with Path(path).open("rb") as stream:
                data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Stop("The input is too large to look for a hash in it.", "Give the hash alone.")
    return data


def _hash_in(data: bytes, wanted: int) -> str:
    """The text itself if it is a single value, otherwise the hash of a row."""
    text = data.decode("utf-8-sig", "replace")
    if text.lstrip().startswith("T0") and "," not in text and ";" not in text:
        return text
    try:
        _, rows = read(io.BytesIO(data))
        hashes = (found for each in rows if (found := each.fields.get("hardware_hash")) is not None)
        seen = 0
        for seen, found in enumerate(hashes, start=1):
            if seen == wanted:
                return found
    except UnreadableFile:
        if text.strip() and "\ufffd" not in text and len(text.split()) == 1:
            return text  # a single word: report what is wrong with it as a hash
        raise Stop(
            "There is no hardware hash in it.", "Give the hash alone, or a file with devices."
        ) from None
    if not seen:
        raise Stop("No row of the file has a hardware hash.")
    raise Stop(f"The file has only {amount(seen, 'row')} with a hardware hash.", "Give a lower --row.")
