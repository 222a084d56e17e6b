"""The metadata every table belongs to, and the columns and constraints that they share.

Apart from the tables, so that tables can live in more than one module.
"""

from collections.abc import Iterable

from sqlalchemy import CheckConstraint, Column, DateTime, ForeignKey, ForeignKeyConstraint, MetaData, Uuid

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


def child_of(column: str, parent: str, *, ondelete: str | None = None) -> ForeignKeyConstraint:
    """A child's parent, of the same partner."""
    return ForeignKeyConstraint(
        ["partner_id", column], [f"{parent}.partner_id", f"{parent}.id"], ondelete=ondelete
    )


def one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({listed(values)})", name=f"{column}_known")
