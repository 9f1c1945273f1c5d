"""The seed of it all: a disk whose header counts what its body holds, imaged while it is written.

The naive copy is torn by construction; the image through a snapshot is as the disk was at one instant.
Databases and real file systems: tests/labs/test_databases.py.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vsssnap import CowVolume, Snapshot, open_image, restore_image, save_image, verify_image
from vsssnap.testing import LiveDisk, MemoryVolume, naive_copy, torn

SIZE = 1 << 20
WAIT = 60.0  # seconds until a test gives a stuck thread up


@pytest.mark.parametrize("suffix", ["raw", "vsnap"])
def test_image_of_a_disk_under_load_is_whole_and_the_naive_copy_is_torn(tmp_path: Path, suffix: str) -> None:
    with CowVolume(MemoryVolume(SIZE), shadow_folder=tmp_path, block_size=4096) as volume:
        disk = LiveDisk(target=volume, records_per_commit=8)
        disk.commit(3)

        # Stops behind the header while two commits write to the body, and goes on.
        naive = naive_copy(volume, stop_at=4096, between=lambda: disk.commit(2))
        assert torn(naive) == "the header counts 24 records, and the body holds record 32, of a later commit"

        stop, commits = threading.Event(), threading.Semaphore(0)

        def application() -> None:
            while not stop.is_set():
                disk.commit()
                commits.release()

        thread = threading.Thread(target=application)
        thread.start()
        try:
            for number in range(2):
                image = tmp_path / f"image{number}.{suffix}"
                with Snapshot(volume) as snapshot, snapshot.open() as reader:
                    for _ in range(20):
                        assert commits.acquire(timeout=WAIT)
                    save_image(reader, image)
                assert verify_image(image).ok
                with open_image(image) as saved:
                    assert torn(saved) is None
                restore_image(image, tmp_path / f"back{number}", verify=True)
                assert torn((tmp_path / f"back{number}").read_bytes()) is None
        finally:
            stop.set()
            thread.join(WAIT)
    assert disk.commits > 40


def test_two_disks_under_load_are_of_one_instant(tmp_path: Path) -> None:
    """Commits go to both in turn, so that at any instant the second is at most one behind."""
    with (
        CowVolume(MemoryVolume(SIZE), shadow_folder=tmp_path, name="data") as data,
        CowVolume(MemoryVolume(SIZE), shadow_folder=tmp_path, name="log") as log,
    ):
        first, second = LiveDisk(target=data, seed=1), LiveDisk(target=log, seed=2)
        stop, commits = threading.Event(), threading.Semaphore(0)

        def application() -> None:
            while not stop.is_set():
                first.commit()
                second.commit()
                commits.release()

        thread = threading.Thread(target=application)
        thread.start()
        try:
            for _ in range(4):
                with Snapshot(log, data) as snapshot:
                    for _ in range(5):
                        assert commits.acquire(timeout=WAIT)
                    counts = []
                    for name in ("data", "log"):
                        with snapshot.open(name) as reader:
                            assert torn(reader) is None
                            counts.append(int.from_bytes(reader.pread(8, 32), "little") // 4)
                assert counts[0] - counts[1] in (0, 1)
        finally:
            stop.set()
            thread.join(WAIT)
