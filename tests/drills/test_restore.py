"""Backup and restore with the commands of docs/operate.md, while work is under way.

Only the simulator survives; afterwards the restored database is compared with its ledger.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.kernel.child_processes import die_with_parent
from app.local.embedded import binaries
from app.local.stack import ROOT, Stack
from app.local.synthetic import devices
from tests.support.servers import copy_cluster
from tests.support.upstream import (
    Account,
    Upstream,
    is_over,
    open_account,
    rows_of,
    run_upstream,
    said,
    send,
    until,
)

SETTINGS = {
    "REGISTRAR_POLL_FIRST_S": "0.3",
    "REGISTRAR_POLL_CEILING_S": "2",
    "REGISTRAR_CUSTOMER_WINDOW": "3",
    # A call stays open during the backup; in the restored database its lease has to expire.
    "REGISTRAR_UPSTREAM_TIMEOUT_S": "12",
    "REGISTRAR_STEP_TIMEOUT_S": "13",
    "REGISTRAR_LEASE_S": "16",
    "REGISTRAR_HEARTBEAT_S": "2",
    "REGISTRAR_SWEEP_INTERVAL_S": "1",
}
LONG = {"processing_min_ms": 600_000, "processing_max_ms": 600_000}
SHORT = {"processing_min_ms": 100, "processing_max_ms": 300}


def documented() -> list[str]:
    """The commands of the section, block by block: first the backup, then the restore."""
    text = (ROOT / "docs/operate.md").read_text()
    section = text.partition("\n## Backup and restore\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def run_block(block: str, directory: Path, environment: Mapping[str, str]) -> None:
    """Runs a block as if it were pasted, with `registrar` and PostgreSQL's programs on PATH."""
    path = f"{Path(sys.executable).parent}:{binaries().postgres}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=directory,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"


def libpq(database_url: str) -> str:
    return database_url.replace("postgresql+asyncpg:", "postgresql:")


