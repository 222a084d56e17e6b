"""One attack in a process of its own: `python -m tests.attacks.program NAME AIM`.

AIM is the target as JSON. The program prints the answers that it got, counted, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time

from tests.attacks.attack import Target, attacks

LOWEST_PRIORITY = 19


def main() -> int:
    os.nice(LOWEST_PRIORITY)
    name, aim = sys.argv[1:]
    attack, given = attacks()[name], json.loads(aim)  # imported before its time begins
    target = Target(**{**given, "customers": tuple(given["customers"])}, begun=time.monotonic())
    json.dump(attack.run(target), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
