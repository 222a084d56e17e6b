"""A gate for tests without a budget: lets every call through and records its outcome."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from app.domain.budget import Permit, Priority
from app.domain.upstream import UpstreamFailure


@dataclass
class OpenGate:
    entered: list[Priority] = field(default_factory=list)
    left: list[UpstreamFailure | None] = field(default_factory=list)

    async def enter(self, priority: Priority) -> Permit:
        self.entered.append(priority)
        return Permit(datetime.now(UTC))

    async def leave(self, permit: Permit, failure: UpstreamFailure | None) -> None:
        self.left.append(failure)
