"""The tables' metadata, and columns and constraints that many tables have.

A child's foreign key contains `partner_id`, so that no row can refer to another partner's parent. Row-level
security, the triggers and the roles are in the migrations, because SQLAlchemy's metadata cannot express them.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    MetaData,
    Uuid,
)

from app.db.sql import listed

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def id_column() -> Column[object]:
    return Column("id", Uuid, primary_key=True)


def partner_column() -> Column[object]:
    return Column("partner_id", Uuid, ForeignKey("partners.id", ondelete="CASCADE"), nullable=False)


def time_column(name: str, *, required: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=not required)


def of_parent(column: str, parent: str, *, ondelete: str | None = None) -> ForeignKeyConstraint:
    """A foreign key to a parent of the same partner."""
    return ForeignKeyConstraint(
        ["partner_id", column], [f"{parent}.partner_id", f"{parent}.id"], ondelete=ondelete
    )


def held_column(column: str, parent: str, **details: Any) -> Column[Any]:
    """The id of a parent of the same partner. A trigger checks it once per statement (migration 0003): a
    foreign key would be checked for each row, and these tables are filled by the thousand."""
    return Column(column, Uuid, info={"parent": parent}, **details)


def one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({listed(values)})", name=f"{column}_known")
