"""State tables are law, and a batch is held by the reasons that are stored with it.

A state moves only as the tables of transitions say. The lists are frozen here; a test holds what the database has in
the end equal to `app/domain`. A move that is refused raises SQLSTATE RG002. Only expands: the release before makes no
other moves, and a bridge stores the one reason that it knows.
"""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from alembic import op

from app.db import table_locks

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

MOVES: Mapping[str, Mapping[str, str]] = {
    "batches": {
        "held": "queued cancelled",
        "queued": "held submitting submitted cancelled settled",
        "submitting": "queued held submitted unknown settled",
        "submitted": "queued unknown settled",
        "unknown": "queued submitting submitted settled",
    },
    "consents": {
        "unknown": "requested granted",
        "requested": "granted",
        "granted": "stale revoked unknown",
        "stale": "granted revoked unknown",
        "revoked": "requested granted",
    },
    "deliveries": {
        "pending": "retrying succeeded exhausted",
        "retrying": "pending succeeded exhausted",
        "succeeded": "pending",
        "exhausted": "pending",
    },
    "imports": {
        "uploading": "uploaded discarded",
        "uploaded": "reading refused discarded",
        "reading": "ready ready_with_errors refused discarded",
        "ready": "committing discarded expired",
        "ready_with_errors": "committing discarded expired",
        "refused": "discarded",
        "committing": "committed ready ready_with_errors",
    },
    "webhook_endpoints": {
        "enabled": "degraded disabled",
        "degraded": "enabled disabled",
        "disabled": "enabled",
    },
}
# With the corrections: what a person takes back at a portal.
MOVES_OF_ROWS: Mapping[str, str] = {
    "held": "queued cancelled",
    "queued": "held submitting cancelled failed",
    "submitting": "queued held processing unknown failed registered already_registered",
    "processing": "queued registered already_registered conflict failed unknown",
    "unknown": "queued held processing registered already_registered conflict failed",
    "registered": "already_registered conflict failed",
    "already_registered": "registered conflict failed",
    "conflict": "queued held registered already_registered failed",
    "failed": "queued held registered already_registered conflict",
}
LOCKS = {
    **dict.fromkeys([*MOVES, "registrations"], table_locks.REFERENCE),
    "batches": table_locks.ALTER,
}


def spelt(moves: Mapping[str, str]) -> str:
    """The moves as an array of PostgreSQL's."""
    return "{" + ",".join(f"{old}>{new}" for old, news in moves.items() for new in news.split()) + "}"


REFUSE = """
CREATE FUNCTION refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'RG002',
        MESSAGE = format('%s: a row cannot move from %s to %s', TG_TABLE_NAME, OLD.state, NEW.state);
END $$
"""

# The function runs for a move that is refused only; of all others the condition is the whole cost.
LAWFUL = """
CREATE TRIGGER lawful AFTER UPDATE ON {table} FOR EACH ROW WHEN (
    OLD.state <> NEW.state AND OLD.state || '>' || NEW.state <> ALL ('{moves}'::text[]))
EXECUTE FUNCTION refuse_move()
"""

# Until a registration has an outcome, its state is that of its batch while that is open (ADR 0015).
STATE = """CASE
    WHEN {row}.state NOT IN ('held', 'queued', 'submitting', 'processing', 'unknown') OR b.state IS NULL
        OR b.state IN ('settled', 'cancelled') THEN {row}.state
    WHEN b.state = 'submitted' THEN 'processing'
    WHEN b.state = 'submitting' AND b.uncertain THEN 'unknown'
    ELSE b.state
END"""
STATES = f"""
    SELECT DISTINCT {STATE.format(row="r")} AS state
    FROM (SELECT DISTINCT batch_id, state FROM {{rows}}) AS r LEFT JOIN batches b ON b.id = r.batch_id
"""
ILLEGAL = f"o.state <> n.state AND o.state || '>' || n.state <> ALL ('{spelt(MOVES_OF_ROWS)}'::text[])"

