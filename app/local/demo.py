"""`registrar demo` (`make demo`): registers 2,500 made-up devices from files with a simulator of Microsoft.

PostgreSQL, Valkey, API, worker and simulator are real processes, the files are as the field's collectors
write them, and `registrar submit` is the command that an operator uses. At the end every figure is compared
with the expected one, on our side and on Microsoft's. The exit code is 0 only if all of them agree.
"""

import json
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from rich.console import Console
from rich.table import Table

from app.domain.identity import IdentityKind
from app.kernel.environment import SettingsRefused
from app.local.embedded import EmbeddedUnavailable
from app.local.processes import StackFailed
from app.local.receiver import Receiver
from app.local.stack import Stack
from app.local.synthetic import SyntheticDevice, devices, write_collector_csv, write_partner_center_csv

COLLECTED = 1_200
"""Devices with hashes, in the collector's UTF-16 file, tagged there."""
LISTED = 1_294
"""Tuples, PKIDs and hashes in Partner Center's own template, without its six damaged rows."""
WAITING = 40
"""Devices of the customer that has not consented yet."""
PATIENCE = 60.0
"""Seconds that any step may take."""


@dataclass
class Scene:
    stack: Stack
    receiver: Receiver
    console: Console
    api: httpx.Client
    simulator: httpx.Client
    directory: Path
    tenants: dict[str, str] = field(default_factory=dict)
    customers: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Calls the API. Raises StackFailed unless the call succeeds."""
        response = self.api.request(method, path, json=body)
        if response.status_code >= 300:
            raise StackFailed(f"{method} {path} answered {response.status_code}: {response.text}")
        return response.json()

    def control(self, path: str, body: Any = None) -> Any:
        """Calls a control route of the simulator."""
        method = "GET" if body is None else "POST"
        response = self.simulator.request(method, f"/control/{path}", json=body)
        response.raise_for_status()
        return response.json() if response.content else None

    def headline(self, words: str) -> None:
        self.console.print(f"\n[bold]{words}[/bold]")

    def say(self, words: str) -> None:
        self.console.print(f"  {words}", soft_wrap=True)

    def expect(self, what: str, found: Any, expected: Any) -> None:
        if found != expected:
            self.failures.append(f"{what}: {found!r}, expected {expected!r}")

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise StackFailed(f"Waited {PATIENCE:.0f} seconds for {what}, but it did not come.")
            time.sleep(0.05)

    def submit(self, file: Path, customer: str, *options: str) -> int:
        """Runs `registrar submit` on this terminal and returns its exit code."""
        self.console.print(
            f"\n  [dim]$ registrar submit {file.name} --customer {customer} {' '.join(options)}[/dim]"
        )
        self.console.file.flush()
        done = self.stack.registrar(
            "submit", str(file), "--customer", customer, *options, check=False, capture_output=False
        )
        return done.returncode


def run() -> int:
    """Runs the demonstration on this terminal and returns the exit code."""
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()
    console.print("[bold]Registrar: a demonstration with real parts[/bold]")
    try:
        with tempfile.TemporaryDirectory(prefix="registrar-demo-") as directory:
            failures = _run(Path(directory), console)
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    except SettingsRefused as refused:
        console.print(str(refused), markup=False)
        return 1
    except (StackFailed, EmbeddedUnavailable, httpx.HTTPError) as error:
        console.print(f"\n[red]The demonstration failed.[/red] {error}")
        return 1
    took = time.monotonic() - begun
    for failure in failures:
        console.print(f"[red]Not as expected:[/red] {failure}")
    verdict = (
        "[green]Every figure is as expected.[/green]"
        if not failures
        else "[red]The demonstration failed.[/red]"
    )
    console.print(f"\n{verdict} It took {took:.0f} seconds.")
    return 1 if failures else 0


def _run(directory: Path, console: Console) -> list[str]:
    environment = {
        "REGISTRAR_SWEEP_INTERVAL_S": "1",
        "REGISTRAR_CONSENT_INTERVAL_S": "1",
        "REGISTRAR_LOG_LEVEL": "INFO",
    }
    console.print("  Starting PostgreSQL, Valkey, the simulator, the API and a worker ...")
    with (
        Receiver() as receiver,
        Stack.start(directory / "data", sandbox=True, environment=environment) as stack,
        httpx.Client(base_url=stack.api_url, timeout=30, trust_env=False) as api,
        httpx.Client(base_url=stack.simulator_url or "", timeout=30, trust_env=False) as simulator,
    ):
        scene = Scene(stack, receiver, console, api, simulator, directory)
        scene.say(f"API {stack.api_url}, simulator {stack.simulator_url}")
        _set_the_scene(scene)
        collected, listed = _write_files(scene)
        _register(scene, listed)
        _hold_and_release(scene)
        _compare(scene, collected, listed)
        return scene.failures


def _set_the_scene(scene: Scene) -> None:
    """Makes a partner with its key and connection, two customers, and a webhook endpoint."""
    scene.headline("1. A partner, its connection, two customers")
    seeded = scene.control("seed", {"customers": 0})["partner"]
    stack = scene.stack
    stack.registrar("partner", "create", "Demo Reseller", "--role", "direct_bill")
    made = stack.registrar(
        "api-key", "create", "--partner", "Demo Reseller", "--name", "demo", "--scope", "operator", "--json"
    )
    key = json.loads(made.stdout)["key"]
    stack.environment |= {"REGISTRAR_API_KEY": key, "REGISTRAR_API_URL": stack.api_url}
    scene.api.headers["Authorization"] = f"Bearer {key}"
    connection = scene.call(
        "POST",
        "/v1/connections",
        {
            "name": "Partner Center",
            "entra_tenant_id": seeded["tenant_id"],
            "client_id": seeded["client_id"],
            "client_secret": seeded["client_secret"],
            "refresh_token": seeded["refresh_token"],
            "default_group_tag": "Sales",
        },
    )
    check = scene.call("POST", f"/v1/connections/{connection['id']}:check")
    scene.expect("the connection works", check["ok"], True)
    for fact in check["proved"]:
        scene.say(f"proved: {fact}")
    for name, relationship in (("Contoso", "reseller"), ("Fabrikam", "none")):
        tenant = str(uuid4())
        scene.control("customers", {"tenant_id": tenant, "name": name, "relationship": relationship})
        customer = {
            "connection_id": connection["id"],
            "entra_tenant_id": tenant,
            "name": name,
            "domain": f"{name.lower()}.example",
        }
        scene.tenants[name] = tenant
        scene.customers[name] = scene.call("POST", "/v1/customers", customer)["id"]
    consented = scene.call("POST", f"/v1/customers/{scene.customers['Contoso']}/consent:recheck")
    scene.expect("Contoso has consented", consented["state"], "granted")
    scene.say("Contoso has accepted the reseller relationship, Fabrikam has not.")
    endpoint = scene.call("POST", "/v1/webhook-endpoints", {"url": scene.receiver.url})
    scene.receiver.secret = endpoint["secret"]


def _write_files(scene: Scene) -> tuple[list[SyntheticDevice], list[SyntheticDevice]]:
    """Writes the files, and tells the simulator what Microsoft knows about four of the devices."""
    scene.headline("2. Files as the field's collectors write them")
    collected = list(devices(COLLECTED, seed=1, kind=IdentityKind.HARDWARE_HASH))
    listed = list(devices(LISTED, seed=2))
    waiting = list(devices(WAITING, seed=3, kind=IdentityKind.TUPLE))
    write_collector_csv(scene.directory / "collector.csv", collected, group_tag="Kiosk")
    template = scene.directory / "partner-center.csv"
    write_partner_center_csv(template, listed)
    with template.open("ab") as file:
        file.write(_damaged_rows(listed).encode("cp1252"))
    write_partner_center_csv(scene.directory / "waiting.csv", waiting)
    tuples = [device for device in listed if device.kind is IdentityKind.TUPLE]
    previous = str(uuid4())
    scene.control("customers", {"tenant_id": previous, "name": "Previous owner", "relationship": "none"})
    scene.control(
        "devices",
        [
            *(_held(previous, device) for device in tuples[:2]),
            _held(scene.tenants["Contoso"], tuples[2]),
        ],
    )
    unknown = scene.simulator.patch("/control/switches", json={"oem_unknown": [tuples[3].serial_number]})
    unknown.raise_for_status()
    scene.say(f"collector.csv       {COLLECTED:>5,} devices: UTF-16, hardware hashes, group tag Kiosk")
    scene.say(f"partner-center.csv  {LISTED + 6:>5,} devices: Microsoft's template; six rows are damaged")
    scene.say(f"waiting.csv         {WAITING:>5,} devices, for the customer without consent")
    scene.say("Of the second file, Microsoft has two devices under another company and one under Contoso")
    scene.say("already, and does not know a fourth.")
    return collected, listed


def _held(tenant: str, device: SyntheticDevice) -> dict[str, str]:
    return {
        "customer": tenant,
        "serial": device.serial_number,
        "manufacturer": device.manufacturer,
        "model": device.model,
    }


def _damaged_rows(listed: list[SyntheticDevice]) -> str:
    """Rows that Registrar refuses: half a tuple, a Product ID, a repeated device, three damaged hashes."""
    hashes = [device.hardware_hash or "" for device in listed if device.hardware_hash][:3]
    first = next(device for device in listed if device.kind is IdentityKind.TUPLE)
    changed = hashes[0][:700] + ("A" if hashes[0][700] != "A" else "B") + hashes[0][701:]
    rows = [
        "SYNHALF01,,,Contoso,",
        ",00330-80000-00000-AA206,,,",
        f"{first.serial_number},,,{first.manufacturer},{first.model}",
        f",,{changed},,",
        f",,{hashes[1][:800]},,",
        f",,{hashes[2][:400]}!{hashes[2][401:]},,",
    ]
    return "".join(row + "\r\n" for row in rows)


def _register(scene: Scene, listed: list[SyntheticDevice]) -> None:
    scene.headline("3. 2,500 devices in two group tags for Contoso")
    exit_status = scene.submit(scene.directory / "collector.csv", "contoso.example", "--watch")
    scene.expect("exit code for collector.csv", exit_status, 0)
    exit_status = scene.submit(
        scene.directory / "partner-center.csv", "contoso.example", "--group-tag", "Sales", "--watch"
    )
    scene.expect("exit code for partner-center.csv (some rows fail)", exit_status, 2)


def _hold_and_release(scene: Scene) -> None:
    scene.headline("4. An order for Fabrikam, which has not consented: held, then released by itself")
    exit_status = scene.submit(scene.directory / "waiting.csv", "fabrikam.example", "--watch")
    scene.expect("exit code for waiting.csv (held)", exit_status, 3)
    order = _order_of(scene, "Fabrikam")
    scene.expect("Fabrikam's order is held", order["state"], "held")
    scene.expect("held devices", order["counts"]["held"], WAITING)
    scene.say("Now Fabrikam's administrator accepts the relationship. The order is not sent again.")
    scene.control(f"customers/{scene.tenants['Fabrikam']}:accept", {})
    begun = time.monotonic()
    scene.wait("Fabrikam's order", lambda: _order_of(scene, "Fabrikam")["state"] == "completed")
    scene.say(f"Its {WAITING} devices were registered {time.monotonic() - begun:.1f} seconds later.")


def _order_of(scene: Scene, name: str) -> dict[str, Any]:
    found = scene.call("GET", f"/v1/orders?customer_id={scene.customers[name]}")
    return dict(found["items"][0])


def _compare(scene: Scene, collected: list[SyntheticDevice], listed: list[SyntheticDevice]) -> None:
    scene.headline("5. The result")
    states: Counter[str] = Counter()
    for order in scene.call("GET", "/v1/orders")["items"]:
        states.update({k: n for k, n in order["counts"].items() if n and k != "total"})
    expected = {
        "registered": COLLECTED + LISTED - 4 + WAITING,
        "already_registered": 1,
        "conflict": 2,
        "failed": 1,
        "invalid": 6,
    }
    table = Table("state", "devices", "expected", box=None, padding=(0, 3, 0, 2))
    for state in [*expected, *(s for s in states if s not in expected)]:
        table.add_row(state.replace("_", " "), f"{states[state]:,}", f"{expected.get(state, 0):,}")
    scene.console.print(table)
    scene.expect("devices per state", dict(states), expected)
    _compare_ledger(scene, collected, listed)
    _compare_webhooks(scene, sum(expected.values()))


def _compare_ledger(scene: Scene, collected: list[SyntheticDevice], listed: list[SyntheticDevice]) -> None:
    """Compares the simulator's devices, by customer and group tag, with what was ordered."""
    ledger = scene.control("ledger?calls=false")
    held = Counter(
        (device["customer"], device["group_tag"])
        for device in ledger["devices"]
        if device["identified_by"] != "staged"
    )
    contoso, fabrikam = scene.tenants["Contoso"], scene.tenants["Fabrikam"]
    expected = {(contoso, "Kiosk"): COLLECTED, (contoso, "Sales"): LISTED - 4, (fabrikam, "Sales"): WAITING}
    scene.expect("devices at Microsoft by customer and tag", dict(held), expected)
    kiosk = {d["serial"] for d in ledger["devices"] if d["group_tag"] == "Kiosk"}
    scene.expect("serial numbers under Kiosk", kiosk, {device.serial_number for device in collected})
    twice = [d["serial"] for d in ledger["devices"] if d["submissions"] > 1]
    scene.expect("devices submitted more than once", twice, [])
    calls = scene.control("totals")["calls"]
    scene.say(f"The simulator holds {sum(held.values()):,} new devices, each once, under the right tag.")
    scene.say(f"It answered {sum(calls.values()) if isinstance(calls, dict) else calls} calls in all.")


def _compare_webhooks(scene: Scene, rows: int) -> None:
    receiver = scene.receiver
    expected = {
        "order.accepted": 3,
        "order.held": 1,
        "order.completed": 2,
        "order.completed_with_errors": 1,
        "consent.granted": 1,
    }

    def settled() -> int:
        return sum(
            len(event["data"]["registrations"])
            for event in receiver.kept().values()
            if event["type"] == "registration.settled"
        )

    invalid = 6
    scene.wait(
        "the webhooks",
        lambda: settled() >= rows - invalid and all(receiver.counts()[t] >= n for t, n in expected.items()),
    )
    counts = receiver.counts()
    scene.say(
        f"{sum(counts.values())} webhooks came, each verified with the public standardwebhooks library:"
    )
    for type_, n in sorted(counts.items()):
        scene.say(f"  {type_:<30} {n:>4}")
    scene.expect("webhooks by type", {t: counts[t] for t in expected}, expected)
    scene.expect("devices told of by registration.settled", settled(), rows - invalid)
    scene.expect("webhooks with a wrong signature", receiver.refused, 0)
