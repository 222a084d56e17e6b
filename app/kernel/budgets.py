"""The throttle budget of each connection, shared by all workers through Redis.

`app.domain.budget` decides; this module stores the value. A change swaps the whole value with one script in
one round trip, and is repeated if another worker was quicker. Times are Redis' own, so that workers' clocks
need not agree. Without Redis each worker goes on with the last value it knew, by a policy that counts each
call four times. No work is lost if anything here fails.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from app.domain import budget as policy_of
from app.domain.budget import TURN_TIMEOUT, Budget, BudgetPolicy, Outcome, Pause, Permit, Priority, Why
from app.domain.upstream import HeldBack, OutcomeUnknown, Said, Throttled, Unreachable, UpstreamFailure
from app.kernel import metrics, transport
from app.kernel.redis_outage import REDIS_OUTAGES, Outage
from app.kernel.settings import Settings
from app.kernel.telemetry import logger

log = logger("budgets")

KEPT = timedelta(days=1)
"""A connection unused for this long starts from scratch."""
PAGE_TIMEOUT = timedelta(seconds=10)
"""The longest wait for a listing's next page, which would otherwise start over at page one. Only one call of
the process may wait so long, so that it blocks at most one lane."""
REDIS_TIMEOUT = 0.5
"""Seconds a change may take: a Redis that accepts connections but never answers must not delay calls."""
SEEN_FOR = 1.0
"""Seconds in which to try the last value before asking for the current one."""
SWAPS = 50
"""Tries to change a budget that others also change. One try of each round succeeds."""

_SCRIPT = """
local time = redis.call('TIME')
local held = redis.call('GET', KEYS[1]) or ''
local swapped = 0
if ARGV[2] ~= '' and held == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  swapped = 1
end
return {swapped, held, time[1], time[2]}
"""
"""(expected, new or empty, milliseconds to keep) -> whether it was swapped, the previous value, Redis'
time."""

_OUR_WORDS = {
    Why.RATE: ("upstream_throttled", "waiting for a turn: the connection's rate of calls is used up"),
    Why.RETRY_AFTER: ("upstream_throttled", "waiting for the end of Microsoft's Retry-After"),
    Why.BREAKER: ("upstream_unavailable", "waiting: Microsoft has not been answering this connection"),
}

Clock = Callable[[], datetime]
Decided = TypeVar("Decided")
Decide = Callable[[Budget, datetime, BudgetPolicy], tuple[Budget, Decided]]
"""Gets the budget, the time and the policy. Returns the new budget, or the same object, and a result."""


class _Contended(Exception):
    """Other workers were quicker every time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Budgets at `now`, by connection, with their policy. `shared` is false while Redis does not answer;
    `away_for` is how long ago this process noticed that."""

    now: datetime
    shared: bool
    budgets: Mapping[UUID, Budget]
    policy: BudgetPolicy
    away_for: timedelta = timedelta()


def policy_for(settings: Settings) -> BudgetPolicy:
    return BudgetPolicy(
        start=settings.budget_start,
        floor=settings.budget_floor,
        ceiling=settings.budget_ceiling,
        breaker_failures=settings.breaker_failures,
        breaker_pause=timedelta(seconds=settings.breaker_pause_s),
        breaker_ceiling=timedelta(seconds=settings.breaker_ceiling_s),
        probe_timeout=timedelta(seconds=settings.step_timeout_s),
    )


@dataclass
class Budgets:
    """One per process. Connects at the first call; `close` ends the connections."""

    redis: Redis
    policy: BudgetPolicy
    standard: Clock
    """The clock all processes go by."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _known: dict[UUID, Budget] = field(default_factory=dict)
    """Budgets as this process last wrote them, for use while Redis is down."""
    _seen: dict[UUID, tuple[bytes, datetime, float]] = field(default_factory=dict)
    """Redis' last known value, its time then, and our monotonic clock's."""
    _locks: defaultdict[UUID, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    long_wait: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the one call that may wait PAGE_TIMEOUT."""
    _outage: Outage = field(default_factory=Outage)

    @classmethod
    def open(cls, url: str, policy: BudgetPolicy, standard: Clock) -> "Budgets":
        """Connects nothing yet. A stale connection is retried once."""
        retry = Retry(NoBackoff(), 1)
        redis = Redis.from_url(
            url, retry=retry, retry_on_error=[RedisConnectionError], **transport.redis_tls(url)
        )
        return cls(redis, policy, standard)

    async def close(self) -> None:
        await self.redis.aclose()

    def gate(self, connection_id: UUID, clock: Clock) -> "ConnectionGate":
        """`clock` is the caller's; between workers Redis' clock counts."""
        return ConnectionGate(self, connection_id, clock)

    async def change(self, connection_id: UUID, clock: Clock, decide: Decide[Decided]) -> Decided:
        """Replaces the budget by the result of `decide`, which may be called more than once."""
        async with self._locks[connection_id]:
            if not self._outage.is_pausing:
                try:
                    async with asyncio.timeout(REDIS_TIMEOUT):
                        return await self._change_shared(connection_id, clock, decide)
                except REDIS_OUTAGES as error:
                    self._lose(error)
                except _Contended:
                    log.warning("budget_contended", connection_id=str(connection_id))
            known = self._known_of(connection_id, now := clock())
            self._known[connection_id], decided = decide(known, now, self.policy.alone())
            return decided

    async def forget(self, connection_id: UUID) -> None:
        """Forgets the budget of a removed connection. If Redis cannot be asked, its keys expire by
        themselves."""
        for memory in (self._known, self._seen):
            memory.pop(connection_id, None)
        try:
            async with asyncio.timeout(REDIS_TIMEOUT):
                await self.redis.delete(f"registrar:budget:{connection_id}")
        except REDIS_OUTAGES as error:
            log.warning("budget_not_forgotten", error=type(error).__name__)

    async def look(self, connection_ids: Iterable[UUID], clock: Clock) -> Seen:
        """Reads the budgets of these connections. Changes nothing."""
        found: dict[UUID, Budget] = {}
        now, shared = clock(), not self._outage.is_pausing
        for connection_id in connection_ids:
            if shared:
                try:
                    async with asyncio.timeout(REDIS_TIMEOUT):
                        _, held, now = await self._ask(connection_id, clock)
                    found[connection_id] = self._of(connection_id, held, now)
                    continue
                except REDIS_OUTAGES as error:
                    self._lose(error)
                    shared = False
            found[connection_id] = self._known_of(connection_id, now)
        policy = self.policy if shared else self.policy.alone()
        return Seen(now, shared, found, policy, timedelta(seconds=0 if shared else self._outage.seconds))

    async def _change_shared(self, connection_id: UUID, clock: Clock, decide: Decide[Decided]) -> Decided:
        held, now, guessed = await self._held(connection_id, clock)
        for _ in range(SWAPS):
            known = self._of(connection_id, held, now)
            changed, decided = decide(known, now, self.policy)
            if changed is known:
                if not guessed:
                    return decided
                guessed = False
                _, held, now = await self._ask(connection_id, clock)
                continue
            guessed = False
            swapped, held, now = await self._ask(connection_id, clock, held, _encode(changed))
            if swapped:
                self._known[connection_id] = changed
                self._find()
                return decided
        raise _Contended

    async def _held(self, connection_id: UUID, clock: Clock) -> tuple[bytes, datetime, bool]:
        """The value to change, the time, and whether both are guessed from what this process knows.

        A swap of an outdated value fails and returns the current one, so the process that changed it last
        needs one round trip instead of two.
        """
        seen = self._seen.get(connection_id)
        if seen is not None and seen[0]:
            age = time.monotonic() - seen[2]
            if age < SEEN_FOR:
                return seen[0], seen[1] + timedelta(seconds=age) + self._moved(clock), True
        _, held, now = await self._ask(connection_id, clock)
        return held, now, False

    async def _ask(
        self, connection_id: UUID, clock: Clock, expected: bytes = b"", new: bytes = b""
    ) -> tuple[bool, bytes, datetime]:
        kept = int(KEPT / timedelta(milliseconds=1))
        swapped, held, seconds, micros = await self.redis.execute_command(  # type: ignore[no-untyped-call]
            "EVAL", _SCRIPT, 1, f"registrar:budget:{connection_id}", expected, new, kept
        )
        now = datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(micros))
        self._seen[connection_id] = (new if swapped else held, now, time.monotonic())
        return bool(swapped), held, now + self._moved(clock)

    def _moved(self, clock: Clock) -> timedelta:
        """How far tests and drills have moved the caller's clock; Redis' time is moved equally."""
        return clock() - self.standard()

    def _of(self, connection_id: UUID, held: bytes, now: datetime) -> Budget:
        """The stored value, or what this process knows if Redis has lost it or it cannot be read.

        A Retry-After that this process received while Redis was down also counts.
        """
        budget = _decode(held)
        if budget is None:
            return self._known_of(connection_id, now)
        known = self._known.get(connection_id)
        return budget if known is None else policy_of.blocked(budget, known.blocked_until)

    def _known_of(self, connection_id: UUID, now: datetime) -> Budget:
        known = self._known.get(connection_id)
        return known if known is not None and now - known.at < KEPT else policy_of.fresh(now, self.policy)

    def _lose(self, error: Exception) -> None:
        if self._outage.begin():
            log.warning("shared_budget_lost", error=type(error).__name__)

    def _find(self) -> None:
        if self._outage.end():
            log.info("shared_budget_found")


@dataclass(frozen=True, slots=True)
class ConnectionGate:
    """`app.microsoft.http.Gate` for one connection."""

    budgets: Budgets
    connection_id: UUID
    clock: Clock

    async def check(self) -> None:
        """Raises HeldBack if `enter` would. Takes no token: for use before work that leads to a call."""

        def decide(budget: Budget, now: datetime, policy: BudgetPolicy) -> tuple[Budget, Permit | Pause]:
            return budget, policy_of.enter(budget, now, policy, TURN_TIMEOUT)[1]

        decision = await self.budgets.change(self.connection_id, self.clock, decide)
        if isinstance(decision, Pause):
            raise _held_back(decision)

    async def enter(self, priority: Priority) -> Permit:
        match priority:
            case Priority.BEGUN:
                return await self._enter(TURN_TIMEOUT, overdraft=policy_of.OVERDRAFT)
            case Priority.ASKED:
                return await self._enter(TURN_TIMEOUT, past_breaker=True)
            case Priority.NEXT if not self.budgets.long_wait.locked():
                async with self.budgets.long_wait:
                    return await self._enter(PAGE_TIMEOUT)
            case Priority.NEXT | Priority.FIRST:
                return await self._enter(TURN_TIMEOUT)

    async def _enter(
        self, timeout: timedelta, *, overdraft: float = 0.0, past_breaker: bool = False
    ) -> Permit:
        def decide(
            budget: Budget, now: datetime, policy: BudgetPolicy
        ) -> tuple[Budget, tuple[Permit | Pause, datetime]]:
            changed, decision = policy_of.enter(
                budget, now, policy, timeout, overdraft=overdraft, past_breaker=past_breaker
            )
            return changed, (decision, now)

        decision, now = await self.budgets.change(self.connection_id, self.clock, decide)
        if isinstance(decision, Pause):
            raise _held_back(decision)
        if decision.at > now:
            await self._wait(decision, decision.at - now, timeout)
        return decision

    async def _wait(self, permit: Permit, wait: timedelta, timeout: timedelta) -> None:
        """Waits for the permit's time. If something holds the call back meanwhile, waits for that once
        more."""

        def decide(budget: Budget, now: datetime, policy: BudgetPolicy) -> tuple[Budget, Pause | None]:
            return budget, policy_of.recheck(budget, permit, now)

        waited = timedelta()
        while True:
            await self.budgets.sleep(wait.total_seconds())
            waited += wait
            pause = await self.budgets.change(self.connection_id, self.clock, decide)
            if pause is None:
                return
            if waited + pause.wait > 2 * timeout:
                raise _held_back(pause)
            wait = pause.wait

    async def leave(self, permit: Permit, failure: UpstreamFailure | None) -> None:
        outcome = _outcome(failure)
        retry_after = failure.retry_after if isinstance(failure, Throttled) else None

        def decide(
            budget: Budget, now: datetime, policy: BudgetPolicy
        ) -> tuple[Budget, tuple[Budget, Budget]]:
            after = policy_of.report(budget, permit, outcome, now, policy, retry_after)
            return after, (budget, after)

        before, after = await self.budgets.change(self.connection_id, self.clock, decide)
        connection = str(self.connection_id)
        if outcome is Outcome.THROTTLED:
            log.warning("connection_throttled", connection_id=connection, rate=round(after.rate, 3))
        if after.opened > before.opened:
            metrics.breaker_changed(opened=True)
            log.warning("breaker_opened", connection_id=connection, failures=after.failures)
        elif before.opened and not after.opened:
            metrics.breaker_changed(opened=False)
            log.info("breaker_closed", connection_id=connection)


def _held_back(pause: Pause) -> HeldBack:
    code, words = _OUR_WORDS[pause.why]
    return HeldBack(code, pause.wait, Said(description=words))


def _outcome(failure: UpstreamFailure | None) -> Outcome:
    match failure:
        case Throttled():
            return Outcome.THROTTLED
        case Unreachable() | OutcomeUnknown():
            return Outcome.UNAVAILABLE
        case _:
            return Outcome.ANSWERED


def _encode(budget: Budget) -> bytes:
    return orjson.dumps(budget)


def _decode(held: bytes) -> Budget | None:
    """None if it is not a budget: nothing, or a value of another version."""
    try:
        values = orjson.loads(held)
        return Budget(**{name: _read(name, value) for name, value in values.items()})
    except (ValueError, TypeError, AttributeError):
        return None


def _read(name: str, value: Any) -> Any:
    if name in _NUMBERS:
        return _NUMBERS[name](value)
    if value is None and name in _OPTIONAL:
        return None
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"{name} has no zone")
    return moment


_NUMBERS: Mapping[str, Callable[[Any], float]] = {
    "rate": float,
    "tokens": float,
    "step": float,
    "failures": int,
    "opened": int,
}
_OPTIONAL = frozenset(each.name for each in fields(Budget) if each.default is None)
