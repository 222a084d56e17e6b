"""Exit codes of commands, and the message of one that cannot go on.

Scripts rely on the codes, so they are decided in one place: help text and documents are made from, or
compared with, EXIT_CODES. A command ends early only by `Stop`, which says what to do and never has a hash or
a key.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from app.domain.catalogue import CATALOGUE, lookup
from app.domain.order import OrderState
from app.domain.registration import SUCCESS


class ExitCode(IntEnum):
    DONE = 0  # all registered, or the request is complete
    ERROR = 1  # the server, the credentials, the file or the way the command was called
    PARTIAL = 2  # some devices were invalid or failed
    WAITING = 3  # the customer's consent is missing, or an upload at a portal
    REFUSED = 4  # nothing was valid, or all of it was refused: nothing was sent
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
"""Every exit code with its meaning, as shown by `registrar --help` and docs/command-line.md."""

_CODES: Final[Mapping[int, str]] = {
    ExitCode.REFUSED: "command_refused",
    ExitCode.INTERRUPTED: "command_interrupted",
}
"""The catalogue's codes for a Stop without a code."""


class Stop(Exception):
    """The command cannot go on. `words` say why, the lines of `advice` what to do."""

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
        """A code of the catalogue, for programs."""
        self.words = words
        self.advice = advice
        self.code = code
        self.errors = errors
        """Entries of a problem's `errors`, as the API has them."""

    def document(self) -> dict[str, Any]:
        """The document that `--json` prints."""
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


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turns what opening or reading a file raises into a Stop."""
    try:
        yield
    except FileNotFoundError:
        raise Stop(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise Stop(f"{path} is a directory; give the file inside it.") from None
    except OSError as error:
        raise Stop(f"{path} cannot be read: {error.strerror or error}.") from None


def waits_for_a_person(order: Mapping[str, Any]) -> bool:
    """Whether its files are uploaded by hand. Older APIs do not say."""
    return bool(order.get("portal")) and order["state"] == OrderState.IN_PROGRESS


def judge_order(order: Mapping[str, Any]) -> ExitCode:
    """The exit code for an order as the API shows it."""
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
    """The exit code after one look at an order, which may be waiting for somebody. Older APIs do not say."""
    code = judge_order(order)
    stuck = any(reason["advice"] == "person" for reason in order.get("waiting_for") or ())
    moves = order["state"] == OrderState.IN_PROGRESS and code is not ExitCode.WAITING
    return ExitCode.STILL_WAITING if moves and stuck else code


def judge_followed(order: Mapping[str, Any]) -> ExitCode:
    """The exit code after watching an order. If it is not over, the time was up."""
    code = judge_order(order)
    moves = order["state"] == OrderState.IN_PROGRESS and code is not ExitCode.WAITING
    return ExitCode.STILL_WAITING if moves else code


def combine(codes: Collection[ExitCode]) -> ExitCode:
    """One code for several orders: theirs if they agree, otherwise the most urgent."""
    if len(set(codes)) == 1:
        return next(iter(codes))
    for first in (ExitCode.WAITING, ExitCode.STILL_WAITING):
        if first in codes:
            return first
    return ExitCode.PARTIAL
