"""`registrar secrets reseal` ends with what was done and what comes next."""

from typing import Any

import pytest

from app.cli.secrets import ending


def column(current: int = 0, resealed: int = 0, closed: int = 0) -> dict[str, Any]:
    values = current + resealed + closed
    return {"values": values, "current": current, "resealed": resealed, "closed": closed}


@pytest.mark.parametrize(
    ("found", "dry_run", "said"),
    [
        (
            [column(9, 2), column(0, 1)],
            False,
            "12 stored secrets: 3 resealed, 9 current already, 0 not opened. Old keys can go once "
            "`registrar secrets reseal --dry-run` finds nothing left to seal.",
        ),
        (
            [column(9, 3)],
            True,
            "12 stored secrets: 3 to be resealed, 9 current already, 0 not opened. Nothing was changed. "
            "`registrar secrets reseal` reseals them.",
        ),
        (
            [column(1), column()],
            True,
            "1 stored secret: 0 to be resealed, 1 current already, 0 not opened. Old keys can leave "
            "REGISTRAR_SECRET_KEYS now. Restart all processes then.",
        ),
        (
            [column(1, 1, 1)],
            False,
            "3 stored secrets: 1 resealed, 1 current already, 1 not opened. Set those again: PATCH the "
            "connection, rotate the secret of the webhook endpoint. If the key that sealed them still "
            "exists, add it to REGISTRAR_SECRET_KEYS and repeat this.",
        ),
        ([column()], False, "No secret is stored yet, so old keys can leave REGISTRAR_SECRET_KEYS."),
    ],
)
def test_the_last_lines_say_what_was_done_and_what_comes_next(
    found: list[dict[str, Any]], *, dry_run: bool, said: str
) -> None:
    assert " ".join(ending(found, dry_run=dry_run)) == said
