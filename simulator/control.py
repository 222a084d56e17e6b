"""Control routes that change behaviour: switches, presets, randomness, clock, faults, held calls."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from simulator.faults import Rule
from simulator.inspection import inspection_routes
from simulator.replies import reply
from simulator.samples import sample_devices
from simulator.staging import staging_routes
from simulator.state import State
from simulator.switches import PRESETS, Switches, described, patched

_RULES: TypeAdapter[list[Rule]] = TypeAdapter(list[Rule])


class Seed(BaseModel):
    """A seed for everything random."""

    model_config = ConfigDict(extra="forbid")
    seed: int | None = None


class Advance(BaseModel):
    """How far to move the clock."""

    model_config = ConfigDict(extra="forbid")
    advance_s: Annotated[float, Field(ge=0)]


class Samples(BaseModel):
    """How many made-up devices to show."""

    model_config = ConfigDict(extra="forbid")
    count: Annotated[int, Field(ge=1, le=10_000)] = 10
    prefix: str = "SAMPLE"


class Release(BaseModel):
    """Which held calls to let go: all, one, or those of an operation."""

    model_config = ConfigDict(extra="forbid")
    id: int | None = None
    operation: str | None = None


class Control:
    """The routes over one state."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def get_switches(self, request: Request) -> Response:
        if request.query_params.get("describe") == "true":
            return reply(described())
        return reply(dataclasses.asdict(self._state.switches))

    async def patch_switches(self, request: Request) -> Response:
        self._state.switches = patched(self._state.switches, await _object(request))
        return await self.get_switches(request)

    async def apply_preset(self, request: Request) -> Response:
        preset = PRESETS.get(request.path_params["kind"])
        if preset is None:
            return reply({"error": f"presets are {', '.join(PRESETS)}"}, 404)
        self._state.switches = patched(Switches(), preset)
        return await self.get_switches(request)

    async def reset(self, request: Request) -> Response:
        self._state.reset(Seed.model_validate(await _object(request)).seed)
        return reply({"seed": self._state.seed})

    async def set_chance(self, request: Request) -> Response:
        seed = Seed.model_validate(await _object(request)).seed
        self._state.reseed(0 if seed is None else seed)
        return reply({"seed": self._state.seed})

    async def get_clock(self, request: Request) -> Response:
        clock = self._state.clock
        return reply({"now": clock.now(), "offset_s": clock.offset, "seed": self._state.seed})

    async def advance_clock(self, request: Request) -> Response:
        self._state.clock.offset += Advance.model_validate(await _object(request)).advance_s
        self._state.settle()
        return await self.get_clock(request)

    async def arm(self, request: Request) -> Response:
        given = orjson.loads(await request.body())
        rules = _RULES.validate_python(given if isinstance(given, list) else [given])
        return reply([self._state.faults.arm(rule).view() for rule in rules], 201)

    async def list_faults(self, request: Request) -> Response:
        return reply([armed.view() for armed in self._state.faults.armed()])

    async def clear_faults(self, request: Request) -> Response:
        self._state.faults.clear()
        return Response(status_code=204)

    async def list_held(self, request: Request) -> Response:
        return reply([held.view() for held in self._state.faults.held()])

    async def release(self, request: Request) -> Response:
        wanted = Release.model_validate(await _object(request))
        return reply({"released": self._state.faults.release(wanted.id, wanted.operation)})

    async def finish_jobs(self, request: Request) -> Response:
        state = self._state
        return reply({"finished": state.jobs.finish_now(state.clock.now(), state.switches)})

    async def show_samples(self, request: Request) -> Response:
        wanted = Samples.model_validate(dict(request.query_params))
        return reply(sample_devices(wanted.count, wanted.prefix))

    def routes(self) -> list[Route]:
        return [
            Route("/control/switches", self.get_switches, methods=["GET"]),
            Route("/control/switches", self.patch_switches, methods=["PATCH"]),
            Route("/control/presets/{kind}", self.apply_preset, methods=["POST"]),
            Route("/control/reset", self.reset, methods=["POST"]),
            Route("/control/chance", self.set_chance, methods=["PUT"]),
            Route("/control/clock", self.get_clock, methods=["GET"]),
            Route("/control/clock", self.advance_clock, methods=["POST"]),
            Route("/control/faults", self.arm, methods=["POST"]),
            Route("/control/faults", self.list_faults, methods=["GET"]),
            Route("/control/faults", self.clear_faults, methods=["DELETE"]),
            Route("/control/held", self.list_held, methods=["GET"]),
            Route("/control/release", self.release, methods=["POST"]),
            Route("/control/samples", self.show_samples, methods=["GET"]),
            Route("/control/jobs:finish", self.finish_jobs, methods=["POST"]),
        ]


async def _object(request: Request) -> dict[str, Any]:
    """The body as an object; an absent body is an empty one."""
    body = await request.body()
    given = orjson.loads(body) if body else {}
    if not isinstance(given, dict):
        raise orjson.JSONDecodeError("expected an object", "", 0)
    return given


async def _refuse_values(request: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    return reply({"error": "invalid", "errors": error.errors(include_url=False, include_context=False)}, 400)


async def _refuse_json(request: Request, error: Exception) -> Response:
    return reply({"error": "invalid", "errors": [{"msg": str(error)}]}, 400)


def build_control(state: State) -> Starlette:
    """The Starlette program behind /control."""
    return Starlette(
        routes=[*Control(state).routes(), *staging_routes(state), *inspection_routes(state)],
        exception_handlers={ValidationError: _refuse_values, orjson.JSONDecodeError: _refuse_json},
    )
