"""An upgrade without downtime: the previous release runs during and after the migration, beside the new one.

The previous release is taken from git and run unchanged: its API, its workers and its first migrations.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from app.db import schema
from app.kernel.child_processes import die_with_parent
from app.local.child import end_of
from app.local.embedded import Embedded
from app.local.stack import HOST, ROOT, free_port
from app.local.synthetic import devices
from tests.support.servers import copy_cluster
from tests.support.upstream import (
    PATIENCE,
    Account,
    NotReady,
    Upstream,
    is_over,
    open_account,
    rows_of,
    run_upstream,
    said,
    send,
    until,
)

RELEASE_BEFORE = "677aae8"
ITS_SCHEMA = "0002"
MIGRATION_TRIES = 5
"""`registrar migrate` waits 5 s for a table's lock; docs/operate.md says to run it again then."""
RESENDINGS = 5
DEFECTS = ("unexpected_error", "step_failed", "batch_stuck", "outcome_unknown")
"""Events that no process may log. `step_not_recorded` and `lane_interrupted` are allowed: a worker's
transaction and the migration may deadlock, then one of them gives way, and its work is repeated."""
SETTINGS = {
    "REGISTRAR_POLL_FIRST_S": "0.2",
    "REGISTRAR_POLL_CEILING_S": "1",
    "REGISTRAR_SWEEP_INTERVAL_S": "1",
    "REGISTRAR_HEARTBEAT_S": "1",
    "REGISTRAR_LOG_LEVEL": "INFO",
}


def export(commit: str, place: Path) -> Path:
    """Writes a commit's files to a directory. Fails with a clear message if git does not have the commit."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", commit], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode != 0:
        pytest.fail(
            f"The release before, commit {commit}, is not in this repository's history, so that an upgrade "
            "from it cannot be tested. Is this a shallow clone? `git fetch --unshallow` brings the history "
            f"(in CI: fetch depth 0). git said: {archive.stderr.decode().strip()}"
        )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(place, filter="data")
    return place


@dataclass(frozen=True)
class Release:
    """One release's files, with the settings that its processes share."""

    tree: Path
    environment: Mapping[str, str]
    logs: Path

    def _environment(self, **more: str) -> dict[str, str]:
        # First on the path, so that this release's `app` and `workers` are imported.
        return {**self.environment, "PYTHONPATH": str(self.tree), **more}

    def registrar(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            cwd=self.tree,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=check,
        )

    def place_of(self, package: str) -> Path:
        """The directory from which this release's processes import a package."""
        done = subprocess.run(
            [sys.executable, "-c", f"import {package}; print({package}.__file__)"],
            cwd=self.tree,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return Path(done.stdout.strip())

    @contextmanager
    def running(self, name: str, command: str, **settings: str) -> Iterator[Path]:
        """Runs `registrar COMMAND` and yields its log. Stops it at the end, which must be clean."""
        log = self.logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", command],
                cwd=self.tree,
                env=self._environment(**settings),
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent(),
            )
        try:
            yield log
            assert process.poll() is None, f"{name} ended by itself.{end_of(log)}"
            process.terminate()
            # uvicorn ends with the signal that it was sent.
            assert process.wait(PATIENCE) in (0, -15), end_of(log)
        finally:
            process.kill()
            process.wait(10)

    @contextmanager
    def api(self, name: str) -> Iterator[str]:
        port = free_port()
        with self.running(name, "api", REGISTRAR_API_PORT=str(port)) as log:
            url = f"http://{HOST}:{port}"

            def answers() -> bool:
                try:
                    return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
                except httpx.TransportError:
                    return False

            until(answers, f"{name} {end_of(log)}")
            yield url


def happened(log: Path, event: str) -> int:
    """How often a process has logged this event."""
    lines = (line for line in log.read_bytes().splitlines() if line.startswith(b"{"))
    return sum(orjson.loads(line).get("event") == event for line in lines)


def rows(count: int, seed: int, tag: str) -> list[dict[str, str]]:
    return [{**device.fields(), "group_tag": tag} for device in devices(count, seed)]


