"""The point of it all: databases under load, imaged, restored, and asked whether they are whole.

ext4 lies on a loop device over a file on XFS with reflinks.  SQLite (rollback journal and WAL)
and PostgreSQL work on it all the time.  The naive copy is stopped at a fixed offset while one
transaction is committed whose pages lie on both sides, so it is torn by construction.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import vsssnap
from databases import Postgres, SqliteLoad
from loops import loop_device, make_file_system, mounted, sparse_file
from requirements import require_lab, require_program
from torn import middle, naive_copy
from vsssnap import Consistency, Snapshot, restore_image, save_image, verify_image
from vsssnap.testing.live import LiveDisk, torn

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

MIB = 1 << 20


class Lab:
    """A live ext4 volume and a folder beside it for images."""

    def __init__(self, base: Path, device: str, volume: Path) -> None:
        self.base = base
        self.device = device
        self.volume = volume


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder that the unprivileged database user may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="vsssnap-lab-", dir="/var/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def lab(base: Path) -> Iterator[Lab]:
    require_lab("mkfs.xfs", "mkfs.ext4", "e2fsck", "filefrag", "initdb", file_systems=("xfs", "ext4"))
    pool, volume = base / "pool", base / "volume"
    with loop_device(sparse_file(base / "pool.img", 3000 * MIB)) as pool_device:
        make_file_system("xfs", pool_device)
        with (
            mounted(pool_device, pool),
            loop_device(sparse_file(pool / "volume.img", 1024 * MIB)) as device,
        ):
            make_file_system("ext4", device)
            with mounted(device, volume):
                volume.chmod(0o711)
                yield Lab(base, device, volume)


def fsck(device: str | Path, *, mend: bool = False) -> None:
    """e2fsck: clean, or mended so far that it can be mounted."""
    done = subprocess.run(
        [require_program("e2fsck"), "-f", "-y" if mend else "-n", str(device)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in ((0, 1, 2) if mend else (0,)), done.stdout + done.stderr


@pytest.fixture(scope="module")
def sqlite(lab: Lab) -> Iterator[list[SqliteLoad]]:
    loads = [SqliteLoad(lab.volume / f"{journal}.db", journal) for journal in ("delete", "wal")]
    for load in loads:
        load.start()
    yield loads
    for load in loads:
        load.stop()


@pytest.fixture(scope="module")
def postgres(lab: Lab) -> Iterator[Postgres]:
    server = Postgres(lab.volume / "pg", lab.base / "run")
    server.init()
    server.load()
    server.loaded()
    yield server
    server.unload()
    server.stop()


@pytest.fixture
def restored(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """A mount point for a restored image; use `attach` below."""
    point = Path(tempfile.mkdtemp(prefix="restored-", dir=lab.base))
    point.chmod(0o711)
    yield point
    point.rmdir()


@pytest.mark.parametrize("suffix", [".raw", ".vsnap"])
def test_databases_are_whole_in_an_image_that_was_taken_under_load(
    lab: Lab, sqlite: list[SqliteLoad], postgres: Postgres, restored: Path, suffix: str
) -> None:
    image, copy = lab.base / f"image{suffix}", lab.base / "copy.raw"
    with Snapshot(lab.volume, require=Consistency.FILESYSTEM) as s:
        assert s.provider == "reflink"
        with s.open() as disk:
            for load in sqlite:
                load.goes_on()
            report = save_image(disk, image)
    assert report.size == 1024 * MIB
    assert report.hole > 0, "the map of a frozen file system was not trusted"
    verified = verify_image(image)
    assert verified.ok, verified.findings
    assert verified.depth >= vsssnap.Depth.STORED
    restore_image(image, copy, verify=True)

    fsck(copy)
    with loop_device(copy) as device, mounted(device, restored):
        for load in sqlite:
            assert SqliteLoad.faults(restored / load.path.name) == []
        assert Postgres(restored / "pg", restored_run(lab)).faults() == []
    image.unlink()
    copy.unlink()
    Path(f"{image}.vsssnap").unlink(missing_ok=True)


def restored_run(lab: Lab) -> Path:
    """A socket folder for the server on a restored volume."""
    folder = lab.base / "run-restored"
    if not folder.exists():
        folder.mkdir()
        shutil.chown(folder, "postgres", "postgres")
    return folder


def test_the_naive_copy_of_sqlite_is_torn(lab: Lab, restored: Path) -> None:
    load = SqliteLoad(lab.volume / "naive.db", "delete")
    os.sync()
    copy = lab.base / "naive.raw"
    naive_copy(lab.device, copy, stop_at=middle(load.path), meanwhile=load.shift_everything)
    assert SqliteLoad.faults(load.path) == [], "the database itself must be whole"
    try:
        with loop_device(copy) as device:
            fsck(device, mend=True)
            with mounted(device, restored):
                assert SqliteLoad.faults(restored / "naive.db") != []
    finally:
        copy.unlink()
        load.path.unlink()


def test_the_snapshot_beside_it_is_whole_though_the_same_transaction_ran(lab: Lab, restored: Path) -> None:
    """The same copier, the same pause, the same transaction; only the source is a snapshot."""
    load = SqliteLoad(lab.volume / "beside.db", "delete")
    os.sync()
    copy = lab.base / "beside.raw"
    with Snapshot(lab.volume) as s, s.open() as disk, open(copy, "xb") as out:
        shifted = False
        for offset, block in disk.blocks(MIB):
            if offset >= middle(load.path) and not shifted:
                load.shift_everything()
                shifted = True
            out.seek(offset)
            out.write(block)
        out.truncate(disk.size)
    assert shifted
    try:
        fsck(copy)
        with loop_device(copy) as device, mounted(device, restored):
            assert SqliteLoad.faults(restored / "beside.db") == []
    finally:
        copy.unlink()
        load.path.unlink()


def test_the_naive_copy_of_postgresql_is_torn(lab: Lab, postgres: Postgres, restored: Path) -> None:
    copy = lab.base / "naive.raw"
    postgres.unload()
    postgres.sql("checkpoint")
    os.sync()
    table = postgres.data / postgres.sql("select pg_relation_filepath('pgbench_accounts')")

    def meanwhile() -> None:
        # Every page of the table and its index changes, and no log is left to mend the old half.
        postgres.sql("update pgbench_accounts set aid = aid + 0, abalance = abalance + 1")
        postgres.sql("update pgbench_accounts set abalance = abalance - 1")
        postgres.lowest_free_log()
        os.sync()

    try:
        naive_copy(lab.device, copy, stop_at=middle(table), meanwhile=meanwhile)
        with loop_device(copy) as device:
            fsck(device, mend=True)
            with mounted(device, restored):
                assert Postgres(restored / "pg", restored_run(lab)).faults() != []
    finally:
        copy.unlink()
        postgres.load()


class Synced:
    """A file that an application writes with fsync, as a target of `LiveDisk`."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        path.write_bytes(bytes(size))

    def pwrite(self, data: bytes | memoryview, offset: int, /) -> int:
        fd = os.open(self.path, os.O_WRONLY)
        try:
            count = os.pwrite(fd, data, offset)
            os.fdatasync(fd)
            return count
        finally:
            os.close(fd)