# First the states that there were with all that there are now: the rows of one statement are alike, and there is
# nothing to look for row by row. As in 0012, batches are looked up by their ids.
CHECK_ROWS = f"""
CREATE FUNCTION check_registration_moves() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET enable_seqscan = off SET enable_mergejoin = off AS $$
DECLARE
    said text;
BEGIN
    IF TG_TABLE_SCHEMA <> 'public' OR TG_TABLE_NAME <> 'registrations' THEN
        RAISE insufficient_privilege USING MESSAGE = 'this function serves the table registrations only';
    END IF;
    PERFORM FROM ({STATES.format(rows="old_rows")}) AS o CROSS JOIN ({STATES.format(rows="new_rows")}) AS n
    WHERE {ILLEGAL};
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT format('registrations: a row cannot move from %s to %s', o.state, n.state) INTO said
    FROM (
        SELECT r.id, {STATE.format(row="r")} AS state FROM old_rows r LEFT JOIN batches b ON b.id = r.batch_id
    ) AS o JOIN (
        SELECT r.id, {STATE.format(row="r")} AS state FROM new_rows r LEFT JOIN batches b ON b.id = r.batch_id
    ) AS n USING (id)
    WHERE {ILLEGAL} LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'RG002', MESSAGE = said;
    END IF;
    RETURN NULL;
END $$
"""
LAWFUL_ROWS = """
CREATE TRIGGER lawful AFTER UPDATE ON registrations REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION check_registration_moves()
"""

# The release before writes the state alone. The bridge leaves everybody else to the constraint.
STORE_HOLDS = """
CREATE FUNCTION store_holds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.holds := CASE WHEN NEW.state = 'held' THEN '{consent}'::text[] ELSE '{}' END;
    RETURN NEW;
END $$
"""
BRIDGES = (
    "stored_holds_inserted BEFORE INSERT ON batches FOR EACH ROW "
    "WHEN (NEW.state = 'held' AND NEW.holds = '{}') EXECUTE FUNCTION store_holds()",
    "stored_holds_updated BEFORE UPDATE OF state ON batches FOR EACH ROW "
    "WHEN (OLD.holds = NEW.holds AND (NEW.state = 'held') = (NEW.holds = '{}')) EXECUTE FUNCTION store_holds()",
)


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    op.execute(REFUSE)
    op.execute(CHECK_ROWS)
    for name in ("refuse_move", "check_registration_moves"):
        op.execute(f"REVOKE ALL ON FUNCTION {name}() FROM PUBLIC")
    for table, moves in MOVES.items():
        op.execute(LAWFUL.format(table=table, moves=spelt(moves)))
    op.execute(LAWFUL_ROWS)
    op.add_column(
        "batches",
        sa.Column(
            "holds",
            sa.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="why it is held",
        ),
    )
    op.execute("UPDATE batches SET holds = '{consent}' WHERE state = 'held'")
    op.create_check_constraint("held_by_reasons", "batches", "(state = 'held') = (cardinality(holds) > 0)")
    op.execute(STORE_HOLDS)
    op.execute("REVOKE ALL ON FUNCTION store_holds() FROM PUBLIC")
    for bridge in BRIDGES:
        op.execute(f"CREATE TRIGGER {bridge}")
    table_locks.end_prepared_statements(op.get_bind())


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    for name in ("stored_holds_inserted", "stored_holds_updated"):
        op.execute(f"DROP TRIGGER {name} ON batches")
    op.execute("DROP FUNCTION store_holds()")
    op.drop_column("batches", "holds")
    for table in (*MOVES, "registrations"):
        op.execute(f"DROP TRIGGER lawful ON {table}")
    op.execute("DROP FUNCTION check_registration_moves()")
    op.execute("DROP FUNCTION refuse_move()")
    table_locks.end_prepared_statements(op.get_bind())
