"""Handles one call: reads it, applies faults, processes it, answers it and writes it into the ledger.

Faults and random failures act only here, before or after the call has its effect: that difference decides
whether a caller may repeat the call.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
from collections.abc import Callable
from functools import partial

import orjson
from starlette.types import Receive, Scope, Send

from simulator import entra, partner_center
from simulator.faults import Rule
from simulator.ledger import Entry
from simulator.notifications import CERTIFICATE_PATH
from simulator.state import State
from simulator.wire import Answer, Call, draw_guid, drop_connection, problem, read_call, send_answer

HOLD_LIMIT_S = 120
"""A held call goes on after this time even if nobody releases it."""


class _Dropped(Exception):
    """The connection must be cut, in this way."""

    def __init__(self, mode: str) -> None:
        super().__init__(mode)
        self.mode = mode


async def exchange(state: State, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one call of the simulated services."""
    call = await read_call(scope, receive)
    if call is None:
        return
    process = _route(state, call)
    ledger = state.ledger
    entry = ledger.open(state.clock.now(), call.operation, call.method, call.raw_path, call.customer)
    call.number = entry.number
    entry.request_id = call.request_id = call.headers.get("ms-requestid") or draw_guid(
        state.chance.getrandbits
    )
    entry.correlation_id = call.correlation_id = call.headers.get("ms-correlationid") or draw_guid(
        state.chance.getrandbits
    )
    try:
        answer = await _pass(state, call, entry, partial(process, state, call))
    except _Dropped as dropped:
        ledger.close(entry, "dropped_after" if entry.processed else "dropped_before", None, state.clock.now())
        await drop_connection(receive, send, dropped.mode)
        return
    of_entra = call.operation in ("token", "openid")
    echo = {} if of_entra else _echo(state, call)
    _mark(state, answer, of_entra)
    delivered = await send_answer(answer, call, receive, send, echo)
    ledger.close(entry, "answered" if delivered else "client_gone", answer.status, state.clock.now())


def _route(state: State, call: Call) -> Callable[[State, Call], Answer]:
    """Name the operation on the call and give what processes it."""
    if call.path and call.path[0].lower() in ("v1", "webhooks"):
        return partial(_partner_center, partner_center.route(call))
    if call.path and call.path[0].lower() == "cert":
        call.operation = "certificate"
        return _certificate
    if entra.route(call):
        return entra.process
    return _nothing


def _partner_center(operation: partner_center.Operation | None, state: State, call: Call) -> Answer:
    return partner_center.process(state, call, operation)


def _certificate(state: State, call: Call) -> Answer:
    signer = state.notifications.signer
    served = {CERTIFICATE_PATH: signer.leaf, "/cert/root.cer": signer.root}.get("/" + "/".join(call.path))
    if served is None:
        return Answer(404)
    return Answer(200, signer.der(served), {"content-type": "application/pkix-cert"})


def _nothing(state: State, call: Call) -> Answer:
    return problem(404, 1000, "Resource not found.")


def _mark(state: State, answer: Answer, of_entra: bool) -> None:
    """Put the byte order mark before a JSON body, where the switch wants one."""
    marked = state.switches.byte_order_mark
    wanted = marked == "everywhere" or (marked == "partner_center" and not of_entra)
    if wanted and answer.body and answer.headers.get("content-type", "").startswith("application/json"):
        answer.body = codecs.BOM_UTF8 + answer.body


def _echo(state: State, call: Call) -> dict[str, str]:
    return {
        "MS-RequestId": call.request_id,
        "MS-CorrelationId": call.correlation_id,
        "MS-CV": f"{call.correlation_id[:8]}{call.number:x}.0",
        "MS-ServerId": "simulator",
    }


async def _pass(state: State, call: Call, entry: Entry, process: Callable[[], Answer]) -> Answer:
    rule = state.faults.take_disturbance(call.operation, call.customer)
    entry.fault = rule.kind if rule else None
    error, error_after, drop, drop_after = _weather(state, call)
    if rule is not None and (rule.phase == "before" or rule.kind in ("throttle", "expired_token", "entra")):
        answer = await _disturb(state, call, rule)
        if answer is not None:
            return answer
    if drop and not drop_after:
        raise _Dropped("reset")
    if error is not None and not error_after:
        return error
    answer = process()
    entry.processed = True
    entry.replayed, entry.device_count = call.replayed, call.device_count
    if rule is not None and rule.phase == "after":
        answer = await _disturb(state, call, rule) or answer
    if drop:
        raise _Dropped("reset")
    if state.switches.answer_max_ms:
        await asyncio.sleep(_draw_ms(state) / 1000)
    return error or answer


def _draw_ms(state: State) -> float:
    return state.chance.uniform(state.switches.answer_min_ms, state.switches.answer_max_ms)


def _weather(state: State, call: Call) -> tuple[Answer | None, bool, bool, bool]:
    """Draws random failures of this call: an error or a dropped connection, each before or after the
    effect."""
    switches, chance = state.switches, state.chance
    error, error_after, drop, drop_after = None, False, False, False
    if call.operation in ("openid", "certificate"):
        return error, error_after, drop, drop_after
    if switches.server_error_rate and chance.random() < switches.server_error_rate:
        error = Answer(chance.choice((500, 502, 503, 504)))
        error_after = chance.random() < switches.server_error_after_share
    if switches.drop_rate and chance.random() < switches.drop_rate:
        drop, drop_after = True, chance.random() < 0.5
    return error, error_after, drop, drop_after


async def _disturb(state: State, call: Call, rule: Rule) -> Answer | None:
    """Applies the rule. Returns the answer that replaces the real one, if any."""
    match rule.kind:
        case "status":
            return _fixed(rule)
        case "drop":
            raise _Dropped(rule.mode)
        case "hold":
            await _hold(state, call, rule)
        case "slow":
            await asyncio.sleep((rule.delay_ms or 0) / 1000)
        case "throttle":
            return partner_center.throttled(rule.retry_after)
        case "expired_token":
            return partner_center.unauthorized()
        case "entra":
            return entra.refusal(
                state,
                rule.aadsts,
                error_instead=rule.error,
                suberror=rule.suberror,
                numbers=rule.numbers,
            )
        case "no_location" | "shuffle" | "never_finish" | "device_error":
            raise AssertionError("a shaping rule does not disturb")
    return None


def _fixed(rule: Rule) -> Answer:
    headers = {name.lower(): value for name, value in rule.headers.items()}
    if rule.body is None:
        return Answer(rule.status, b"", headers)
    if isinstance(rule.body, str):
        return Answer(rule.status, rule.body.encode(), {"content-type": "text/html", **headers})
    return Answer(rule.status, orjson.dumps(rule.body), {"content-type": "application/json", **headers})


async def _hold(state: State, call: Call, rule: Rule) -> None:
    faults = state.faults
    held = faults.hold(call.operation, call.customer, call.request_id, rule.phase, state.clock.now())
    limit = HOLD_LIMIT_S if rule.delay_ms is None else rule.delay_ms / 1000
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(held.released.wait(), limit)
    finally:
        faults.let_go(held)
    if rule.then == "drop":
        raise _Dropped(rule.mode)
