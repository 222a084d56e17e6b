"""Orders at the command line: lists, batches, finding, references in parts, and questions before acting."""

from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from app.cli.outcome import ExitCode
from app.domain.order import MAX_DEVICES
from app.domain.registration import RegistrationState
from tests.unit.cli_wire import CUSTOMER, NOW, OTHER, Wire, counts, problem, row_of
from tests.unit.pseudo_terminal import at_terminal


@pytest.fixture
def wire() -> Wire:
    return Wire()


def add(wire: Wire, reference: str, devices: int = 2, **more: Any) -> str:
    id = str(UUID(int=100 + len(wire.orders)))
    wire.orders[id] = {
        "id": id,
        "reference": reference,
        "purchase_order": None,
        "customer_id": CUSTOMER["id"],
        "platform": "partner_center",
        "group_tag": "Desk",
        "state": "in_progress",
        "counts": counts(queued=devices),
        "created_at": NOW,
        **more,
    }
    return id


def in_parts(wire: Wire, reference: str = "PO-7") -> list[str]:
    return [
        add(wire, f"{reference}-{at}", devices)
        for at, devices in enumerate((MAX_DEVICES, MAX_DEVICES, 17), start=1)
    ]


def posted(wire: Wire) -> list[str]:
    return [request.url.path for request in wire.requests if request.method == "POST"]


def answer(wire: Wire, id: str, verb: str, **more: Any) -> None:
    wire.first["POST", f"/v1/orders/{id}:{verb}"] = [
        lambda _: httpx.Response(200, json={**wire.orders[id], **more})
    ]


# --- lists ----------------------------------------------------------------------------------------


def test_orders_are_listed_newest_first_with_their_customers_names(wire: Wire) -> None:
    add(wire, "old", state="completed", purchase_order="4711")
    add(wire, "new", customer_id=OTHER["id"])
    result = wire.run("list")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == ["Reference", "new", "old"]
    assert lines[1][1:4] == ["Fabrikam", "in", "progress"]
    assert lines[2][1:3] == ["Contoso", "completed"]
    assert "4711" in lines[2]


def test_a_list_is_filtered_by_the_api(wire: Wire) -> None:
    add(wire, "a", state="completed")
    add(wire, "b")
    result = wire.run(
        *("list", "--state", "completed", "--customer", "contoso", "--since", "2026-11-01", "--json")
    )
    assert [order["reference"] for order in orjson.loads(result.stdout)] == ["a"]
    params = wire.requests[-1].url.params
    assert (params["state"], params["customer_id"]) == ("completed", CUSTOMER["id"])
    assert params["since"] == "2026-11-01T00:00:00+00:00"
    assert wire.run("list", "--since", "yesterday-ish").exit_code == ExitCode.ERROR
    assert wire.run("list", "--since", "7d").exit_code == ExitCode.DONE
    assert wire.run("list", "--state", "lost").exit_code == ExitCode.ERROR
    assert "No order matches" in wire.run("list", "--purchase-order", "none").stdout


def test_a_long_list_says_that_there_is_more(wire: Wire) -> None:
    for name in "abc":
        add(wire, name)
    assert "only the newest 2" in wire.run("list", "--limit", "2").stdout


def test_the_batches_of_an_order_are_shown_oldest_first(wire: Wire) -> None:
    id = add(wire, "PO-7")
    batch = {
        "order_id": id,
        "group_tag": "Desk",
        "state": "queued",
        "counts": counts(queued=2),
        "submissions": 1,
        "created_at": NOW,
        "due_at": NOW,
        "settled_at": None,
    }
    reasons = [{"code": "credential_refused", "title": "Microsoft refuses the connection's credentials"}]
    wire.batches = [
        {**batch, "id": str(UUID(int=8)), "group_tag": "Late", "waiting_for": reasons},
        {**batch, "id": str(UUID(int=7)), "state": "settled", "settled_at": NOW},
    ]
    result = wire.run("batches", "PO-7")
    rows = [line for line in result.stdout.splitlines() if "Desk" in line or "Late" in line]
    assert ["Desk" in rows[0], "Late" in rows[1]] == [True, True]
    assert str(UUID(int=7)) in rows[0]
    assert "refuses the connection's credentials" in rows[1]
    assert [b["id"] for b in orjson.loads(wire.run("batches", "PO-7", "--json").stdout)] == [
        str(UUID(int=7)),
        str(UUID(int=8)),
    ]


def test_a_device_is_found_by_any_part_by_its_pkid_and_by_its_line(wire: Wire) -> None:
    add(wire, "PO-7")
    tuple_row = row_of(RegistrationState.REGISTERED, serial_number="XA4711B", error_code=None)
    pkid_row = row_of(
        RegistrationState.REGISTERED,
        id=str(UUID(int=70)),
        serial_number=None,
        product_key="9999000000017",
        line_ref="L-70",
        error_code=None,
    )
    wire.registrations = [tuple_row, pkid_row]

    def found(*arguments: str) -> list[str]:
        return [row["id"] for row in orjson.loads(wire.run("find", *arguments, "--json").stdout)]

    assert found("4711") == [tuple_row["id"]]
    assert found("9999000000017") == [pkid_row["id"]]
    assert found("--pkid", "9999000000017") == [pkid_row["id"]]
    assert found("--line", "L-70") == [pkid_row["id"]]
    found("XA")
    assert wire.requests[-1].url.params["serial_prefix"] == "XA"
    assert "PO-7" in wire.run("find", "4711").stdout
    assert wire.run("find").exit_code == ExitCode.ERROR


