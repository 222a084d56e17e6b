"""Runs all benchmarks (`make bench`) and prints the tables of docs/benchmarks.md, with bounds."""

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import backlog, fairness, imports, intake, pipeline, reading, whole

BENCHMARKS: dict[str, Callable[[Path], Any]] = {
    "reading": reading.run,
    "intake": intake.run,
    "imports": imports.run,
    "pipeline": pipeline.run,
    "whole": whole.run,
    "fairness": fairness.run,
    "backlog": backlog.run,
    "largest": imports.run_largest,
}
WHEN_ASKED_FOR = {"largest"}


def main() -> int:
    chosen = sys.argv[1:] or [name for name in BENCHMARKS if name not in WHEN_ASKED_FOR]
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        sys.stderr.write(f"No such benchmark: {', '.join(unknown)}. There are {', '.join(BENCHMARKS)}.\n")
        return 1
    say = sys.stdout.write
    say(f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}, ")
    say(f"{time.strftime('%Y-%m-%d')}, load {os.getloadavg()[0]:.1f} at the start\n")
    for name in chosen:
        with tempfile.TemporaryDirectory(prefix=f"registrar-bench-{name}-") as directory:
            found = BENCHMARKS[name](Path(directory))
        say(f"\n{name}\n{json.dumps(_rounded(found), indent=2)}\n")
        sys.stdout.flush()
    return 0


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
