"""Devices: one row for each identity of each customer, with what is believed of it now.

Kept by a trigger, in the transaction that records an outcome: so what the release before settles while it runs
beside this one is not missed. What was settled before is added by a background job, chunk by chunk
(`app.services.devices.devices.backfill`); `device_backfill` says how far it is. Only expands: docs/adr/0028.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db import table_locks

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

LOCKS = {"customers": table_locks.REFERENCE, "registrations": table_locks.REFERENCE}

# The sub-select makes PostgreSQL read the setting once a statement instead of once a row.
MINE = "(SELECT nullif(current_setting('registrar.partner_id', true), '')::uuid)"

# As in 0012: parents are looked up by their ids, whatever PostgreSQL believes about the tables.
BY_INDEX = "SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off"
PATH = "SET search_path = public, pg_temp"

# A usual PKID is one device by itself. Otherwise everything that names the device counts. A device without a name
# (its hash has no serial number, and hashes are not kept) is the registration's own.
IDENTITY = """
CREATE FUNCTION device_identity(registration_id uuid, serial_number text, manufacturer text, model text,
    product_key text) RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN product_key IS NULL AND serial_number IS NULL THEN registration_id
        ELSE encode(substr(sha256(convert_to(CASE
            WHEN product_key ~ '^[0-9]{13}$' AND product_key !~ '^(.)\\1+$'
                AND strpos('012345678901234567890123456789', product_key) = 0
                AND strpos('987654321098765432109876543210', product_key) = 0
            THEN 'P' || product_key
            ELSE 'S' || coalesce(serial_number, '') || chr(31) || coalesce(manufacturer, '') || chr(31)
                || coalesce(model, '') || chr(31) || coalesce(product_key, '')
        END, 'UTF8')), 1, 16), 'hex')::uuid
    END
