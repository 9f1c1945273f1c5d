"""The scene without any privileges: a volume that this process serves itself, as a VM store does.

A database in memory is the application's; after every commit its changed pages are written to
the volume, as a guest's disk driver would, and the file of records with them.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vsssnap.blocks.cow import CowVolume
from vsssnap.cli.demo import bank, records
from vsssnap.cli.demo.scene import DemoError, Scene, Verdict
from vsssnap.consistency import Consistency
from vsssnap.errors import QuiesceError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_MIB = 1 << 20
_PAGE = 4096
# The header of the records in front, the database in the middle, the records at the end: the
# stop lies in the documents, which are the middle of the database.
_BANK, _RECORDS, _SIZE = 1 * _MIB, 8 * _MIB, 24 * _MIB
_DOCUMENTS = 4 * _MIB
_STOP = 3 * _MIB
_ROOM = (_SIZE - _RECORDS) // records.RECORD
_OLD = 4096
_REST = 0.002  # seconds between two commits


class _Between:
    """Holds the application between two transactions: then it has written all it has promised."""

    claims = Consistency.APPLICATION

    def __init__(self, turn: threading.Lock) -> None:
        self._turn = turn

    def __enter__(self) -> None:
        if not self._turn.acquire(timeout=30):
            raise QuiesceError("the application did not finish its transaction in 30 s")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._turn.release()


class _ServedScene(Scene):
    """See the module."""

    told = (
        "The volume is a 24 MiB disk that this program serves itself, as a VM store does (CowVolume).  "
        "On it lie a file whose header counts its records, and an SQLite database in which money moves "
        "between accounts."
    )
    size = _SIZE

    def __init__(self, volume: CowVolume) -> None:
        self.volume = self._disk = volume
        self._turn = threading.Lock()
        self.quiesce = (_Between(self._turn),)
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._pages: list[bytes] = []
        self._count = _OLD
        self._commits = 0
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="vsssnap-demo", daemon=True)

    @property
    def stops(self) -> Sequence[int]:
        return (_STOP,)

    def begin(self) -> None:
        """Fill the volume and set the application to work."""
        bank.create(self._database, _DOCUMENTS)
        self._write_pages()
        self._disk.pwrite(records.header(_OLD), 0)
        self._disk.pwrite(b"".join(records.record(number) for number in range(_OLD)), _RECORDS)
        self._thread.start()

    def commits(self) -> int:
        if self._failure is not None:
            raise DemoError(f"the application failed: {self._failure}") from self._failure
        return self._commits

    def read(self, length: int, offset: int) -> bytes:
        return self._disk.pread(length, offset)

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()
        self._database.close()

    def _work(self) -> None:
        chance = random.Random(21)  # noqa: S311 - the same demo every time
        try:
            while not self._ending.wait(_REST):
                with self._turn:
                    bank.transfer(self._database, chance)
                    self._write_pages()
                    if self._count < _ROOM:
                        where = _RECORDS + self._count * records.RECORD
                        self._disk.pwrite(records.record(self._count), where)
                        self._count += 1
                        self._disk.pwrite(records.header(self._count), 0)
                    self._commits += 1
        except Exception as exc:  # it is raised where somebody asks for commits
            self._failure = exc

    def _write_pages(self) -> None:
        whole = memoryview(self._database.serialize())
        if len(whole) > _RECORDS - _BANK:
            raise DemoError(f"the database has grown to {len(whole)} bytes")
        pages = [bytes(whole[at : at + _PAGE]) for at in range(0, len(whole), _PAGE)]
        for number, page in enumerate(pages):
            if number >= len(self._pages) or self._pages[number] != page:
                self._disk.pwrite(page, _BANK + number * _PAGE)
        self._pages = pages

    def examine(self, image: str, name: str) -> list[Verdict]:
        with open(image, "rb") as file:

            def read(length: int, offset: int) -> bytes:
                # The header and the records are two pieces of the volume.
                file.seek(offset if offset < records.HEADER else _RECORDS + offset - records.HEADER)
                return file.read(length)

            found = records.check(read, _ROOM)
            file.seek(_BANK)
            database = file.read(_RECORDS - _BANK)
        # "The SQLite Database File Format" 1.3: bytes 28 to 31 are its size in pages, big-endian.
        length = int.from_bytes(database[28:32], "big") * _PAGE
        path = os.path.join(os.path.dirname(image), f"{name}.db")
        with open(path, "wb") as copy:
            copy.write(database[:length])
        books = bank.check(path)
        os.unlink(path)
        return verdicts(found, books)


def verdicts(found: records.RecordsFound, books: bank.BankFound) -> list[Verdict]:
    """What both scenes say of the application's files."""
    return [
        Verdict("records", found.ok, str(found), found),
        Verdict("database", not books.problems, books.integrity, books),
        Verdict(
            "accounts", books.ok or (books.money == bank.MONEY and books.moves == books.logged), books.books
        ),
    ]


@contextlib.contextmanager
def build(folder: str) -> Iterator[Scene]:
    """The scene, at work; everything is in ``folder`` and in this process."""
    path = os.path.join(folder, "disk.img")
    with open(path, "xb") as file:
        file.truncate(_SIZE)
    with CowVolume(path, name="served disk") as volume:
        scene = _ServedScene(volume)
        scene.begin()
        try:
            yield scene
        finally:
            scene.stop()
