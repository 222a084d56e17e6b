"""Control routes that show the state: the ledger of calls, devices, jobs, notifications.

A ledger can hold hundreds of thousands of devices, so it is streamed in pieces and can be paged.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from simulator.jobs import status_body
from simulator.replies import reply
from simulator.state import State

PIECE = 1000
EVERYTHING = 10**9


class Inspection:
    """The routes over one state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def _totals(self) -> dict[str, Any]:
        """Counts over everything, whatever page is asked for."""
        state = self._state
        ledger = state.ledger
        held = Counter(device.customer for device in state.registry if device.customer)
        return {
            "calls": ledger.received,
            "by_operation": ledger.by_operation,
            "by_status": ledger.by_status,
            "by_outcome": ledger.by_outcome,
            "replayed": ledger.replayed,
            "device_rows_accepted": ledger.rows_accepted,
            "device_rows_decided": state.jobs.outcomes,
            "devices_held": sum(held.values()),
            "devices_held_by_customer": held,
            "most_submissions_of_one_device": max(
                (device.submissions for device in state.registry), default=0
            ),
            "jobs": len(state.jobs),
            "jobs_unfinished": len(state.jobs.unfinished()),
        }

    async def get_totals(self, request: Request) -> Response:
        self._state.settle()
        return reply(self._totals())

    async def get_ledger(self, request: Request) -> Response:
        """Calls (`calls`, `after`, `limit`) and devices (`devices`, `device_after`, `device_limit`)."""
        self._state.settle()
        query = request.query_params
        sections: list[tuple[str, Iterable[list[dict[str, Any]]]]] = []
        if query.get("calls") != "false":
            after, limit = _whole(query.get("after"), 0), _whole(query.get("limit"), EVERYTHING)
            sections.append(("calls", self._calls(after, limit, query.get("operation"))))
        if query.get("devices") != "false":
            after = _whole(query.get("device_after"), 0)
            limit = _whole(query.get("device_limit"), EVERYTHING)
            sections.append(("devices", self._devices(after, limit, query.get("customer"))))
        return StreamingResponse(self._stream(self._totals(), sections), media_type="application/json")

    def _calls(self, after: int, limit: int, operation: str | None) -> Iterable[list[dict[str, Any]]]:
        found = self._state.ledger.after(after, EVERYTHING)
        if operation:
            found = [entry for entry in found if entry.operation == operation]
        found = found[:limit]
        return ([e.view() for e in found[at : at + PIECE]] for at in range(0, len(found), PIECE))

    def _devices(self, after: int, limit: int, customer: str | None) -> Iterable[list[dict[str, Any]]]:
        held = [d for d in self._state.registry if d.customer and customer in (None, d.customer)]
        held = held[after : after + limit]
        return ([d.view() for d in held[at : at + PIECE]] for at in range(0, len(held), PIECE))

    async def _stream(
        self, totals: dict[str, Any], sections: list[tuple[str, Iterable[list[dict[str, Any]]]]]
    ) -> AsyncIterator[bytes]:
        yield b'{"totals":' + orjson.dumps(totals)
        for name, pieces in sections:
            yield b',"' + name.encode() + b'":['
            separator = b""
            for piece in pieces:
                yield separator + orjson.dumps(piece)[1:-1]
                separator = b","
                await asyncio.sleep(0)
            yield b"]"
        yield b"}"

    async def get_job(self, request: Request) -> Response:
        state = self._state
        now = state.settle()
        job = state.jobs.get(request.path_params["job"])
        if job is None:
            return reply({"error": "no such job"}, 404)
        nothing: Callable[[list[Any]], None] = lambda _: None  # noqa: E731
        return reply(
            {
                "call": job.call,
                "customer": job.batch.customer,
                "group_tag": job.batch.id,
                "answer": status_body(job, now, state.switches, nothing),
                "devices": [device.view() if device else None for _, device in job.results or ()],
            }
        )

    async def list_notifications(self, request: Request) -> Response:
        return reply([notification.view() for notification in self._state.notifications.sent.values()])

    async def get_certificates(self, request: Request) -> Response:
        signer = self._state.notifications.signer
        return reply({"root": signer.pem(signer.root), "signing": signer.pem(signer.leaf)})


def _whole(text: str | None, default: int) -> int:
    return int(text) if text and text.isdigit() else default


def inspection_routes(state: State) -> list[Route]:
    inspection = Inspection(state)
    return [
        Route("/control/ledger", inspection.get_ledger, methods=["GET"]),
        Route("/control/totals", inspection.get_totals, methods=["GET"]),
        Route("/control/jobs/{job}", inspection.get_job, methods=["GET"]),
        Route("/control/notifications", inspection.list_notifications, methods=["GET"]),
        Route("/control/certificates", inspection.get_certificates, methods=["GET"]),
    ]
