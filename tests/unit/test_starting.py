"""The start of an API process: bounds on connections in production, and our exit codes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.api.http.lifespan import BOUNDED, Unbounded, require_bounds
from app.kernel.settings import Settings
from tests.architecture.source import ROOT
from tests.support.log_lines import log_lines

PRODUCTION = {
    "REGISTRAR_ENVIRONMENT": "production",
    "REGISTRAR_DATABASE_URL": "postgresql://registrar:hunter2@127.0.0.1:1/registrar",
    "REGISTRAR_REDIS_URL": "redis://127.0.0.1:1/0",
    "REGISTRAR_SECRET_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
}
SETTINGS: dict[str, Any] = {
    name.removeprefix("REGISTRAR_").lower(): value for name, value in PRODUCTION.items()
}


def start(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_production_without_bounds_is_refused_with_its_reason() -> None:
    done = start("uvicorn", "--factory", "app.main:build", "--port", "1", **PRODUCTION)
    assert done.returncode != 0
    assert "This server does not bound connections" in done.stderr
    assert "REGISTRAR_BOUNDED_BY_PROXY=true" in done.stderr
    assert "Traceback" not in done.stderr


def test_api_that_cannot_start_ends_with_an_exit_code_of_this_program(tmp_path: Path) -> None:
    """The server's own code for it, 3, means for `registrar` that consent is missing."""
    servers = {name: PRODUCTION[name] for name in ("REGISTRAR_DATABASE_URL", "REGISTRAR_REDIS_URL")}
    done = start("app.serve", REGISTRAR_DATA_DIR=str(tmp_path), **servers)
    assert done.returncode == 1, done.stderr
    assert "There is no secret key here" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_proxy_that_bounds_them_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, BOUNDED, raising=False)
    with log_lines() as lines:
        require_bounds(Settings(**SETTINGS, bounded_by_proxy=True))
        with pytest.raises(Unbounded):
            require_bounds(Settings(**SETTINGS))
        assert lines() == []
        require_bounds(Settings())
        assert [line["event"] for line in lines()] == ["connections_unbounded"]


def test_with_the_protocol_that_bounds_them_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, BOUNDED, sys)
    with log_lines() as lines:
        require_bounds(Settings(**SETTINGS))
    assert lines() == []
