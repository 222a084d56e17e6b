"""Rows in bulk: parents are checked a statement at a time, and an outcome touches no index.

A foreign key looks its parent up once a row: four of them, and five indexes that nobody needed, were
two thirds of what storing 10,000 registrations cost (ADR 0015). The checks below refuse the same
things with the same SQLSTATE, once a statement, and hold more: a row belongs to its order's customer,
and a batch to the same order. Expand only: the release before runs on this schema as it is.
"""

from collections.abc import Sequence

from alembic import op

from app.db import table_locks

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {
    "partners": table_locks.ALTER,
    "customers": table_locks.ALTER,
    "orders": table_locks.ALTER,
    "batches": table_locks.ALTER,
    "registrations": table_locks.ALTER,
    "device_hashes": table_locks.ALTER,
}

# A function's plan is kept for as long as the connection lives, and was made when the tables were small:
# looking parents up one by one by their id is the only plan that stays right while they grow. So the
# functions run as the owner, whom row-level security gives no other condition to search by, compare the
# partners themselves, and tell nothing but that something is missing.
BY_INDEX = (
    "SECURITY DEFINER SET search_path = public, pg_temp "
    "SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off"
)

# FOR KEY SHARE is the lock a foreign key takes: the parent cannot go away before we have committed.
CHECK_REGISTRATIONS = f"""
CREATE FUNCTION check_registrations() RETURNS trigger LANGUAGE plpgsql {BY_INDEX} AS $$
BEGIN
    PERFORM FROM orders
    WHERE id IN (SELECT order_id FROM new_rows) ORDER BY id FOR KEY SHARE;
    PERFORM FROM batches
    WHERE id IN (SELECT batch_id FROM new_rows) ORDER BY id FOR KEY SHARE;
    IF EXISTS (
        SELECT FROM (
            SELECT DISTINCT partner_id, order_id, customer_id, batch_id FROM new_rows
        ) AS r
        LEFT JOIN orders o ON o.id = r.order_id LEFT JOIN batches b ON b.id = r.batch_id
        WHERE (o.partner_id, o.customer_id) IS DISTINCT FROM (r.partner_id, r.customer_id)
        OR r.batch_id IS NOT NULL
        AND (b.partner_id, b.order_id) IS DISTINCT FROM (r.partner_id, r.order_id)
    ) THEN
        RAISE foreign_key_violation USING MESSAGE = 'a registration without its order, customer or batch';
    END IF;
    RETURN NULL;
END $$
"""

CHECK_REGISTRATION = f"""
CREATE FUNCTION check_moved_registration() RETURNS trigger LANGUAGE plpgsql {BY_INDEX} AS $$
BEGIN
    PERFORM FROM orders o WHERE o.id = NEW.order_id
    AND o.partner_id = NEW.partner_id AND o.customer_id = NEW.customer_id FOR KEY SHARE;
    IF FOUND AND NEW.batch_id IS NOT NULL THEN
        PERFORM FROM batches b WHERE b.id = NEW.batch_id
        AND b.partner_id = NEW.partner_id AND b.order_id = NEW.order_id FOR KEY SHARE;
    END IF;
    IF NOT FOUND THEN
        RAISE foreign_key_violation USING MESSAGE = 'a registration without its order, customer or batch';
    END IF;
    RETURN NULL;
END $$
"""

CHECK_HASHES = f"""
CREATE FUNCTION check_device_hashes() RETURNS trigger LANGUAGE plpgsql {BY_INDEX} AS $$
BEGIN
    IF EXISTS (
        SELECT FROM new_rows h LEFT JOIN registrations r ON r.id = h.registration_id
        WHERE r.partner_id IS DISTINCT FROM h.partner_id
    ) THEN
        RAISE foreign_key_violation USING MESSAGE = 'a hash without its registration';
    END IF;
    RETURN NULL;
END $$
"""

DELETE_WITH_ORDER = """
CREATE FUNCTION delete_registrations_of_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM registrations WHERE order_id = OLD.id;
    RETURN OLD;
END $$
"""

KEEP_BATCHES = f"""
CREATE FUNCTION keep_batches_of_registrations() RETURNS trigger LANGUAGE plpgsql {BY_INDEX} AS $$
BEGIN
    IF EXISTS (SELECT FROM registrations r JOIN old_rows b ON b.id = r.batch_id) THEN
        RAISE foreign_key_violation USING MESSAGE = 'the batch has registrations';
    END IF;
    RETURN NULL;
END $$
"""

DELETE_HASHES = f"""
CREATE FUNCTION delete_hashes_of_registrations() RETURNS trigger LANGUAGE plpgsql {BY_INDEX} AS $$
BEGIN
    DELETE FROM device_hashes h USING old_rows r WHERE h.registration_id = r.id;
    RETURN NULL;
END $$
"""

# The bridge for the release before, to be taken down in the next one: its workers go by the states
# stored with the rows, which are no longer written while a batch is under way. A worker that takes a batch and
# does not say at the connection that it knows better finds them as that release left them.
STORE_STATES = """
CREATE FUNCTION store_states_of_registrations() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    said text := CASE
        WHEN NEW.state = 'submitted' THEN 'processing'
        WHEN NEW.state = 'submitting' AND NEW.uncertain THEN 'unknown'
        ELSE NEW.state
    END;
BEGIN
    UPDATE registrations SET state = said
    WHERE batch_id = NEW.id AND partner_id = NEW.partner_id
    AND state IN ('held', 'queued', 'submitting', 'processing', 'unknown') AND state <> said;
    RETURN NULL;
END $$
"""

