"""Upload jobs and the batches they fill.

A job's status is computed from the clock and its drawn moments, never stored. Its devices are decided when
it finishes, not when it is accepted: so two jobs holding the same device end as they finish, and a job that
never finishes registers nothing.
"""

from __future__ import annotations

import heapq
import random
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Any

from simulator.devices import DUPLICATED, STORAGE_ERROR, Device, Registry, Row, describe
from simulator.switches import Switches
from simulator.wire import draw_guid


def stamp(moment: float) -> str:
    """A time as batches and jobs show it: neither zone nor fraction."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@dataclass(slots=True, eq=False)
class Batch:
    """A device batch; its id is the group tag. `devices` are those registered through it."""

    id: str
    partner: str
    customer: str
    created: float
    devices: list[Device] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Job:
    """One accepted upload. `steps` are (from when, status) in order of time."""

    id: str
    batch: Batch
    call: int
    rows: list[Row]
    accepted: float
    steps: list[tuple[float, str]]
    finishes: float
    shuffled: bool = False
    results: list[tuple[str, Device | None]] | None = None
    """Per row: the refusal (empty when registered) and the device. None until finished."""

    def status(self, now: float) -> str:
        """queued or processing; 'finished' once there are results."""
        if self.results is not None:
            return "finished"
        return next((status for since, status in reversed(self.steps) if now >= since), "queued")

    @property
    def failed(self) -> bool:
        return any(error for error, _ in self.results or ())


class Jobs:
    """All jobs and batches. Settles those that are due."""

    def __init__(self, registry: Registry, chance: random.Random) -> None:
        self._registry = registry
        self._chance = chance
        self._by_id: dict[str, Job] = {}
        self._batches: dict[tuple[str, str], dict[str, list[Batch]]] = {}
        self._due: list[tuple[float, int, Job]] = []
        self.outcomes: Counter[str] = Counter()
        """Device rows decided so far, by result."""

    def __len__(self) -> int:
        return len(self._by_id)

    def unfinished(self) -> list[Job]:
        return [job for job in self._by_id.values() if job.results is None]

    def get(self, job_id: str) -> Job | None:
        return self._by_id.get(job_id.lower())

    def batches(self, partner: str, customer: str) -> list[Batch]:
        """In order of creation; ids that differ only in case come together."""
        return [batch for same in self._batches.get((partner, customer), {}).values() for batch in same]

    def batch(self, partner: str, customer: str, batch_id: str, switches: Switches) -> Batch | None:
        same = self._batches.get((partner, customer), {}).get(_alike(batch_id), [])
        if switches.batch_ids_ignore_case:
            return same[0] if same else None
        return next((batch for batch in same if batch.id == batch_id), None)

    def open_batch(self, partner: str, customer: str, batch_id: str, now: float) -> Batch:
        batch = Batch(batch_id, partner, customer, now)
        self._batches.setdefault((partner, customer), {}).setdefault(_alike(batch_id), []).append(batch)
        return batch

    def accept(
        self, batch: Batch, rows: list[Row], call: int, now: float, switches: Switches, never: bool
    ) -> Job:
        """Accepts an upload. It is settled when its drawn time has come."""
        chance = self._chance
        length = chance.uniform(switches.processing_min_ms, switches.processing_max_ms) / 1000
        working = now + length * switches.queued_share
        steps = [(now, "queued"), (working, "processing")]
        if chance.random() < switches.status_regress_rate:
            third = (now + length - working) / 3
            steps += [(working + third, "queued"), (working + 2 * third, "processing")]
        stuck = never or chance.random() < switches.never_finish_rate
        job = Job(
            draw_guid(chance.getrandbits), batch, call, rows, now, steps, inf if stuck else now + length
        )
        self._by_id[job.id] = job
        batch.jobs.append(job)
        if not stuck:
            heapq.heappush(self._due, (job.finishes, len(self._by_id), job))
        self.settle(now, switches)
        return job

    def finish_now(self, now: float, switches: Switches) -> int:
        """Finishes every unfinished job now, including stuck ones. Returns their number."""
        unfinished = self.unfinished()
        for job in unfinished:
            job.finishes = now
            self._decide(job, switches)
        return len(unfinished)

    def settle(self, now: float, switches: Switches) -> None:
        """Decides every job whose time has come, in order of finishing."""
        while self._due and self._due[0][0] <= now:
            job = heapq.heappop(self._due)[2]
            if job.results is None:
                self._decide(job, switches)

    def _decide(self, job: Job, switches: Switches) -> None:
        seen: set[Device] = set()
        results = [self._decide_row(row, job, seen, switches) for row in job.rows]
        job.results = results
        for error, _ in results:
            self.outcomes[error or "registered"] += 1

    def _decide_row(
        self, row: Row, job: Job, seen: set[Device], switches: Switches
    ) -> tuple[str, Device | None]:
        if row.error and not row.register_anyway:
            return row.error, None
        if switches.storage_error_rate and self._chance.random() < switches.storage_error_rate:
            return STORAGE_ERROR, None
        device = self._registry.find(row, switches)
        if isinstance(device, str):
            return device, None
        device.submissions += 1
        if device in seen:
            return DUPLICATED, device
        seen.add(device)
        batch = job.batch
        if device.customer:
            return ("806" if device.customer == batch.customer else "808"), device
        device.customer, device.partner, device.batch = batch.customer, batch.partner, batch.id
        device.identified_by, device.digest = row.kind, row.digest
        device.call, device.uploaded = job.call, job.finishes
        batch.devices.append(device)
        return row.error, device


def status_body(
    job: Job, now: float, switches: Switches, shuffle: Callable[[list[Any]], None]
) -> dict[str, Any]:
    """The BatchUploadDetails of a job at this moment."""
    status = job.status(now)
    if job.results is None:
        running = "in-progress" if switches.device_status_style == "in-progress" else status
        shown = job.rows if switches.device_status_while_running else []
        devices = [_device_status(row, None, {"status": running}) for row in shown]
    else:
        devices = [
            _device_status(row, device, _outcome(error, switches))
            for row, (error, device) in zip(job.rows, job.results, strict=True)
        ]
        if job.failed and not switches.batch_status_hides_errors:
            status = "finished_with_errors"
    if job.shuffled or switches.shuffle_device_status:
        shuffle(devices)
    body: dict[str, Any] = {"batchTrackingId": job.id, "status": status, "startedTime": stamp(job.accepted)}
    if job.results is not None:
        body["completedTime"] = stamp(job.finishes)
    body["devicesStatus"] = devices
    body["attributes"] = {"objectType": "BatchUploadDetails"}
    return body


def _outcome(error: str, switches: Switches) -> dict[str, Any]:
    if not error:
        match switches.success_error_fields:
            case "omit":
                return {"status": "finished"}
            case "null":
                return {"status": "finished", "errorCode": None, "errorDescription": None}
            case "empty":
                return {"status": "finished", "errorCode": "", "errorDescription": ""}
    code, name = describe(error, switches)
    fields = {"status": "finished_with_errors", "errorCode": code, "errorDescription": name}
    return {key: value for key, value in fields.items() if value}


def _device_status(row: Row, device: Device | None, outcome: dict[str, Any]) -> dict[str, Any]:
    """Shows only identifiers that the caller sent: a row with only a hash comes back without any."""
    shown: dict[str, Any] = {}
    if device is not None and (row.shown_serial or row.shown_key):
        shown["deviceId"] = device.id
    if row.shown_serial:
        shown["serialNumber"] = row.shown_serial
    if row.shown_key:
        shown["productKey"] = row.shown_key
    shown.update(outcome)
    shown["attributes"] = _DETAILS
    return shown


_DETAILS = {"objectType": "DeviceUploadDetails"}


def _alike(batch_id: str) -> str:
    """The key of a batch id, equal for ids that differ only in case. Computed differently from the product,
    so that tests notice a difference."""
    return unicodedata.normalize("NFC", batch_id).upper()
