"""Faults armed for a test: rules that disturb the next calls they match, and the calls they hold open.

A rule is used up by count. At most one disturbing rule acts on a call, the first armed that matches, so that
a list of rules reads as a script; rules that shape a result act together, and only when a call is processed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SHAPING = frozenset({"no_location", "shuffle", "never_finish", "device_error"})

Operation = Literal[
    "*",
    "token",
    "openid",
    "customers",
    "customer",
    "relationship_request",
    "create",
    "append",
    "list_batches",
    "list_devices",
    "status",
    "delete_device",
    "webhook",
    "certificate",
]


class Rule(BaseModel):
    """One fault as armed through the control route; README.md has the same as a table."""

    model_config = ConfigDict(extra="forbid")

    operation: Operation = "*"
    kind: Literal[
        "status",
        "drop",
        "hold",
        "slow",
        "throttle",
        "expired_token",
        "entra",
        "no_location",
        "shuffle",
        "never_finish",
        "device_error",
    ]
    customer: str | None = None
    skip: Annotated[int, Field(ge=0)] = 0
    count: Annotated[int, Field(ge=1)] | None = 1
    phase: Literal["before", "after"] = "before"
    status: Annotated[int, Field(ge=200, le=599)] = 500
    body: Any = None
    headers: dict[str, str] = {}
    mode: Literal["reset", "close", "truncate"] = "reset"
    delay_ms: Annotated[int, Field(ge=0)] | None = None
    then: Literal["answer", "drop"] = "answer"
    retry_after: Annotated[int, Field(ge=0)] = 1
    aadsts: int = 50076
    error: str | None = None
    suberror: str | None = None
    numbers: Literal["both", "text", "none"] = "both"
    serials: list[str] = []
    product_keys: list[str] = []
    positions: list[int] = []
    every: Annotated[int, Field(ge=1)] | None = None
    code: str = "StorageError"
    register_anyway: bool = False

    @property
    def shaping(self) -> bool:
        return self.kind in SHAPING


@dataclass(slots=True, eq=False)
class Armed:
    """A rule with the calls that it has left."""

    id: int
    rule: Rule
    to_skip: int
    left: int | None
    hits: int = 0

    def matches(self, operation: str, customer: str | None) -> bool:
        rule = self.rule
        if self.left == 0 or (rule.operation != "*" and rule.operation != operation):
            return False
        return rule.customer is None or rule.customer.lower() == customer

    def use(self) -> bool:
        """Count one matching call; True when the rule acts on it."""
        if self.to_skip:
            self.to_skip -= 1
            return False
        self.hits += 1
        if self.left is not None:
            self.left -= 1
        return True

    def view(self) -> dict[str, Any]:
        rule = self.rule.model_dump(exclude_defaults=True)
        return {"id": self.id, "left": self.left, "hits": self.hits, "rule": rule}


@dataclass(slots=True, eq=False)
class Held:
    """A call that is held open."""

    id: int
    operation: str
    customer: str | None
    request_id: str
    phase: str
    since: float
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "operation": self.operation,
            "customer": self.customer,
            "request_id": self.request_id,
            "phase": self.phase,
            "since": self.since,
        }


class Faults:
    """The armed rules and the held calls."""

    def __init__(self) -> None:
        self._armed: list[Armed] = []
        self._held: dict[int, Held] = {}
        self._next = 1

    def arm(self, rule: Rule) -> Armed:
        armed = Armed(self._next, rule, rule.skip, rule.count)
        self._next += 1
        self._armed.append(armed)
        return armed

    def armed(self) -> list[Armed]:
        return self._armed

    def clear(self) -> None:
        self._armed = []

    def take_disturbance(self, operation: str, customer: str | None) -> Rule | None:
        """The rule that disturbs this call, if any. A call that it skips goes to no later rule."""
        for armed in self._armed:
            if not armed.rule.shaping and armed.matches(operation, customer):
                return armed.rule if armed.use() else None
        return None

    def take_shaping(self, operation: str, customer: str | None, kind: str) -> list[Rule]:
        """All rules of one shaping kind that act on this call."""
        if not self._armed:
            return []
        return [
            armed.rule
            for armed in self._armed
            if armed.rule.kind == kind and armed.matches(operation, customer) and armed.use()
        ]

    def hold(self, operation: str, customer: str | None, request_id: str, phase: str, now: float) -> Held:
        held = Held(self._next, operation, customer, request_id, phase, now)
        self._next += 1
        self._held[held.id] = held
        return held

    def held(self) -> list[Held]:
        return list(self._held.values())

    def let_go(self, held: Held) -> None:
        self._held.pop(held.id, None)

    def release(self, held_id: int | None = None, operation: str | None = None) -> int:
        """Let held calls go on: all, one, or those of an operation. Gives their number."""
        chosen = [
            held
            for held in self._held.values()
            if (held_id is None or held.id == held_id)
            and (operation is None or held.operation == operation)
            and not held.released.is_set()
        ]
        for held in chosen:
            held.released.set()
        return len(chosen)
