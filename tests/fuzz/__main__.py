"""`make fuzz`: runs every harness for some seconds and ends with 1 if one of them finds something.

An input that breaks a harness is left in a file whose name is printed; give it to the harness with
`python -m tests.fuzz --one NAME FILE`.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.harnesses import HARNESSES, seeds

LONGEST_INPUT = 16_384


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for each harness")
    parser.add_argument("--one", choices=HARNESSES, help="only this one, with libFuzzer's own arguments")
    chosen, arguments = parser.parse_known_args()
    if chosen.one:
        return _fuzz(chosen.one, arguments)
    failed = [name for name in HARNESSES if _in_a_process(name, chosen.seconds) != 0]
    sys.stdout.write(f"{', '.join(failed)} failed.\n" if failed else "Nothing was found.\n")
    return 1 if failed else 0


def _in_a_process(name: str, seconds: int) -> int:
    with tempfile.TemporaryDirectory(prefix="registrar-fuzz-") as directory:
        for number, seed in enumerate(seeds(name)):
            Path(directory, f"seed-{number}").write_bytes(seed)
        command = [
            *(sys.executable, "-m", "tests.fuzz", "--one", name, f"-max_total_time={seconds}"),
            *(f"-max_len={LONGEST_INPUT}", "-timeout=20", "-rss_limit_mb=1024", "-print_final_stats=1"),
            *(f"-artifact_prefix={tempfile.gettempdir()}/registrar-{name}-", directory),
        ]
        sys.stdout.write(f"{name}: {seconds} s\n")
        sys.stdout.flush()
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    told = [line for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed")]
    sys.stdout.write("\n".join(told) + "\n")
    if done.returncode:
        sys.stdout.write(done.stdout[-3000:] + done.stderr[-6000:])
    return done.returncode


def _fuzz(name: str, arguments: list[str]) -> int:
    import atheris

    with atheris.instrument_imports(include=["app.intake", "app.domain"]):
        for module in [each for each in sys.modules if each.startswith(("app.intake", "app.domain"))]:
            del sys.modules[module]
        sys.modules.pop("tests.fuzz.harnesses", None)
        from tests.fuzz import harnesses
    atheris.Setup([sys.argv[0], *arguments], harnesses.HARNESSES[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