$$
"""
IDENTITY_OF_R = "device_identity(r.id, r.serial_number, r.manufacturer, r.model, r.product_key)"
DEFINITE_OUTCOME = "r.state IN ('registered', 'already_registered', 'conflict')"
IS_OUTCOME = (
    "r.settled_at IS NOT NULL "
    "AND r.state IN ('registered', 'already_registered', 'conflict', 'failed', 'unknown')"
)
BELIEVED = (
    "CASE r.state WHEN 'already_registered' THEN 'registered' WHEN 'failed' THEN 'not_registered' "
    "ELSE r.state END"
)
# A call whose outcome is not known may have registered the device, whatever a later one says of itself.
RANK = "({0}.state IN ('registered', 'conflict'), {0}.state = 'unknown', {0}.state_at, {0}.registration_id)"
ANSWERS = f"(excluded.registration_id = d.registration_id OR {RANK.format('excluded')} >= {RANK.format('d')})"
LATER = (
    "(excluded.last_outcome_at, excluded.last_registration_id) >= (d.last_outcome_at, d.last_registration_id)"
)

# In the order of the unique index: two that write overlapping devices wait for each other, and never in a circle.
# The id is that of the registration from which the device comes: one registration is one device.
KEEP = f"""
CREATE FUNCTION keep_devices(settled uuid[]) RETURNS void LANGUAGE plpgsql {PATH} {BY_INDEX} AS $$
BEGIN
    INSERT INTO devices AS d (partner_id, id, customer_id, identity, state, state_at, registration_id,
        first_outcome_at, last_outcome_at, last_registration_id, serial_number, manufacturer, model, product_key)
    SELECT DISTINCT ON (o.customer_id, o.identity)
        o.partner_id, o.id, o.customer_id, o.identity, o.believed, o.settled_at, o.id, first_value(o.settled_at) OVER of_device,
        last_value(o.settled_at) OVER of_device, last_value(o.id) OVER of_device,
        o.serial_number, o.manufacturer, o.model, o.product_key
    FROM (
        SELECT r.partner_id, r.id, r.customer_id, {IDENTITY_OF_R} AS identity, {BELIEVED} AS believed,
            {DEFINITE_OUTCOME} AS definite, r.settled_at, r.serial_number, r.manufacturer, r.model, r.product_key
        FROM registrations r WHERE r.id = ANY (settled) AND {IS_OUTCOME}
    ) AS o
    WINDOW of_device AS (PARTITION BY o.customer_id, o.identity ORDER BY o.settled_at, o.id
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
    ORDER BY o.customer_id, o.identity, o.definite DESC, (o.believed = 'unknown') DESC, o.settled_at DESC,
        o.id DESC
    ON CONFLICT (customer_id, identity) DO UPDATE SET
        state = CASE WHEN {ANSWERS} THEN excluded.state ELSE d.state END,
        state_at = CASE WHEN {ANSWERS} THEN excluded.state_at ELSE d.state_at END,
        registration_id = CASE WHEN {ANSWERS} THEN excluded.registration_id ELSE d.registration_id END,
        first_outcome_at = least(d.first_outcome_at, excluded.first_outcome_at),
        last_outcome_at = greatest(d.last_outcome_at, excluded.last_outcome_at),
        last_registration_id = CASE WHEN {LATER} THEN excluded.last_registration_id
            ELSE d.last_registration_id END,
        serial_number = coalesce(d.serial_number, excluded.serial_number),
        manufacturer = coalesce(d.manufacturer, excluded.manufacturer),
        model = coalesce(d.model, excluded.model);
END $$
"""

# Of outcomes that were taken back: what the device's other registrations say, as if the mistake had not been made.
RECONSIDER = f"""
CREATE FUNCTION reconsider_devices(corrected uuid[]) RETURNS void LANGUAGE plpgsql {PATH} {BY_INDEX} AS $$
BEGIN
    UPDATE devices d SET (state, state_at, registration_id) = (
        SELECT {BELIEVED}, r.settled_at, r.id FROM registrations r
        WHERE r.partner_id = d.partner_id AND r.customer_id = d.customer_id AND {IS_OUTCOME}
        AND (r.serial_number = d.serial_number OR r.product_key = d.product_key OR r.id = d.registration_id)
        AND {IDENTITY_OF_R} = d.identity
        ORDER BY {DEFINITE_OUTCOME} DESC, (r.state = 'unknown') DESC, r.settled_at DESC, r.id DESC LIMIT 1)
    FROM registrations c
    WHERE c.id = ANY (corrected) AND d.customer_id = c.customer_id AND d.registration_id = c.id
    AND d.identity = {IDENTITY_OF_R.replace("r.", "c.")};
END $$
"""

# A correction waits for a chunk of the background job, which has read the outcome that is taken back.
KEEP_SETTLED = f"""
CREATE FUNCTION keep_settled_devices() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    settled uuid[] := ARRAY(SELECT r.id FROM new_rows r WHERE {IS_OUTCOME});
    corrected uuid[];
BEGIN
    IF cardinality(settled) = 0 THEN
        RETURN NULL;
    END IF;
    corrected := ARRAY(SELECT n.id FROM new_rows n JOIN old_rows r ON r.id = n.id
        WHERE n.state = 'failed' AND n.settled_at IS NOT NULL
        AND r.settled_at IS NOT NULL AND {DEFINITE_OUTCOME});
    IF cardinality(corrected) > 0 THEN
        PERFORM pg_advisory_xact_lock_shared(7431985024);
    END IF;
    PERFORM keep_devices(settled);
    IF cardinality(corrected) > 0 THEN
        PERFORM reconsider_devices(corrected);
    END IF;
    RETURN NULL;
END $$
"""

GUARD = """
    IF TG_TABLE_SCHEMA <> 'public' OR TG_TABLE_NAME <> '{table}' THEN
        RAISE insufficient_privilege USING MESSAGE = 'this function serves the table {table} only';
    END IF;"""

# Once a statement and not once a row, as a foreign key would: see 0003.
CHECK = f"""
CREATE FUNCTION check_devices() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {PATH} {BY_INDEX} AS $$
BEGIN{GUARD.format(table="devices")}
    PERFORM FROM customers WHERE id = ANY (ARRAY(SELECT DISTINCT customer_id FROM new_rows))
    ORDER BY id FOR KEY SHARE;
    IF EXISTS (
        SELECT FROM (SELECT DISTINCT partner_id, customer_id FROM new_rows) AS d
        LEFT JOIN customers c ON c.id = d.customer_id
        WHERE c.partner_id IS DISTINCT FROM d.partner_id
    ) THEN
        RAISE foreign_key_violation USING MESSAGE = 'a device without its customer';
    END IF;
    RETURN NULL;
END $$
"""
CHECK_MOVED = """
CREATE FUNCTION refuse_moved_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE foreign_key_violation USING MESSAGE = 'a device stays with its customer';
END $$
"""
DELETE_WITH_CUSTOMER = f"""
CREATE FUNCTION delete_devices_of_customers() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {PATH} {BY_INDEX}
AS $$
BEGIN{GUARD.format(table="customers")}
    DELETE FROM devices d USING old_rows c
    WHERE d.customer_id = c.id AND d.partner_id IS NOT DISTINCT FROM c.partner_id;
    RETURN NULL;
END $$
"""

# Under row-level security an index of trigrams serves no condition, because ILIKE is not leakproof. So the function
# takes the system's role, and looks at the rows of the transaction's own partner only.
FIND = f"""
CREATE FUNCTION find_devices(pattern text, most integer) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SET role = 'registrar_system' {PATH} AS $$
BEGIN
    RETURN QUERY EXECUTE 'SELECT id FROM devices WHERE partner_id = $1 AND serial_number ILIKE $2 LIMIT $3'
        USING nullif(current_setting('registrar.partner_id', true), '')::uuid, pattern, most;
END $$
"""

FUNCTIONS = {
    "device_identity(uuid, text, text, text, text)": IDENTITY,
    "keep_devices(uuid[])": KEEP,
    "reconsider_devices(uuid[])": RECONSIDER,
    "keep_settled_devices()": KEEP_SETTLED,
    "check_devices()": CHECK,
    "refuse_moved_device()": CHECK_MOVED,
    "delete_devices_of_customers()": DELETE_WITH_CUSTOMER,
    "find_devices(text, integer)": FIND,
}
CALLED = [name for name in FUNCTIONS if not name.endswith("()")]
"""By the service's roles; the others are called by triggers only."""

TRIGGERS = (
    "kept_devices AFTER UPDATE ON registrations REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows "
    "FOR EACH STATEMENT EXECUTE FUNCTION keep_settled_devices()",
    "deleted_devices AFTER DELETE ON customers REFERENCING OLD TABLE AS old_rows "
    "FOR EACH STATEMENT EXECUTE FUNCTION delete_devices_of_customers()",
    "checked_inserted AFTER INSERT ON devices REFERENCING NEW TABLE AS new_rows "
    "FOR EACH STATEMENT EXECUTE FUNCTION check_devices()",
    "checked_moved AFTER UPDATE ON devices FOR EACH ROW WHEN ("
    "(OLD.partner_id, OLD.id, OLD.customer_id) IS DISTINCT FROM (NEW.partner_id, NEW.id, NEW.customer_id)) "
    "EXECUTE FUNCTION refuse_moved_device()",
)


def _tables() -> None:
    op.create_table(
        "devices",
        sa.Column("partner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("identity", sa.Uuid(), nullable=False, comment="a digest of what identifies the device"),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="by the last definite answer for this customer"
        ),
        sa.Column("state_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("registration_id", sa.Uuid(), nullable=False, comment="the one that the state comes from"),
        sa.Column("first_outcome_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_outcome_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_registration_id", sa.Uuid(), nullable=False),
        sa.Column("serial_number", sa.Text(), nullable=True),
        sa.Column("manufacturer", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("product_key", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('conflict', 'not_registered', 'registered', 'unknown')",
            name=op.f("ck_devices_state_known"),
        ),
        sa.PrimaryKeyConstraint("partner_id", "id", name=op.f("pk_devices")),
        sa.UniqueConstraint("customer_id", "identity", name=op.f("uq_devices_customer_id_identity")),
        comment="kept by a trigger on registrations, in the same transaction",
    )
    # So that an outcome finds place beside its row and touches no index.
    op.execute("ALTER TABLE devices SET (fillfactor = 90)")
    op.create_index("ix_devices_customer_id_id", "devices", ["customer_id", "id"])
    op.create_index(
        "ix_devices_serial_number",
        "devices",
        ["partner_id", "serial_number"],
        postgresql_ops={"serial_number": "text_pattern_ops"},
        postgresql_where=sa.text("serial_number IS NOT NULL"),
    )
    op.create_index(
        "ix_devices_partner_id_product_key",
        "devices",
        ["partner_id", "product_key"],
        postgresql_where=sa.text("product_key IS NOT NULL"),
    )
    op.create_index(
        "ix_devices_not_registered",
        "devices",
        ["partner_id", "state", "id"],
        postgresql_where=sa.text("state <> 'registered'"),
    )
    op.create_table(
        "device_backfill",
        sa.Column("last_id", sa.Uuid(), nullable=False),
        sa.Column("after_id", sa.Uuid(), nullable=False, comment="registrations up to here are done"),
        sa.PrimaryKeyConstraint("last_id", name=op.f("pk_device_backfill")),
        comment="a row: registrations up to last_id were there before devices, and are being looked through",
    )


def upgrade() -> None:
    table_locks.take(op.get_bind(), LOCKS)
    _tables()
    op.execute("ALTER TABLE devices ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE devices FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY own_rows ON devices TO registrar_app USING (partner_id = {MINE})")
    op.execute("CREATE POLICY every_row ON devices TO registrar_system USING (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON devices TO registrar_app, registrar_system")
    op.execute("REVOKE ALL ON device_backfill FROM registrar_app, registrar_system")
    op.execute("GRANT SELECT ON device_backfill TO registrar_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON device_backfill TO registrar_system")
    # One of them would be checked in the role that it takes, which may not run it yet.
    op.execute("SET LOCAL check_function_bodies = off")
    for function in FUNCTIONS.values():
        op.execute(function)
    op.execute("SET LOCAL check_function_bodies = on")
    for name in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC")
    for name in CALLED:
        op.execute(f"GRANT EXECUTE ON FUNCTION {name} TO registrar_app, registrar_system")
    for definition in TRIGGERS:
        op.execute(f"CREATE TRIGGER {definition}")
    # From the trigger on, nothing is settled until this migration is done: no outcome is missed.
    op.execute(
        "INSERT INTO device_backfill (last_id, after_id) "
        "SELECT id, '00000000-0000-0000-0000-000000000000' FROM registrations ORDER BY id DESC LIMIT 1"
    )


def downgrade() -> None:
    table_locks.take_every_table(op.get_bind())
    op.execute("DROP TRIGGER kept_devices ON registrations")
    op.execute("DROP TRIGGER deleted_devices ON customers")
    op.drop_table("device_backfill")
    op.drop_table("devices")
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {name}")
