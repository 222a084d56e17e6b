"""`registrar discard`: which import is meant, what is asked, and how it ends."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from app.cli.outcome import ExitCode
from tests.unit.cli_wire import NOW, Wire, problem

ID = str(UUID(int=500))
OLDER = str(UUID(int=499))


def an_import(id: str = ID, state: str = "ready", rows: int = 3) -> dict[str, Any]:
    return {"id": id, "reference": "PO-1", "state": state, "counts": {"total": rows}, "created_at": NOW}


def answering(document: dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(200, json=document)


def wire_with(*imports: dict[str, Any]) -> Wire:
    wire = Wire()
    page = {"items": list(imports), "next_page_token": None}
    wire.first["GET", "/v1/imports"] = [answering(page)]
    for each in imports:
        path = f"/v1/imports/{each['id']}"
        wire.first["GET", path] = [answering(each)]
        wire.first["POST", f"{path}:discard"] = [answering({**each, "state": "discarded"})]
    return wire


def discarded(wire: Wire) -> list[str]:
    return [r.url.path for r in wire.requests if r.method == "POST"]


@pytest.mark.parametrize("name", [ID, "PO-1", " PO-1 "])
def test_an_import_is_discarded_by_its_id_or_reference(name: str) -> None:
    wire = wire_with(an_import())
    result = wire.run("discard", name)
    assert result.exit_code == ExitCode.DONE, result.output
    assert discarded(wire) == [f"/v1/imports/{ID}:discard"]
    assert f"The import PO-1 ({ID}) is discarded." in result.stdout


def test_one_document_for_programs() -> None:
    result = wire_with(an_import()).run("discard", ID, "--yes", "--json")
    assert orjson.loads(result.stdout) == {"exit_code": 0, "import": an_import(state="discarded")}


def test_a_person_is_asked_and_may_say_no(monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[str] = []

    def no(question: str) -> bool:
        questions.append(question)
        return False

    monkeypatch.setattr("app.cli.asking.is_terminal", lambda: True)
    monkeypatch.setattr("app.cli.asking.ask_person", no)
    wire = wire_with(an_import())
    result = wire.run("discard", "PO-1")
    assert (result.exit_code, discarded(wire)) == (ExitCode.ERROR, [])
    assert questions == ["Discard the import PO-1 with 3 rows?"]
    assert "Nothing was changed." in result.stderr
    wire = wire_with(an_import())
    assert wire.run("discard", "PO-1", "--yes").exit_code == ExitCode.DONE
    assert len(questions) == 1


def test_of_several_imports_the_one_that_is_not_over_is_meant() -> None:
    wire = wire_with(an_import(), an_import(OLDER, "expired"))
    assert wire.run("discard", "PO-1").exit_code == ExitCode.DONE
    assert discarded(wire) == [f"/v1/imports/{ID}:discard"]
    result = wire_with(an_import(), an_import(OLDER)).run("discard", "PO-1", "--json")
    told = orjson.loads(result.stdout)
    assert (told["code"], told["exit_code"]) == ("name_ambiguous", 1)
    assert ID in told["remedy"]
    assert OLDER in told["remedy"]


def test_one_that_is_discarded_already_is_no_error() -> None:
    wire = wire_with(an_import(state="discarded"))
    assert wire.run("discard", "PO-1").exit_code == ExitCode.DONE
    assert discarded(wire) == []


def test_an_import_that_is_not_there_and_one_that_became_orders() -> None:
    result = wire_with().run("discard", "PO-9", "--json")
    assert orjson.loads(result.stdout)["code"] == "name_not_found"
    wire = wire_with(an_import(state="committed"))
    refused = problem(409, "invalid_state", "Not possible", detail="The import has become orders.")
    wire.first["POST", f"/v1/imports/{ID}:discard"] = [lambda _: refused]
    result = wire.run("discard", ID)
    assert result.exit_code == ExitCode.REFUSED
    assert "The import has become orders." in result.stderr
