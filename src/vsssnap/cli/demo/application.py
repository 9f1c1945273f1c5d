"""The application of the demo: it writes all the time, in a process of its own.

``python -m vsssnap.cli.demo.application FOLDER PULSE PARENT``: keeps ``records`` and ``bank.db`` in FOLDER
busy until it is told to stop (SIGTERM) or its parent, the process PARENT, is gone.  PULSE is a file elsewhere
that holds the number of its commits, so that the parent can watch without touching FOLDER.
"""

from __future__ import annotations

import os
import random
import sqlite3
import struct
import sys
import time

from vsssnap.cli.demo import bank, records

assert sys.platform != "win32"  # noqa: S101 - mypy for win32 skips the rest

DOCUMENTS = 12 << 20  # bytes
_REST = 0.002  # seconds between two commits: busy, and yet the copies get their turn


def create(folder: str) -> None:
    """Make both files, all of it on the disk when this returns."""
    fd = os.open(os.path.join(folder, "records"), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        data = memoryview(records.initial(records.OLD) + bytes(records.ROOM * records.RECORD))
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    with sqlite3.connect(os.path.join(folder, "bank.db")) as database:
        bank.create(database, DOCUMENTS)
    database.close()


def work(folder: str, pulse: str, parent: int) -> None:
    """Commit until the parent is gone, which may be so from the start."""
    chance = random.Random(21)  # noqa: S311 - the same demo every time
    database = sqlite3.connect(os.path.join(folder, "bank.db"))
    database.execute("PRAGMA journal_mode = TRUNCATE")
    database.execute("PRAGMA synchronous = FULL")
    file = os.open(os.path.join(folder, "records"), os.O_RDWR)
    beat = os.open(pulse, os.O_WRONLY)
    commits, count = 0, records.OLD
    while os.getppid() == parent:
        if count < records.OLD + records.ROOM:
            os.pwrite(file, records.record(count), records.place(count))
            count += 1
            os.pwrite(file, records.header(count), 0)
            os.fdatasync(file)
        bank.transfer(database, chance)
        commits += 1
        os.pwrite(beat, struct.pack("<Q", commits), 0)
        time.sleep(_REST)


if __name__ == "__main__":
    create(sys.argv[1])
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
