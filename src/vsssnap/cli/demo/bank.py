"""A database that is always busy: money moves between accounts, and none is made or lost.

Its file begins with the accounts, has documents in the middle, and ends with the index of the
accounts and the log of the transfers, so that every transfer changes both ends of it.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from dataclasses import dataclass

ACCOUNTS = 4000
MONEY = ACCOUNTS * 1000
_PAGE = 4096  # bytes


def create(database: sqlite3.Connection, documents: int) -> None:
    """Make the tables.

    Args:
        database: An empty database.
        documents: Bytes of documents between the accounts and the rest.
    """
    chance = random.Random(20)  # noqa: S311 - the same demo every time
    database.execute(f"PRAGMA page_size = {_PAGE}")
    with database:
        database.execute(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER, moves INTEGER, owner TEXT)"
        )
        database.executemany(
            "INSERT INTO accounts VALUES (?, 1000, 0, ?)",
            ((number, f"owner {number} ".ljust(72, ".")) for number in range(ACCOUNTS)),
        )
        database.execute("CREATE TABLE documents (content BLOB)")
        database.executemany(
            "INSERT INTO documents VALUES (?)",
            ((chance.randbytes(65536),) for _ in range(documents // 65536)),
        )
        database.execute("CREATE INDEX accounts_by_balance ON accounts (balance)")
        database.execute("CREATE TABLE transfers (payer INTEGER, payee INTEGER, amount INTEGER)")


def transfer(database: sqlite3.Connection, chance: random.Random) -> None:
    """Move some money from one account to another, in one transaction."""
    payer, payee = chance.sample(range(ACCOUNTS), 2)
    amount = chance.randint(1, 100)
    with database:
        update = "UPDATE accounts SET balance = balance + ?, moves = moves + 1 WHERE id = ?"
        database.execute(update, (-amount, payer))
        database.execute(update, (amount, payee))
        database.execute("INSERT INTO transfers VALUES (?, ?, ?)", (payer, payee, amount))


@dataclass(frozen=True, slots=True)
class BankFound:
    """What a copy of the database holds.

    Attributes:
        problems: What ``PRAGMA integrity_check`` lists, or the error it ended with; at most 100.
        money: All balances together; None if they cannot be read.
        moves: How often accounts took part in transfers, by the accounts.
        logged: The same by the log.
    """

    problems: tuple[str, ...]
    money: int | None = None
    moves: int | None = None
    logged: int | None = None

    @property
    def ok(self) -> bool:
        """Whether the database is sound and no money was made or lost."""
        return not self.problems and self.money == MONEY and self.moves == self.logged

    @property
    def integrity(self) -> str:
        """What SQLite says, in a line."""
        if not self.problems:
            return "integrity_check: ok"
        if len(self.problems) == 1:
            return f"integrity_check: {self.problems[0]}"
        many = "100 or more" if len(self.problems) >= 100 else str(len(self.problems))
        return f"integrity_check: {many} errors"

    @property
    def books(self) -> str:
        """What the numbers say, in a line."""
        if self.money is None:
            return "cannot be read"
        money = (
            "money is right"
            if self.money == MONEY
            else f"{abs(self.money - MONEY)} too {'much' if self.money > MONEY else 'little'}"
        )
        return f"{money}; accounts moved {self.moves} times, log has {self.logged}"


def check(path: str) -> BankFound:
    """Look at a database file, which may be broken; it may be changed by a rollback.

    Args:
        path: The file; a rollback journal may lie beside it.
    """
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            rows = [str(row[0]) for row in database.execute("PRAGMA integrity_check")]
            problems = (
                () if rows == ["ok"] else tuple(line for row in rows for line in row.splitlines())[:100]
            )
            try:
                # NOT INDEXED: the table itself, which is what the first blocks hold.
                money, moves = database.execute(
                    "SELECT sum(balance), sum(moves) FROM accounts NOT INDEXED"
                ).fetchone()
                (logged,) = database.execute("SELECT 2 * count(*) FROM transfers").fetchone()
            except sqlite3.Error as exc:
                return BankFound(problems or (str(exc),))
            return BankFound(problems, money, moves, logged)
    except sqlite3.Error as exc:
        return BankFound((str(exc),))