@dataclass
class Orders:
    """The orders placed by this test, with what was sent."""

    account: Account
    sent: dict[str, tuple[str, list[dict[str, str]]]]
    """By order id: the customer's tenant and the devices."""

    def place(self, client: httpx.Client, count: int, *, customer: int = 0, tag: str = "Sales") -> str:
        """Places an order as an order system would: if the service is not ready, it sends the same again."""
        customer_id, tenant = self.account.customers[customer]
        seed = len(self.sent) + 1
        made = rows(count, seed, tag)
        for _ in range(RESENDINGS):
            try:
                order_id, _answer = send(client, customer_id, f"PO-{seed}", made)
            except NotReady:
                continue
            self.sent[order_id] = (tenant, made)
            return order_id
        raise AssertionError(f"order PO-{seed} was not taken in {RESENDINGS} attempts")


def _finish(client: httpx.Client, order_ids: list[str]) -> None:
    for order_id in order_ids:
        until(lambda order_id=order_id: is_over(client, order_id), f"the end of order {order_id}")  # type: ignore[misc]


def _migrate(release: Release) -> None:
    for _ in range(MIGRATION_TRIES):
        done = release.registrar("migrate", check=False)
        if done.returncode == 0:
            assert schema.newest() in done.stdout
            return
    pytest.fail(f"the schema could not be brought forward:\n{done.stdout}\n{done.stderr}")


@contextmanager
def _stream_of_orders(place: Callable[[], str]) -> Iterator[list[str]]:
    """Places small orders until the block ends, so that the migration meets running work."""
    placed: list[str] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        try:
            while not stop.is_set():
                placed.append(place())
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    try:
        until(lambda: placed or failures, "the first order of the stream")
        yield placed
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not failures, failures


ITS_SCOPES = [
    f"{noun}:{verb}"
    for noun in ("orders", "customers", "connections", "webhooks")
    for verb in ("read", "write")
]
"""The scopes of a key of the previous release, which has no presets."""


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with run_upstream(tmp_path / "simulator.log") as running:
        yield running


def test_a_release_that_git_does_not_have_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        pytest.fail.Exception, match=r"not in this repository's history.*git fetch --unshallow"
    ):
        export("0" * 40, tmp_path)