@contextmanager
def databases(
    data_dir: Path, log: Path, environment: Mapping[str, str], *, create: bool = False
) -> Iterator[str]:
    """Runs `registrar databases`; yields the DATABASE_URL that it prints. `create`: in an empty directory."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "databases", *(["--create"] if create else [])],
            cwd=ROOT,
            env={**environment, "REGISTRAR_DATA_DIR": str(data_dir), "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent(),
        )
    try:
        url = until(lambda: re.search(r"^export DATABASE_URL='?([^'\n]+)'?$", log.read_text(), re.M), "a URL")
        yield url[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait(10)


def start(data_dir: Path, upstream: Upstream) -> Stack:
    environment = {**SETTINGS, **upstream.environment}
    return Stack.start(data_dir, sandbox=False, workers=2, durable=False, environment=environment)


def rows(count: int, seed: int, tag: str) -> list[dict[str, str]]:
    return [{**device.fields(), "group_tag": tag} for device in devices(count, seed)]


def states_of_batches(client: httpx.Client, order_id: str) -> Counter[str]:
    page = said(client.get("/batches", params={"order_id": order_id, "page_size": "100"}))
    return Counter(batch["state"] for batch in page["items"])


def finish(client: httpx.Client, *order_ids: str) -> None:
    for order_id in order_ids:
        until(lambda order_id=order_id: is_over(client, order_id), f"the end of order {order_id}")  # type: ignore[misc]


def states(client: httpx.Client, order_id: str) -> Counter[str]:
    return Counter(row["state"] for row in rows_of(client, order_id))


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with run_upstream(tmp_path / "simulator.log") as running:
        yield running


def test_the_guide_has_one_block_to_back_up_and_one_to_restore() -> None:
    backup, restore = documented()
    assert backup.startswith("pg_dump ")
    assert [word in restore for word in ("psql ", "pg_restore ", "registrar migrate")] == [True] * 3


@pytest.mark.timeout(240)
def test_after_losing_everything_the_backup_and_microsoft_together_lose_nothing(
    tmp_path: Path, cluster: Path, upstream: Upstream
) -> None:
    backup, restore = documented()
    papers = tmp_path / "papers"
    papers.mkdir()
    before, after = copy_cluster(cluster, tmp_path / "before"), tmp_path / "after"

    with start(before, upstream) as stack:
        account = open_account(stack.registrar, stack.api_url, upstream.control, customers=2)
        (first, _), (second, _) = account.customers
        with account.client(stack.api_url) as client:
            done, _ = send(client, first, "DONE", rows(300, 1, "Sales"))
            finish(client, done)
            taken, waits = _leave_work_at_every_stage(client, upstream, first)

            run_block(backup, papers, {**stack.environment, "DATABASE_URL": libpq(stack.database_url)})

            # What happens now is not in the backup: work continues, and another order is completed.
            upstream.switch(**SHORT)
            upstream.calm()
            late, _ = send(client, second, "LATE", rows(200, 3, "Kiosk"))
            finish(client, taken, waits, late)
            held_before = upstream.ledger()["devices"]
            assert len(held_before) == 300 + 3_000 + 500 + 200
        shutil.copy(before / "secret.key", papers / "secret.key")  # "in another place"
        for part in ("postgres", "valkey", "api", "worker-1", "worker-2"):
            stack.processes[part].dismiss()
            stack.kill(part)
    shutil.rmtree(before)

    after.mkdir(mode=0o700)
    shutil.copy(papers / "secret.key", after / "secret.key")
    outside = {key: value for key, value in stack.environment.items() if not key.startswith("REGISTRAR_")}
    with databases(after, tmp_path / "databases.log", outside, create=True) as url:
        run_block(restore, papers, {**outside, "DATABASE_URL": url, "REGISTRAR_DATA_DIR": str(after)})

    with start(after, upstream) as stack, account.client(stack.api_url) as client:
        finish(client, done, taken, waits)
        assert states(client, done) == {"registered": 300}
        # Devices that were sent before are looked up; those that waited are sent again.
        assert states(client, taken) == {"registered": 3_000}
        assert states(client, waits) == {"already_registered": 500}
        _assert_same_devices(upstream, held_before)

        assert [item["reference"] for item in said(client.get("/orders"))["items"]] == [
            "WAITS",
            "TAKEN",
            "DONE",
        ]
        again, answer = send(client, second, "LATE", rows(200, 3, "Kiosk"))
        assert "idempotent-replayed" not in answer.headers
        new, _ = send(client, second, "NEW", rows(100, 4, "Kiosk"))
        finish(client, again, new)
        assert states(client, again) == {"already_registered": 200}
        assert states(client, new) == {"registered": 100}
        _assert_books_agree(client, account, upstream, (done, taken, waits, again, new))


def _leave_work_at_every_stage(client: httpx.Client, upstream: Upstream, customer_id: str) -> tuple[str, str]:
    """Creates an order with a running call and two jobs at Microsoft, and one that waits behind it."""
    upstream.switch(**LONG)
    upstream.arm({"operation": "append", "kind": "hold", "phase": "after", "skip": 2})
    taken, _ = send(client, customer_id, "TAKEN", rows(3_000, 2, "Sales"))
    wanted = Counter({"submitting": 1, "submitted": 2})
    until(lambda: upstream.held() and states_of_batches(client, taken) == wanted, "work at every stage")
    waits, _ = send(client, customer_id, "WAITS", rows(500, 5, "Sales"))
    assert states_of_batches(client, waits) == {"queued": 1}
    return taken, waits


def _assert_same_devices(upstream: Upstream, before: list[dict[str, Any]]) -> None:
    """Checks that the simulator has the same devices, customers and tags as before."""

    def places(held: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
        names = ("customer", "group_tag", "serial", "product_key", "call")
        return Counter(tuple(device[name] for name in names) for device in held)

    assert places(upstream.ledger()["devices"]) == places(before)


def _assert_books_agree(
    client: httpx.Client, account: Account, upstream: Upstream, order_ids: tuple[str, ...]
) -> None:
    """Compares the database with the simulator's ledger: each device once, with its customer and tag."""
    tenant_of = dict(account.customers)
    ours: Counter[tuple[str, str, str]] = Counter()
    for order_id in order_ids:
        tenant = tenant_of[said(client.get(f"/orders/{order_id}"))["customer_id"]]
        for row in rows_of(client, order_id):
            ours[tenant, row["group_tag"], row["serial_number"] or row["product_key"]] += 1
    theirs = Counter(
        (device["customer"], device["group_tag"], device["serial"] or device["product_key"])
        for device in upstream.ledger()["devices"]
    )
    assert set(ours.values()) == {1}
    assert ours == theirs
