"""The end of a command: its exit code, and its words when it cannot go on.

The codes are a promise to scripts that call `registrar`, so they are decided in one place: help text and
documents are made of, or compared with, EXIT_CODES. `Stop` is the only way a command ends early; it carries
what a person needs and never a hash or a key.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

from app.domain.catalogue import CATALOGUE, lookup
from app.domain.order import OrderState
from app.domain.registration import SUCCESS


class ExitCode(IntEnum):
    DONE = 0  # all registered, or the request is complete
    ERROR = 1  # the server, the credentials, the file or the way the command was called
    PARTIAL = 2  # some devices were invalid or failed
    WAITING = 3  # the customer's consent is missing, or a person's work at a portal
    REFUSED = 4  # nothing was valid, or the whole was refused: nothing was sent
    STILL_WAITING = 5  # not over: somebody has to act first, or the time of --timeout is up
    INTERRUPTED = 130


EXIT_CODES: Final[Mapping[int, str]] = {
    0: "done: all devices are registered, or the request is complete",
    1: "error: the server, the credentials, the file or the way the command was called",
    2: "partly: some devices are invalid, failed or were left out",
    3: "waiting for the customer's consent, or for an upload at a portal",
    4: "refused: nothing was valid, and nothing was sent",
    5: "not over: somebody has to act first, or the time of --timeout is up",
    130: "interrupted with Ctrl-C",
}
"""Every exit code with its meaning, as `registrar --help` and docs/command-line.md have it."""

_CODES: Final[Mapping[int, str]] = {
    ExitCode.REFUSED: "command_refused",
    ExitCode.INTERRUPTED: "command_interrupted",
}
"""Codes of the catalogue for a Stop that names none itself."""


class Stop(Exception):
    """The command cannot go on. `words` say why, `advice` (line by line) what to do."""

    def __init__(
        self,
        words: str,
        *advice: str,
        code: ExitCode = ExitCode.ERROR,
        errors: Sequence[Mapping[str, Any]] = (),
        error_code: str | None = None,
    ) -> None:
        super().__init__(words)
        self.error_code = error_code or _CODES.get(code, "command_failed")
        """A code of the catalogue: what a program decides by."""
        self.words = words
        self.advice = advice
        self.code = code
        self.errors = errors
        """Entries of a problem's `errors`, as the API has them."""

    def document(self) -> dict[str, Any]:
        """What a program is told with `--json`."""
        # A newer API may have codes that this program does not know.
        entry = lookup(self.error_code if self.error_code in CATALOGUE else "command_failed")
        return {
            "code": self.error_code,
            "title": entry.title,
            "detail": self.words,
            "remedy": " ".join(self.advice) or entry.remedy,
            "exit_code": int(self.code),
            "errors": [dict(error) for error in self.errors],
        }


def waits_for_a_person(order: Mapping[str, Any]) -> bool:
    """Its files are uploaded by hand, so nothing moves by itself. APIs before portal mode do not say."""
    return bool(order.get("portal")) and order["state"] == OrderState.IN_PROGRESS


def judge_order(order: Mapping[str, Any]) -> ExitCode:
    """What an order as the API shows it means for the exit code."""
    counts: Mapping[str, int] = order["counts"]
    if order["state"] == OrderState.HELD or waits_for_a_person(order):
        return ExitCode.WAITING
    if counts["total"] and counts["invalid"] == counts["total"]:
        return ExitCode.REFUSED
    if order["state"] == OrderState.IN_PROGRESS:
        return ExitCode.PARTIAL if counts["invalid"] else ExitCode.DONE
    succeeded = sum(counts[state] for state in SUCCESS)
    return ExitCode.DONE if succeeded == counts["total"] else ExitCode.PARTIAL


def judge_now(order: Mapping[str, Any]) -> ExitCode:
    """What one look at an order means: also whether it moves by itself. Older APIs do not say."""
    code = judge_order(order)
    stuck = any(reason["advice"] == "person" for reason in order.get("waiting_for") or ())
    moves = order["state"] == OrderState.IN_PROGRESS and code is not ExitCode.WAITING
    return ExitCode.STILL_WAITING if moves and stuck else code


def judge_followed(order: Mapping[str, Any]) -> ExitCode:
    """What an order means that was followed: one that is not over has been given up for now."""
    code = judge_order(order)
    moves = order["state"] == OrderState.IN_PROGRESS and code is not ExitCode.WAITING
    return ExitCode.STILL_WAITING if moves else code


def combine(codes: Collection[ExitCode]) -> ExitCode:
    """One code for several orders: theirs if they agree, else what needs a person most."""
    if len(set(codes)) == 1:
        return next(iter(codes))
    for first in (ExitCode.WAITING, ExitCode.STILL_WAITING):
        if first in codes:
            return first
    return ExitCode.PARTIAL