@pytest.mark.timeout(900)
def test_the_release_before_goes_on_during_and_after_the_migration_and_beside_the_new_one(
    tmp_path: Path, cluster: Path, upstream: Upstream
) -> None:
    tree = export(RELEASE_BEFORE, tmp_path / "before")
    data_dir = copy_cluster(cluster, tmp_path / "data")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRAR_")}
    with ExitStack() as running:
        databases = running.enter_context(Embedded.open(data_dir, durable=False))
        environment = {
            **inherited,
            **SETTINGS,
            **upstream.environment,
            "PYTHONUNBUFFERED": "1",
            "REGISTRAR_DATA_DIR": str(data_dir),
            "REGISTRAR_DATABASE_URL": databases.endpoints.database_url,
            "REGISTRAR_REDIS_URL": databases.endpoints.redis_url,
        }
        before, after = (Release(place, environment, tmp_path) for place in (tree, ROOT))
        assert before.place_of("workers").is_relative_to(tree)
        assert after.place_of("workers").is_relative_to(ROOT)
        assert re.search(rf"\b{ITS_SCHEMA}\b", before.registrar("migrate").stdout)

        # The previous release cannot read input that begins with a byte order mark.
        upstream.switch(byte_order_mark="never")
        old_api = running.enter_context(before.api("old-api"))
        old_workers = ExitStack()
        running.enter_context(old_workers)
        logs = [old_workers.enter_context(before.running(f"old-worker-{n}", "worker")) for n in (1, 2)]
        account = open_account(before.registrar, old_api, upstream.control, customers=2, scopes=ITS_SCOPES)
        orders = Orders(account, {})
        old = running.enter_context(account.client(old_api))

        # Work at every stage: finished, at Microsoft, in an open call, and waiting.
        _finish(old, [orders.place(old, 50)])
        upstream.switch(processing_min_ms=600_000, processing_max_ms=600_000)
        upstream.arm({"operation": "append", "kind": "hold", "phase": "after", "skip": 1})
        at_microsoft = [orders.place(old, 2_300), orders.place(old, 1_500, customer=1, tag="Kiosk")]
        until(upstream.held, "a call under way")
        upstream.switch(processing_min_ms=50, processing_max_ms=200)
        with _stream_of_orders(lambda: orders.place(old, 20)) as streamed:
            _migrate(after)
        upstream.calm()

        # Only the previous release has workers on the new schema; both APIs accept orders.
        new_api = running.enter_context(after.api("new-api"))
        new = running.enter_context(account.client(new_api))
        sent_before = sum(happened(log, "batch_submitted") for log in logs)
        mixed = [orders.place(client, 300, customer=c) for client in (old, new) for c in (0, 1)]
        _finish(new, [*at_microsoft, *streamed, *mixed])
        assert sum(happened(log, "batch_submitted") for log in logs) >= sent_before + len(mixed)

        # Both releases at the same time.
        new_logs = [running.enter_context(after.running(f"new-worker-{n}", "worker")) for n in (1, 2)]
        beside = [
            orders.place(client, 300, customer=n % 2, tag=("Sales", "Kiosk", "Depot")[n % 3])
            for n, client in enumerate([old, new] * 6)
        ]
        _finish(old, beside)

        # The new release continues what the old one leaves, even if it is stopped in the middle.
        upstream.switch(processing_min_ms=600_000, processing_max_ms=600_000)
        left = [orders.place(old, 200), orders.place(new, 200, customer=1)]
        until(lambda: _jobs(upstream) >= 2, "jobs at Microsoft")
        old_workers.close()
        upstream.switch(processing_min_ms=50, processing_max_ms=200)
        settled_before = sum(happened(log, "outcomes_recorded") for log in new_logs)
        upstream.calm()
        left.append(orders.place(old, 200, tag="Depot"))
        _finish(old, left)
        assert sum(happened(log, "outcomes_recorded") for log in new_logs) >= settled_before + len(left)

        # Both releases show the same, and the simulator agrees.
        for order_id in orders.sent:
            shown = said(new.get(f"/orders/{order_id}"))
            assert shown["state"] == said(old.get(f"/orders/{order_id}"))["state"] == "completed", shown
            # The previous release also counts two states that nothing has ever reached.
            known = said(old.get(f"/orders/{order_id}"))["counts"]
            assert shown["counts"] == {name: known[name] for name in shown["counts"]}
            assert sum(known.values()) == sum(shown["counts"].values())
        _assert_books_agree(new, orders, upstream)
        _assert_devices_known(new, orders, [*mixed, *beside, *left])
        for log in sorted(tmp_path.glob("*-worker-*.log")) + sorted(tmp_path.glob("*-api.log")):
            found = {event: happened(log, event) for event in DEFECTS}
            assert found == dict.fromkeys(DEFECTS, 0), end_of(log)


def _assert_devices_known(client: httpx.Client, orders: Orders, order_ids: list[str]) -> None:
    """Checks that each outcome since the migration has its device, whichever release settled it. Earlier
    outcomes are left to the workers' backfill, ten minutes after they start."""
    ordered = Counter(
        row.get("serial_number") or row["product_key"]
        for order_id in order_ids
        for row in orders.sent[order_id][1]
    )
    known: Counter[str] = Counter()
    token = ""
    while True:
        page = said(client.get(f"/devices?state=registered&page_size=1000{token}"))
        known.update(device["serial_number"] or device["product_key"] for device in page["items"])
        if page["next_page_token"] is None:
            break
        token = f"&page_token={page['next_page_token']}"
    assert ordered - known == Counter()
    assert set(known.values()) == {1}
    assert page["complete"] is False


def _jobs(upstream: Upstream) -> int:
    totals: dict[str, Any] = upstream.control.get("/control/totals").json()
    return int(totals["jobs_unfinished"])


def _assert_books_agree(client: httpx.Client, orders: Orders, upstream: Upstream) -> None:
    """Checks that every ordered device is registered once, with its customer and tag, by one submission."""
    ordered: Counter[tuple[str, str, str]] = Counter()
    for order_id, (tenant, made) in orders.sent.items():
        shown = rows_of(client, order_id)
        assert {row["state"] for row in shown} == {"registered"}
        assert len(shown) == len(made)
        ordered.update(
            (tenant, row["group_tag"], row.get("serial_number") or row["product_key"]) for row in made
        )
    held = upstream.ledger()["devices"]
    assert set(ordered.values()) == {1}
    assert ordered == Counter(
        (device["customer"], device["group_tag"], device["serial"] or device["product_key"])
        for device in held
    )
    assert {device["submissions"] for device in held} == {1}
