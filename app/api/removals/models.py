"""Answers to a removal and to its preview."""

from uuid import UUID

from pydantic import Field

from app.api.contract.models import Output
from app.services.operations.removal import Removal


class ObstacleOut(Output):
    kind: str = Field(description="`order` or `import`.")
    id: UUID
    name: str = Field(description="Its reference.")
    words: str = Field(description="What is not finished about it, and what to do.")


class RemovalOut(Output):
    dry_run: bool = Field(description="Nothing was changed.")
    finished: bool = Field(description="All of it is gone. If not, and it is no dry run: call again.")
    name: str
    counts: dict[str, int] = Field(
        description="Rows by table that were there when the call began. 1000000: that many or more."
    )
    obstacles: list[ObstacleOut] = Field(description="What has to be finished first; in a dry run only.")


def shown(found: Removal, *, dry_run: bool) -> RemovalOut:
    return RemovalOut(
        dry_run=dry_run,
        finished=found.finished,
        name=found.name,
        counts=dict(found.counts),
        obstacles=[
            ObstacleOut(kind=each.kind, id=each.id, name=each.name, words=each.words)
            for each in found.obstacles
        ],
    )
