"""`make attacks`: B alone, then beside each attack, then beside all of them at once, as a table.

Exit status: 0 B stayed within its bounds everywhere, 1 it did not, 2 nothing could be started.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app.local.embedded import EmbeddedUnavailable
from app.local.processes import StackFailed
from tests.attacks.attack import Attack, attacks
from tests.attacks.stage import Outcome, open_stage
from tests.benchmarks.world import percentile

COLUMNS = (
    "A",
    "B: GET p50",
    "B: GET p95",
    "B: order sent p95",
    "B: webhook p95",
    "B: webhooks missing",
    "peaks: API, intake, worker",
    "A was answered",
)
BOUNDS = {"GET p95": 0.050, "order p95": 2.0, "webhook p95": 2.0}
"""Seconds of B while A attacks."""


def main() -> int:
    known = attacks()
    arguments = _arguments()
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        sys.stderr.write(f"No such attack: {', '.join(unknown)}. There are {', '.join(known)}.\n")
        return 2
    chosen = [known[name] for name in arguments.names or known]
    _say(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, {arguments.seconds:g} s each")
    _say(f"\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    rows: list[tuple[str, Sequence[Attack]]] = [("does nothing", [])]
    if not arguments.together:
        rows += [(f"{attack.name}: {attack.words}", [attack]) for attack in chosen]
    if len(chosen) > 1 or arguments.together:
        rows.append(("all of these at once", chosen))
    try:
        good = [_run(words, each, arguments.seconds, arguments.keep) for words, each in rows]
    except (StackFailed, EmbeddedUnavailable) as failed:
        sys.stderr.write(f"{failed}\n")
        return 2
    _say("" if all(good) else "\nB left its bounds where a line says so.")
    return 0 if all(good) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("names", nargs="*", help="these attacks; all by default")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each goes on")
    parser.add_argument("--together", action="store_true", help="only all of them at once")
    parser.add_argument("--keep", action="store_true", help="keep logs and database")
    return parser.parse_args()


def _run(words: str, chosen: Sequence[Attack], seconds: float, keep: bool) -> bool:
    """Each line has its own processes, so that one attack does not affect the next."""
    directory = Path(tempfile.mkdtemp(prefix="registrar-attack-"))
    try:
        with open_stage(directory) as stage:
            outcome = stage.run(chosen, seconds)
    finally:
        if keep:
            _say(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    figures = _figures(outcome)
    over = [name for name, bound in BOUNDS.items() if figures[name] > bound]
    strange = {said: n for said, n in outcome.measured.answers.items() if not said.startswith("2")}
    remarks = [f"**over its bound: {name}**" for name in over]
    remarks += [f"**B: {n} x {said}**" for said, n in strange.items()]
    cells = [
        words,
        f"{1000 * figures['GET p50']:.0f} ms",
        f"{1000 * figures['GET p95']:.0f} ms",
        f"{figures['order p95']:.2f} s",
        f"{figures['webhook p95']:.2f} s",
        str(outcome.measured.missing_webhooks),
        ", ".join(f"{peak:.0f}" for peak in outcome.peaks.values()) + " MB",
        " ".join([_answered(outcome), *remarks]),
    ]
    _say(f"| {' | '.join(cells)} |")
    return not over and not strange and not outcome.measured.missing_webhooks


def _answered(outcome: Outcome) -> str:
    several = len(outcome.answers) > 1
    return "; ".join(
        (f"{name}: " if several else "") + ", ".join(f"{n} x {said}" for said, n in answers.most_common(6))
        for name, answers in outcome.answers.items()
    )


def _figures(outcome: Outcome) -> dict[str, float]:
    measured = outcome.measured
    return {
        "GET p50": percentile(list(measured.gets), 0.5),
        "GET p95": percentile(list(measured.gets), 0.95),
        "order p95": percentile(list(measured.orders), 0.95),
        "webhook p95": percentile(list(measured.webhooks), 0.95),
    }


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