def test_a_header_that_counts_what_the_body_holds(lab: Lab, restored: Path) -> None:
    """The seed of it all, deterministic: one file, one pause, one count."""
    file = Synced(lab.volume / "counted", 4 * MIB)
    disk = LiveDisk(target=file, records_per_commit=64)
    disk.commit(disk.body_end // 512 // 64 // 2)  # up to the middle of the file
    os.sync()
    naive, image, copy = lab.base / "n.raw", lab.base / "c.raw", lab.base / "cc.raw"
    try:
        with Snapshot(lab.volume) as s:
            naive_copy(lab.device, naive, stop_at=middle(file.path), meanwhile=lambda: disk.commit(8))
            save_image(s.open(), image)
        restore_image(image, copy)
        assert torn(file.path.read_bytes()) is None
        assert reason(naive, restored) is not None
        assert reason(copy, restored) is None
    finally:
        for path in (naive, image, copy, Path(f"{image}.vsssnap")):
            path.unlink(missing_ok=True)
        file.path.unlink()


def reason(image: Path, at: Path) -> str | None:
    """Why the counted file in an image is torn, or None."""
    with loop_device(image) as device:
        fsck(device, mend=True)
        with mounted(device, at):
            return torn((at / "counted").read_bytes())


def test_the_image_says_what_it_is(lab: Lab) -> None:
    image = lab.base / "said.raw"
    with Snapshot(lab.volume) as s:
        save_image(s.open(), image)
        with vsssnap.open_image(image) as opened:
            said = opened.metadata
        assert (said.volume, said.provider, said.snapshot_id) == (str(lab.volume), "reflink", s.id)
        assert said.created == s.created
        assert said.consistency is Consistency.FILESYSTEM
        assert said.filesystem == "ext4"
    assert json.loads(json.dumps({"notes": said.notes}))
    image.unlink()
    Path(f"{image}.vsssnap").unlink()
