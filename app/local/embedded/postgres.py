"""An embedded PostgreSQL: its cluster, its settings, its access rules, and whether it serves."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

from app.local.child import end_of, open_log
from app.local.embedded.accounts import BARE_ENVIRONMENT, Account, enter_as, user_name
from app.local.embedded.errors import EmbeddedUnavailable
from app.local.embedded.ownership import START_SECONDS
from app.local.embedded.server import Server
from app.local.embedded.sockets import PORT, converse, make_private


class Postgres(Server):
    """PostgreSQL with one database and one login role, both named registrar.

    The role is not a superuser, so row-level security applies to it. It may create databases and roles. Only
    the operating-system users who own the data may connect (peer authentication), and only over the socket.
    """

    name = "postgres"
    stop_signals = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))  # fast, then immediate shutdown

    @property
    def socket_path(self) -> Path:
        return self._sockets / f".s.PGSQL.{PORT}"

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://registrar@/registrar?host={self._sockets}&port={PORT}"

    def _programs(self) -> list[Path]:
        return [self.programs.tool("postgres"), self.programs.tool("initdb")]

    def _prepare(self, lease: int, account: Account | None) -> list[str]:
        cluster = self.data_dir / "postgres"
        if not cluster.exists():
            self._create(cluster, lease, account)
        for leftover in (
            cluster / "postmaster.pid",
            self.socket_path,
            self.socket_path.with_name(self.socket_path.name + ".lock"),
        ):
            leftover.unlink(missing_ok=True)
        owners = {os.geteuid(), self.data_dir.stat().st_uid, 0}
        users = "".join(f'registrar "{user_name(uid)}" all\n' for uid in sorted(owners))
        settings = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "hba_file": self._write("postgres.hba", "local all all peer map=registrar\n", account),
            "ident_file": self._write("postgres.ident", users, account),
            "shared_buffers": "128MB",
            "max_connections": "100",
            "max_wal_size": "512MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_min_messages": "warning",
            # Statements and details quote rows, and serial numbers must not reach a log.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
        }
        if not self.durable:
            # synchronous_commit stays: without fsync it costs one write, and commits survive a SIGKILL.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        arguments = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(self.programs.tool("postgres")), "-D", str(cluster), *arguments]

    def _create(self, cluster: Path, lease: int, account: Account | None) -> None:
        """Builds the cluster aside and renames it when it is complete: initdb may be killed."""
        user_name(os.geteuid() if account is None else account.uid)
        fresh = cluster.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        make_private(fresh, account)
        sync = [] if self.durable else ["--no-sync"]
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb = [
            str(self.programs.tool("initdb")),
            "-D",
            str(fresh),
            "-U",
            "postgres",
            "--auth=peer",
            *locale,
        ]
        self._run([*initdb, "--no-instructions", *sync], "", lease, account)
        single = [str(self.programs.tool("postgres")), "--single", "-D", str(fresh), "-c", "exit_on_error=on"]
        statements = (
            "CREATE ROLE registrar LOGIN NOSUPERUSER CREATEDB CREATEROLE\n"
            "CREATE DATABASE registrar OWNER registrar\n"
        )
        self._run(
            [*single, *([] if self.durable else ["-c", "fsync=off"]), "postgres"], statements, lease, account
        )
        fresh.rename(cluster)

    def _run(self, argv: list[str], words: str, lease: int, account: Account | None) -> None:
        with open_log(self.log) as log:
            done = subprocess.run(
                argv,
                input=words.encode(),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=BARE_ENVIRONMENT,
                start_new_session=True,
                pass_fds=(lease,),
                preexec_fn=enter_as(account, signal.SIGKILL),
                timeout=2 * START_SECONDS,
                check=False,
            )
        if done.returncode != 0:
            raise EmbeddedUnavailable(f"{Path(argv[0]).name} failed in {self.data_dir}.{end_of(self.log)}")

    def _write(self, name: str, text: str, account: Account | None) -> str:
        path = self.data_dir / name
        path.write_text(text)
        if account is not None:
            os.chown(path, account.uid, account.gid)
        return str(path)

    def _refusal(self) -> str | None:
        body = struct.pack("!i", 196608) + b"user\0registrar\0database\0registrar\0\0"
        answer = converse(
            self.socket_path,
            struct.pack("!i", len(body) + 4) + body,
            lambda seen: seen[-6:-1] == b"Z\0\0\0\5",
        )
        if isinstance(answer, str):
            return answer
        if not answer.startswith(b"E"):
            return None
        fields = {part[:1]: part[1:].decode(errors="replace") for part in answer[5:].split(b"\0")}
        if fields.get(b"C", "").startswith("28"):
            raise EmbeddedUnavailable(
                f"PostgreSQL in {self.data_dir} runs for another user of this machine ({fields.get(b'M')}). "
                "Run this as the user who started it, or set REGISTRAR_DATABASE_URL."
            )
        return fields.get(b"M", "no answer")
