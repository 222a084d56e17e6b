"""The processes that an attack runs against, with the attacker's account and the neighbour's.

One API, one worker, PostgreSQL, Valkey and Microsoft's stand-in.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.kernel.child_processes import die_with_parent
from app.local import receiver as webhooks
from app.local.stack import ROOT, Stack
from tests.attacks.attack import Attack
from tests.attacks.neighbour import Measured, Neighbour, Receiver
from tests.benchmarks.world import family, peak_megabytes
from tests.chaos.scene import Account, open_scene

CUSTOMERS = 8
"""Four of A, four of B."""
GRACE = 60.0
"""Seconds an attack may wait after its time for the answers to what it has sent; then it is killed."""
ENVIRONMENT = {
    "REGISTRAR_LOG_LEVEL": "WARNING",
    # Microsoft's limits are not what is measured here.
    "REGISTRAR_BUDGET_START": "2000",
    "REGISTRAR_BUDGET_CEILING": "5000",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    measured: Measured
    answers: dict[str, Counter[str]]
    """The answers of each attack."""
    peaks: dict[str, float]
    """Highest resident memory in MB since the start, by process."""


@dataclass
class Stage:
    stack: Stack
    attacker: Account
    neighbour: Neighbour
    connection_id: str

    def run(self, attacks: Sequence[Attack], seconds: float) -> Outcome:
        """Measures B while all attacks run at the same time; alone if there are none."""
        programs = {attack.name: self._launch(attack, seconds) for attack in attacks}
        try:
            self.neighbour.begin()
            deadline = time.monotonic() + seconds
            answers = {name: _answers(program, deadline) for name, program in programs.items()}
            time.sleep(max(deadline - time.monotonic(), 0))
            measured = self.neighbour.end()
        finally:
            for program in programs.values():
                program.kill()
        return Outcome(measured, answers, self._peaks())

    def _launch(self, attack: Attack, seconds: float) -> subprocess.Popen[str]:
        aim = {
            "url": self.stack.api_url,
            "key": self.attacker.key,
            "connection_id": self.connection_id,
            "customers": [customer for customer, _ in self.attacker.customers],
            "seconds": seconds,
        }
        program = [sys.executable, "-m", "tests.attacks.program", attack.name, json.dumps(aim)]
        return subprocess.Popen(
            program, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent()
        )

    def _peaks(self) -> dict[str, float]:
        api, worker = (self.stack.processes[name].pid for name in ("api", "worker-1"))
        assert api is not None
        assert worker is not None
        parts = {"API": api, "intake": family(api)[-1], "worker": worker}
        return {name: peak_megabytes(pid) for name, pid in parts.items()}


def _answers(program: subprocess.Popen[str], deadline: float) -> Counter[str]:
    try:
        said, _ = program.communicate(timeout=max(deadline - time.monotonic(), 0) + GRACE)
    except subprocess.TimeoutExpired:
        program.kill()
        return Counter({"killed": 1})
    if program.returncode != 0:
        return Counter({f"exit status {program.returncode}": 1})
    return Counter(json.loads(said))


@contextmanager
def open_stage(directory: Path) -> Iterator[Stage]:
    """Raises StackFailed or EmbeddedUnavailable if nothing can be started."""
    with ExitStack() as exits:
        stack = exits.enter_context(Stack.start(directory, sandbox=True, workers=1, environment=ENVIRONMENT))
        simulator = exits.enter_context(
            httpx.Client(base_url=stack.simulator_url or "", timeout=60, trust_env=False)
        )
        simulator.post("/control/presets/instant").raise_for_status()
        receiver = exits.enter_context(Receiver())
        receivers = [exits.enter_context(webhooks.Receiver()), receiver]
        scene = open_scene(
            stack.settings,
            stack.api_url,
            simulator,
            receivers,
            seed=1,
            device_count=0,
            customer_count=CUSTOMERS,
        )
        a, b = scene.accounts
        with httpx.Client(
            base_url=stack.api_url, headers={"Authorization": f"Bearer {a.key}"}, trust_env=False
        ) as api:
            connection_id = api.get("/v1/connections").raise_for_status().json()["items"][0]["id"]
        neighbour = Neighbour(stack.api_url, b.key, b.customers[0][0], receiver)
        yield Stage(stack, a, neighbour, connection_id)
