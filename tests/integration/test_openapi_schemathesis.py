"""The running API against its own OpenAPI document, with valid and invalid requests generated from it.

The API listens on a socket, as in production. In half of the runs, ids in paths and bodies are those of real
objects, so that answers with content are checked too and not only refusals.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.db import heartbeats
from tests.integration.test_api_auth import everything
from tests.support.document import openapi
from tests.support.drawing import examples
from tests.support.portals import PortalPartner, portal_partner, tuple_of
from tests.support.world import Partner, World

EXAMPLES = max(examples(6), 3)
"""Requests of each kind for each operation: valid and invalid, with real ids and without."""
MANY = 60
"""More requests with real ids, if none of the few was valid."""

GIVEN = {
    "url": "https://hooks.example.com/registrar",
    "platform": "partner_center",
    "code": "not_found",
}
"""Values that chance does not find, in addition to ids."""

REFUSED_HERE = {"POST /v1/orders/{order_id}:cancel", "POST /v1/orders/{order_id}:retry-failed"}
"""The order is complete: nothing is left to cancel or to retry."""

BY_HAND = {
    "POST /v1/connections",  # one without credentials, which chance would not leave out
    "GET /v1/orders/{order_id}/portal-files",
    "GET /v1/batches/{batch_id}/portal-file.csv",
    "POST /v1/batches/{batch_id}:mark-uploaded",
    "POST /v1/batches/{batch_id}:undo-upload",
    "POST /v1/batches/{batch_id}:record-outcome",
    "POST /v1/batches/{batch_id}/portal-result",
    "POST /v1/customers/{customer_id}/consent:record",
}
"""Called by a partner that works at a portal."""
NEEDS_AN_UPLOAD = {
    "POST /v1/batches/{batch_id}:record-outcome",
    "POST /v1/batches/{batch_id}:undo-upload",
}
"""Chance names no device, and all devices at once can be recorded only for an uploaded file."""
NEEDS_A_FILE = {"POST /v1/batches/{batch_id}/portal-result"}
"""Chance does not write a file of results."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]

TAKES_ANY_BYTES = {"POST /v1/imports"}
"""Any file is accepted and judged afterwards, so no body is invalid by the schema."""

SCHEMA = schemathesis.openapi.from_dict(openapi())
REFUSED = SCHEMA.config.checks.negative_data_rejection
# An invalid body may be refused for its size before it is read.
REFUSED.expected_statuses = [*REFUSED.expected_statuses, "413"]
OPERATIONS = {
    f"{operation.method.upper()} {operation.path}": operation
    for result in SCHEMA.get_all_operations()
    if isinstance(result, Ok)
    for operation in [result.ok()]
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def base_url(_world: World) -> AsyncIterator[str]:
    """The URL of the world's API, on a free port of this process."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(_world.app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listening]))
    async with asyncio.timeout(45):
        while not server.started:  # noqa: ASYNC110 - uvicorn has a flag, no event
            await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def with_real_ids(body: Any, ids: dict[str, str]) -> Any:
    """The body with ids of real objects, if it is an object with such fields."""
    if not isinstance(body, dict):
        return body
    return {name: ids.get(name, value) for name, value in body.items()}


def probe(
    name: str,
    mode: GenerationMode,
    base_url: str,
    partner: Partner | PortalPartner,
    ids: dict[str, str] | None,
    count: int,
) -> Counter[int]:
    """Sends generated requests, checks each answer, and returns how often each status was answered."""
    operation = OPERATIONS[name]
    fixed: dict[str, Any] = {}
    if ids is not None:
        wanted = [parameter.name for parameter in operation.path_parameters]
        fixed = {"path_parameters": {parameter: ids[parameter] for parameter in wanted}} if wanted else {}
    answers: Counter[int] = Counter()

    @hypothesis_settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, **fixed))
    def run(case: Any) -> None:
        if ids is not None and mode is GenerationMode.POSITIVE:
            case.body = with_real_ids(case.body, ids)
        response = case.call(base_url=base_url, headers=partner.headers)
        unfit = {negative_data_rejection} if name in TAKES_ANY_BYTES else set()
        case.validate_response(response, checks=[check for check in CHECKS if check not in unfit])
        answers[response.status_code] += 1

    run()
    return answers


@pytest.mark.drawn
@pytest.mark.parametrize("name", OPERATIONS)
async def test_what_the_document_says_is_true(world: World, base_url: str, name: str) -> None:
    partner: Partner | PortalPartner
    if name in BY_HAND:
        partner, ids = await _by_hand(world, uploaded=name in NEEDS_AN_UPLOAD)
    else:
        partner = await world.partner()
        ids = GIVEN | await everything(world, partner)
    async with world.runtime.system_transaction() as tx:
        await heartbeats.beat(tx, "worker-1", world.clock.now())
    answers: Counter[int] = Counter()
    for kinds, count in (((ids, None), EXAMPLES), ((ids,), MANY)):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for real in kinds:
                try:
                    answers += await asyncio.to_thread(probe, name, mode, base_url, partner, real, count)
                except Unsatisfiable:
                    # An operation without parameters and body has no invalid request.
                    assert mode is GenerationMode.NEGATIVE
        if any(status < 300 for status in answers) or name in REFUSED_HERE | NEEDS_A_FILE:
            return
    raise AssertionError(f"no request was a right one: {answers}")


async def _by_hand(world: World, *, uploaded: bool) -> tuple[PortalPartner, dict[str, str]]:
    """A portal partner with an order whose file waits for its upload, or for its outcome."""
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(1)])
    (file,) = await partner.files(order)
    if uploaded:
        await partner.ok("POST", f"/batches/{file['batch_id']}:mark-uploaded")
    found = {"order_id": order["id"], "batch_id": file["batch_id"], "customer_id": str(partner.customer_id)}
    return partner, {"platform": "partner_center", **found}


def test_every_operation_of_the_document_is_probed() -> None:
    documented = {
        f"{method.upper()} {path}" for path, operations in openapi()["paths"].items() for method in operations
    }
    assert set(OPERATIONS) == documented


async def test_the_probe_finds_an_answer_that_is_not_documented(world: World, base_url: str) -> None:
    partner = await world.partner(consented=False)
    operation = OPERATIONS["GET /v1/me"]
    case = operation.Case()
    response = await asyncio.to_thread(case.call, base_url=base_url, headers=partner.headers)
    case.validate_response(response, checks=CHECKS)
    response.status_code = 418
    with pytest.raises(schemathesis.core.failures.FailureGroup):
        case.validate_response(response, checks=CHECKS)
