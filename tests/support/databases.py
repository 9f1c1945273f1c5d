"""Databases under load, and their own words on whether a copy of them is whole.

Every load keeps an invariant that a single cut through time preserves and a torn copy does
not: money only moves between accounts, so the sum never changes.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
from pathlib import Path

from requirements import require_program
from waiting import until

ACCOUNTS = 20_000
START = 1000  # money of each account


class SqliteLoad:
    """A SQLite database with one thread that moves money all the time."""

    def __init__(self, path: Path, journal: str) -> None:
        """Make the database.

        Args:
            path: Its file.
            journal: ``"delete"`` for the rollback journal, or ``"wal"``.
        """
        self.path = path
        self.journal = journal
        self.commits = 0
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"load-{journal}")
        db = self._connect()
        db.execute("create table account (id integer primary key, money integer, pad text)")
        db.execute(
            "create table moved (id integer primary key, source integer, target integer, money integer)"
        )
        db.execute("create index by_money on account (money)")
        db.execute("begin")
        db.executemany(
            "insert into account values (?, ?, ?)", ((n, START, "x" * 400) for n in range(ACCOUNTS))
        )
        db.execute("commit")
        db.close()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, timeout=60)
        db.execute(f"pragma journal_mode={self.journal}")
        db.execute("pragma synchronous=full")
        return db

    def start(self) -> None:
        """Begin to move money."""
        self._thread.start()

    def goes_on(self) -> None:
        """Return when it has committed something more."""
        before = self.commits
        assert until(lambda: self.commits > before + 1)  # the first one may have been under way

    def stop(self) -> None:
        """End the load; raises what went wrong in it."""
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            db = self._connect()
            n = 0
            while not self._stop.is_set():
                n += 1
                self.move(db, n * 7919 % ACCOUNTS, n * 104_729 % ACCOUNTS, n % 50)
                self.commits += 1
            db.close()
        except BaseException as exc:
            self.error = exc

    @staticmethod
    def move(db: sqlite3.Connection, source: int, target: int, money: int) -> None:
        """One transaction."""
        db.execute("begin immediate")
        db.execute("update account set money = money - ? where id = ?", (money, source))
        db.execute("update account set money = money + ? where id = ?", (money, target))
        db.execute("insert into moved (source, target, money) values (?, ?, ?)", (source, target, money))
        db.execute("commit")

    def shift_everything(self) -> None:
        """One transaction that rewrites every page of the table and of its index, and is synced."""
        db = self._connect()
        db.execute("begin immediate")
        db.execute("update account set money = money + case when id < ? then 5 else -5 end", (ACCOUNTS // 2,))
        db.execute("commit")
        db.execute("pragma wal_checkpoint(truncate)")
        db.close()

    @staticmethod
    def faults(path: Path) -> list[str]:
        """What is wrong with a copy, by SQLite's own check and by the invariant."""
        try:
            db = sqlite3.connect(path, timeout=60)
            try:
                found = [row[0] for row in db.execute("pragma integrity_check(10)") if row[0] != "ok"]
                total = db.execute("select sum(money), count(*) from account").fetchone()
                if total != (ACCOUNTS * START, ACCOUNTS):
                    found.append(f"{total[1]} accounts hold {total[0]}, not {ACCOUNTS * START}")
                return found
            finally:
                db.close()
        except sqlite3.DatabaseError as exc:
            return [str(exc)]