# --- a reference in parts -------------------------------------------------------------------------


def test_a_reference_that_was_split_means_all_its_parts(wire: Wire) -> None:
    ids = in_parts(wire)
    shown = wire.run("order", "PO-7").stdout
    assert [f"PO-7-{n}" in shown for n in (1, 2, 3)] == [True] * 3
    assert len(orjson.loads(wire.run("order", "PO-7", "--json").stdout)["orders"]) == 3
    assert len(orjson.loads(wire.run("list", "--reference", "PO-7", "--json").stdout)) == 3
    for id in ids:
        answer(wire, id, "cancel", counts=counts(cancelled=1))
    assert wire.run("cancel", "PO-7").exit_code == ExitCode.DONE
    assert posted(wire) == [f"/v1/orders/{id}:cancel" for id in ids]
    assert wire.run("watch", "PO-7").exit_code == ExitCode.DONE


def test_an_order_of_exactly_that_reference_is_meant_first(wire: Wire) -> None:
    in_parts(wire)
    exact = add(wire, "PO-7")
    assert orjson.loads(wire.run("list", "--reference", "PO-7", "--json").stdout)[0]["id"] == exact
    assert len(orjson.loads(wire.run("list", "--reference", "PO-7", "--json").stdout)) == 1


@pytest.mark.parametrize(
    "orders",
    [
        [("PO-7-1", 5), ("PO-7-2", 5)],
        [("PO-7-2", MAX_DEVICES)],
        [("PO-71", MAX_DEVICES)],
    ],
    ids=["orders of their own", "no first part", "another name"],
)
def test_orders_whose_names_only_look_like_parts_are_left_alone(
    wire: Wire, orders: list[tuple[str, int]]
) -> None:
    for reference, devices in orders:
        add(wire, reference, devices)
    assert wire.run("cancel", "PO-7").exit_code == ExitCode.ERROR
    assert posted(wire) == []


def test_a_part_of_another_customer_ends_the_parts(wire: Wire) -> None:
    first = add(wire, "PO-7-1", MAX_DEVICES)
    add(wire, "PO-7-2", 3, customer_id=OTHER["id"])
    assert [o["id"] for o in orjson.loads(wire.run("list", "--reference", "PO-7", "--json").stdout)] == [
        first
    ]


# --- trying again -------------------------------------------------------------------------------


def test_chosen_rows_are_sent_to_the_api(wire: Wire) -> None:
    id = add(wire, "PO-7", counts=counts(failed=3))
    wire.outcomes = ({"state": "completed_with_errors", "counts": {"failed": 3}},)
    answer(wire, id, "retry-failed", retried=1, without_hash=0)
    wire.registrations = [row_of(RegistrationState.FAILED, row=3)]
    result = wire.run("retry", "PO-7", "--row", "3", "--row", "7", "--state", "failed", "--code", "c")
    assert result.exit_code == ExitCode.DONE, result.output
    assert wire.sent() == [{"rows": [3, 7], "states": ["failed"], "codes": ["c"]}]
    assert "have not failed" in result.stdout
    answer(wire, id, "retry-failed", retried=3, without_hash=0)
    wire.run("retry", "PO-7")
    assert wire.requests[-1].content == b""


def test_rows_of_a_reference_in_parts_could_be_any_parts(wire: Wire) -> None:
    in_parts(wire)
    result = wire.run("retry", "PO-7", "--row", "3")
    assert result.exit_code == ExitCode.ERROR
    assert "PO-7-1, PO-7-2, PO-7-3" in result.stderr
    assert posted(wire) == []


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "words"), [("cancel", "Cancel 2 devices"), ("retry", "Try 2 devices")])
def test_a_person_is_asked_before_something_is_done(wire: Wire, verb: str, words: str) -> None:
    given = counts(queued=2) if verb == "cancel" else counts(failed=2)
    id = add(wire, "PO-7", counts=given)
    call = "cancel" if verb == "cancel" else "retry-failed"
    refused = at_terminal(wire, verb, "PO-7", columns=80, typed="n\n")
    assert words in refused.text
    assert "Nothing was changed" in refused.text
    assert (refused.exit_code, posted(wire)) == (ExitCode.ERROR, [])
    for typed, arguments in (("y\n", ()), ("", ("--yes",))):
        wire.requests.clear()
        answer(wire, id, call, retried=2, without_hash=0)
        done = at_terminal(wire, verb, "PO-7", *arguments, columns=80, typed=typed)
        assert done.exit_code == ExitCode.DONE, done.text
        assert (words in done.text) == bool(typed)
        assert posted(wire) == [f"/v1/orders/{id}:{call}"]


def test_a_pipe_is_not_asked(wire: Wire) -> None:
    id = add(wire, "PO-7")
    answer(wire, id, "cancel")
    assert wire.run("cancel", "PO-7").exit_code == ExitCode.DONE
    assert posted(wire) == [f"/v1/orders/{id}:cancel"]


def test_where_nothing_is_left_the_api_says_so_without_a_question(wire: Wire) -> None:
    id = add(wire, "PO-7", counts=counts(registered=2))
    wire.first["POST", f"/v1/orders/{id}:cancel"] = [
        lambda _: problem(409, "invalid_state", "No", detail="The order is over.")
    ]
    shown = at_terminal(wire, "cancel", "PO-7", columns=80)
    assert "The order is over." in shown.text
    assert "?" not in shown.text
