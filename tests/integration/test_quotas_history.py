"""History that people write by hand is limited, so repeated records cannot fill the disk."""

from sqlalchemy import text

from app.domain.quota import KEPT_BY_HAND
from tests.support.portals import portal_partner, tuple_of
from tests.support.world import World

OLDER = KEPT_BY_HAND + 20


async def test_of_what_is_recorded_by_hand_the_newest_is_kept(world: World) -> None:
    partner = await portal_partner(world)
    order = await partner.order([tuple_of(1)])
    [file] = await partner.files(order)
    long_ago = "CAST(:now AS timestamptz) - interval '1 day' - g * interval '1 second'"
    async with world.runtime.system_transaction() as tx:
        at = {"now": world.runtime.now(), "partner": partner.id, "key": partner.caller.key_id}
        await tx.session.execute(
            text(
                "INSERT INTO consent_changes (id, partner_id, customer_id, to_state, evidence, at, made_by) "
                f"SELECT gen_random_uuid(), :partner, :customer, 'granted', 'manual', {long_ago}, :key "
                f"FROM generate_series(1, {OLDER}) AS g"
            ),
            {**at, "customer": partner.customer_id},
        )
        await tx.session.execute(
            text(
                "INSERT INTO batch_attempts (id, partner_id, batch_id, kind, started_at, made_by) "
                "SELECT gen_random_uuid(), CAST(:partner AS uuid), CAST(:batch AS uuid), "
                f"'undo', {long_ago}, "
                "CAST(:key AS uuid) "
                f"FROM generate_series(1, {OLDER}) AS g UNION ALL "
                # Entries that Registrar itself wrote stay.
                "SELECT gen_random_uuid(), CAST(:partner AS uuid), CAST(:batch AS uuid), "
                f"'status', {long_ago}, "
                "CAST(NULL AS uuid) "
                "FROM generate_series(1, 3) AS g"
            ),
            {**at, "batch": file["batch_id"]},
        )
    await partner.consent()
    await partner.ok("POST", f"/batches/{file['batch_id']}:mark-uploaded")
    async with world.runtime.system_transaction() as tx:
        kept = await tx.session.execute(
            text(
                "SELECT (SELECT count(*) FROM consent_changes WHERE made_by IS NOT NULL), "
                "(SELECT count(*) FROM batch_attempts WHERE made_by IS NOT NULL), "
                "(SELECT count(*) FROM batch_attempts WHERE made_by IS NULL), "
                "(SELECT max(at) > :begun FROM consent_changes WHERE made_by IS NOT NULL), "
                "(SELECT max(started_at) > :begun FROM batch_attempts WHERE made_by IS NOT NULL)"
            ),
            {"begun": at["now"]},
        )
        assert tuple(kept.one()) == (KEPT_BY_HAND, KEPT_BY_HAND, 3, True, True)
