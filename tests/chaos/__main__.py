"""`python -m tests.chaos`: runs seeds one after another and prints what came of them.

Exit status: 0 all zeros are zero, 1 one is not, 2 nothing could be started, 3 a run hung.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from app.local.embedded import EmbeddedUnavailable
from app.local.processes import StackFailed
from tests.chaos.run import Result, run
from tests.chaos.schedule import plan
from tests.chaos.verdict import ZEROS


def main() -> int:
    arguments = _arguments()
    seeds = [arguments.seed] if arguments.seed is not None else list(range(1, arguments.seeds + 1))
    if arguments.show:
        for seed in seeds:
            _show(seed)
        return 0
    begun, results = time.monotonic(), []
    for seed in seeds:
        try:
            result = run(
                seed, devices=arguments.devices, customers=arguments.customers, say=_say, keep=arguments.keep
            )
        except (StackFailed, EmbeddedUnavailable) as failed:
            _say(str(failed))
            return 2
        results.append(result)
        _report(result)
    _summarise(results, time.monotonic() - begun)
    return 0 if all(result.good for result in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="run seeds 1 to N")
    parser.add_argument("--seed", type=int, help="run this seed alone")
    parser.add_argument("--devices", type=int, default=20_000)
    parser.add_argument("--customers", type=int, default=40)
    parser.add_argument("--keep", action="store_true", help="keep logs and database of good runs too")
    parser.add_argument("--show", action="store_true", help="print the schedules, run nothing")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _show(seed: int) -> None:
    schedule = plan(seed, upstream_timeout_s=3, lease_s=10)
    _say(f"seed {seed}: {schedule.switches}")
    for step in schedule.steps:
        _say(f"  after {step.pause:4.2f} s  {step.what}  {', '.join(step.victims)}")


def _report(result: Result) -> None:
    verdict = result.verdict
    mode = "deduplicates" if result.deduplicates else "does not deduplicate"
    _say(f"seed {result.seed}: {result.seconds:.0f} s, upstream {mode}, {result.orders} orders accepted")
    for name, words in ZEROS.items():
        _line(words, verdict.zeros[name], "" if not verdict.zeros[name] else "  <-- must be 0")
        for example in verdict.examples.get(name, ()):
            _say(f"      {example}")
    _line("devices registered", verdict.registered)
    _line("unknown outcomes, visible and with an event", verdict.unknown)
    _line("upstream submissions repeated", verdict.repeated_uploads)
    _line(
        "orders sent again by their callers", result.repetitions, f"  ({result.replays} answered as before)"
    )
    _line("webhooks repeated", verdict.repeated_webhooks)
    _line("longest recovery time", f"{verdict.recovery:.1f} s", f"  ({verdict.recovery_of})")
    _line("accidents that hit their moment", sum(result.hits.values()), _missed(result))
    for note in result.notes:
        _say(f"  {note}")
    if result.kept is not None:
        _say(f"  logs, database and papers: {result.kept}")
        _say(f"  again: python -m tests.chaos --seed {result.seed}")


def _line(words: str, value: object, remark: str = "") -> None:
    _say(f"  {words:<52} {value!s:>8}{remark}")


def _missed(result: Result) -> str:
    return f"  (missed: {', '.join(result.missed)})" if result.missed else ""


def _summarise(results: list[Result], seconds: float) -> None:
    zeros: Counter[str] = Counter()
    for result in results:
        zeros.update(result.verdict.zeros)
    bad = [str(result.seed) for result in results if not result.good]
    _say(f"\n{len(results)} seeds in {seconds:.0f} s")
    for name, words in ZEROS.items():
        _line(words, zeros[name])
    _line("devices registered", sum(result.verdict.registered for result in results))
    _line("unknown outcomes, visible and with an event", sum(result.verdict.unknown for result in results))
    _line("webhooks repeated", sum(result.verdict.repeated_webhooks for result in results))
    longest = max(results, key=lambda result: result.verdict.recovery)
    _line("longest recovery time", f"{longest.verdict.recovery:.1f} s", f"  (seed {longest.seed})")
    _say(f"FAILED: seeds {', '.join(bad)}" if bad else "All zeros are zero.")


if __name__ == "__main__":
    sys.exit(main())
