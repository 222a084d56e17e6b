"""Actors: who does something (an API key, an operator or the system), and for which partner."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from app.domain.ids import PartnerId


class ActorKind(StrEnum):
    KEY = "key"
    """An API key: an order system, or a person at the command line."""
    OPERATOR = "operator"
    """A person with access to the installation, through the operator's commands."""
    SYSTEM = "system"
    """Registrar itself: workers and the sweep."""


@dataclass(frozen=True, slots=True)
class Actor:
    kind: ActorKind
    id: UUID | None = None
    """The API key's id. Operators and the system have none."""

    @property
    def key_id(self) -> UUID | None:
        """The value of columns such as `created_by` and `made_by`: the API key, or None."""
        return self.id if self.kind is ActorKind.KEY else None


SYSTEM = Actor(ActorKind.SYSTEM)
OPERATOR = Actor(ActorKind.OPERATOR)


class Principal(Protocol):
    """The partner that a change belongs to, and the actor who makes it. Transactions are opened with one.

    Callers of the API, workers' claims and transactions are principals.
    """

    @property
    def partner_id(self) -> PartnerId: ...

    @property
    def actor(self) -> Actor: ...


@dataclass(frozen=True, slots=True)
class ActingFor:
    """The system or an operator, acting for one partner."""

    partner_id: PartnerId
    actor: Actor = SYSTEM