FUNCTIONS = {
    "check_registrations": CHECK_REGISTRATIONS,
    "check_moved_registration": CHECK_REGISTRATION,
    "check_device_hashes": CHECK_HASHES,
    "delete_registrations_of_order": DELETE_WITH_ORDER,
    "keep_batches_of_registrations": KEEP_BATCHES,
    "delete_hashes_of_registrations": DELETE_HASHES,
    "store_states_of_registrations": STORE_STATES,
}

TRIGGERS = {
    ("registrations", "checked_inserted"): (
        "AFTER INSERT ON registrations REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION check_registrations()"
    ),
    ("registrations", "checked_moved"): (
        "AFTER UPDATE ON registrations FOR EACH ROW WHEN ("
        "(OLD.id, OLD.partner_id, OLD.order_id, OLD.customer_id, OLD.batch_id) IS DISTINCT FROM "
        "(NEW.id, NEW.partner_id, NEW.order_id, NEW.customer_id, NEW.batch_id)) "
        "EXECUTE FUNCTION check_moved_registration()"
    ),
    ("registrations", "deleted_hashes"): (
        "AFTER DELETE ON registrations REFERENCING OLD TABLE AS old_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION delete_hashes_of_registrations()"
    ),
    ("device_hashes", "checked_inserted"): (
        "AFTER INSERT ON device_hashes REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION check_device_hashes()"
    ),
    ("device_hashes", "checked_updated"): (
        "AFTER UPDATE ON device_hashes REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION check_device_hashes()"
    ),
    ("orders", "deleted_registrations"): (
        "BEFORE DELETE ON orders FOR EACH ROW EXECUTE FUNCTION delete_registrations_of_order()"
    ),
    ("batches", "stored_states"): (
        "AFTER UPDATE ON batches FOR EACH ROW WHEN ("
        "NEW.owner IS NOT NULL AND NEW.owner IS DISTINCT FROM OLD.owner "
        "AND NEW.state IN ('queued', 'submitting', 'submitted', 'unknown') "
        "AND current_setting('registrar.row_states', true) IS DISTINCT FROM 'of_batch') "
        "EXECUTE FUNCTION store_states_of_registrations()"
    ),
    ("batches", "kept"): (
        "AFTER DELETE ON batches REFERENCING OLD TABLE AS old_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION keep_batches_of_registrations()"
    ),
}

FOREIGN_KEYS = {
    "registrations": {
        "fk_registrations_partner_id_order_id": "(partner_id, order_id) REFERENCES orders (partner_id, id) "
        "ON DELETE CASCADE",
        "fk_registrations_partner_id_customer_id": "(partner_id, customer_id) "
        "REFERENCES customers (partner_id, id)",
        "fk_registrations_partner_id_batch_id": "(partner_id, batch_id) REFERENCES batches (partner_id, id)",
        "fk_registrations_partner_id": "(partner_id) REFERENCES partners (id) ON DELETE CASCADE",
    },
    "device_hashes": {
        "fk_device_hashes_partner_id_registration_id": "(partner_id, registration_id) "
        "REFERENCES registrations (partner_id, id) ON DELETE CASCADE",
        "fk_device_hashes_partner_id": "(partner_id) REFERENCES partners (id) ON DELETE CASCADE",
    },
}


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    for function in FUNCTIONS.values():
        op.execute(function)
    for (_table, name), definition in TRIGGERS.items():
        op.execute(f"CREATE TRIGGER {name} {definition}")
    for table in ("device_hashes", "registrations"):
        for key in FOREIGN_KEYS[table]:
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {key}")
    op.execute("ALTER TABLE registrations DROP CONSTRAINT uq_registrations_partner_id_id")
    op.execute("DROP INDEX ix_registrations_partner_id_updated_at")
    op.execute("DROP INDEX ix_registrations_order_id_state_row_number")
    # Half of each page stays free, so that the outcome of every row on it finds place beside the row.
    op.execute("ALTER TABLE registrations SET (fillfactor = 50)")
    # Of rows that changed of late. It costs a row nothing and lets an update stay on its page.
    op.execute("CREATE INDEX ix_registrations_updated_at ON registrations USING brin (updated_at)")
    op.execute(
        "CREATE INDEX ix_registrations_in_no_batch ON registrations (order_id, row_number) "
        "WHERE batch_id IS NULL"
    )
    op.execute(
        "COMMENT ON COLUMN registrations.state IS 'while its batch is open, the batch''s state says more'"
    )


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.execute("COMMENT ON COLUMN registrations.state IS NULL")
    op.execute("ALTER TABLE registrations RESET (fillfactor)")
    op.execute("DROP INDEX ix_registrations_in_no_batch")
    op.execute("DROP INDEX ix_registrations_updated_at")
    op.execute(
        "CREATE INDEX ix_registrations_order_id_state_row_number "
        "ON registrations (order_id, state, row_number)"
    )
    op.execute(
        "CREATE INDEX ix_registrations_partner_id_updated_at ON registrations (partner_id, updated_at)"
    )
    op.execute(
        "ALTER TABLE registrations ADD CONSTRAINT uq_registrations_partner_id_id UNIQUE (partner_id, id)"
    )
    for table in ("registrations", "device_hashes"):
        for key, definition in FOREIGN_KEYS[table].items():
            op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {key} FOREIGN KEY {definition}")
    for table, name in TRIGGERS:
        op.execute(f"DROP TRIGGER {name} ON {table}")
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}()")
