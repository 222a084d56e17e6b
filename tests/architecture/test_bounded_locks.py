"""A statement that locks up to N rows locks no more, whatever plan PostgreSQL chooses for it."""

import re

from tests.architecture.source import sources
from tests.architecture.test_query_partner_first import written

IN_A_LIST = re.compile(r"(?<!ARRAY)\bIN \(\s*SELECT\b", re.IGNORECASE)
BOUNDED_LOCK = re.compile(r"\bLIMIT\b.*\bFOR (NO KEY )?UPDATE\b", re.IGNORECASE | re.DOTALL)


def lists(statement: str) -> list[str]:
    """What stands between the brackets of each `IN (SELECT ...)`."""
    found = []
    for match in IN_A_LIST.finditer(statement):
        depth, start = 1, match.end()
        for at in range(start, len(statement)):
            depth += {"(": 1, ")": -1}.get(statement[at], 0)
            if not depth:
                found.append(statement[start:at])
                break
    return found


def test_the_search_knows_the_shape_it_looks_for() -> None:
    [found] = lists("DELETE FROM t WHERE id IN ( SELECT f(id) FROM t LIMIT :n FOR UPDATE SKIP LOCKED) AND x")
    assert BOUNDED_LOCK.search(found)
    assert lists("DELETE FROM t WHERE id = ANY(ARRAY(SELECT id FROM t LIMIT 1 FOR UPDATE))") == []


def test_no_statement_locks_a_bounded_number_of_rows_inside_in() -> None:
    """The planner may run it once per row it looks at, and each run skips what is locked and finds others."""
    looked_at, unbounded = 0, []
    for source in sources("app/db", "migrations"):
        for node in source.tree.body:
            for statement in lists(written(node, {})):
                looked_at += 1
                if BOUNDED_LOCK.search(statement):
                    unbounded.append(f"{source.path}:{node.lineno}")
    assert unbounded == []
    assert looked_at > 10