class Postgres:
    """A PostgreSQL cluster of its own, run by an unprivileged user, reachable by a socket only."""

    USER = "postgres"

    def __init__(self, data: Path, run: Path) -> None:
        """Refer to a cluster.

        Args:
            data: Its data directory.
            run: A folder for socket and log, writable by the user.
        """
        self.data = data
        self.run = run
        self._bench: subprocess.Popen[bytes] | None = None

    def _call(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        finished = subprocess.run(
            [str(word) for word in command],
            user=self.USER,
            group=self.USER,
            extra_groups=[],
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check:
            assert finished.returncode == 0, f"{command}: {finished.stdout}{finished.stderr}"
        return finished

    def init(self) -> None:
        """Make the cluster and a pgbench database."""
        for folder in (self.data, self.run):
            folder.mkdir(exist_ok=True)
            os.chmod(folder, 0o700)
            subprocess.run(["chown", self.USER, str(folder)], check=True)
        self._call(require_program("initdb"), "-D", self.data, "-A", "trust", "--no-sync", "-E", "UTF8", "-k")
        with (self.data / "postgresql.conf").open("a", encoding="ascii") as conf:
            conf.write(
                "listen_addresses = ''\nshared_buffers = 16MB\nmin_wal_size = 32MB\nmax_wal_size = 64MB\n"
                "wal_recycle = off\nautovacuum_naptime = 1s\ncheckpoint_timeout = 30s\n"
            )
        self.start()
        self.sql("create extension amcheck", database="postgres")
        self.sql("create database bench", database="postgres")
        self._call(
            require_program("pgbench"), "-h", self.run, "-U", self.USER, "-i", "-q", "-s", "2", "bench"
        )

    def start(self, *, check: bool = True) -> str:
        """Start the server, with crash recovery if it needs that; returns what it said if it failed."""
        finished = self._call(
            require_program("pg_ctl"), "-D", self.data, "-w", "-t", "110",
            "-l", self.run / "log", "-o", f"-k {self.run}", "start", check=check,
        )  # fmt: skip
        if finished.returncode:
            return finished.stderr + (self.run / "log").read_text(errors="replace")[-2000:]
        return ""

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server if it runs."""
        self._call(require_program("pg_ctl"), "-D", self.data, "-m", mode, "-w", "stop", check=False)

    def sql(self, text: str, *, database: str = "bench") -> str:
        """Run SQL and give its unaligned output."""
        return self._call(
            require_program("psql"), "-h", self.run, "-U", self.USER, "-X", "-A", "-t",
            "-v", "ON_ERROR_STOP=1",
            "-c", text, database,
        ).stdout.strip()  # fmt: skip

    def load(self, seconds: int = 120) -> None:
        """Begin to move money, with two clients."""
        self._bench = subprocess.Popen(
            [require_program("pgbench"), "-h", str(self.run), "-U", self.USER, "-c", "2",
             "-T", str(seconds), "bench"],
            user=self.USER, group=self.USER, extra_groups=[], cwd="/",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def loaded(self) -> None:
        """Return when the load has committed something."""
        assert until(lambda: int(self.sql("select count(*) from pgbench_history")) >= 50)

    def unload(self) -> None:
        """End the load."""
        if self._bench is not None:
            self._bench.terminate()
            self._bench.wait()
            self._bench = None

    def faults(self) -> list[str]:
        """What is wrong with a restored copy: its start-up, amcheck, checksums and the invariant."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # a copied one names a process of another life
        said = self.start(check=False)
        if said:
            return [f"start-up: {said}"]
        try:
            found = []
            check = self._call(
                require_program("pg_amcheck"), "-h", self.run, "-U", self.USER, "--heapallindexed",
                "--install-missing", "bench", check=False,
            )  # fmt: skip
            if check.returncode:
                found.append(f"amcheck: {check.stdout}{check.stderr}"[:2000])
            try:
                sums = self.sql(
                    "select (select sum(abalance) from pgbench_accounts),"
                    " (select sum(bbalance) from pgbench_branches),"
                    " (select sum(tbalance) from pgbench_tellers),"
                    " (select coalesce(sum(delta), 0) from pgbench_history)"
                ).split("|")
                if len(set(sums)) != 1:
                    found.append(f"the sums differ: {sums}")
            except AssertionError as exc:
                found.append(str(exc)[:2000])
            return found
        finally:
            self.stop("fast")

    def lowest_free_log(self) -> None:
        """Write out everything and let no WAL of before remain."""
        for _ in range(3):
            self.sql("select pg_switch_wal()")
            self.sql("checkpoint")
