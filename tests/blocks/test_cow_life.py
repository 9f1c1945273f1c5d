"""How a CowVolume and its snapshots end, what they leave, and what they take of memory."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from cow_volumes import BLOCK, WAIT, pattern, shadow_files, volume_of
from vsssnap._deadline import Deadline
from vsssnap.blocks.cow import CowInstant, chain
from vsssnap.blocks.cow.chain import Chain
from vsssnap.errors import ClosedError, SnapshotLostError, UsageError


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_closing_the_volume_loses_its_snapshots(tmp_path: Path) -> None:
    with volume_of(pattern(2), tmp_path) as volume:
        snapshot = volume.snapshot()
        reader = snapshot.open()
    calls: list[Callable[[], object]] = [
        snapshot.confirm,
        snapshot.open,
        lambda: reader.pread(1, 0),
        lambda: list(reader.extents()),
    ]
    for call in calls:
        with pytest.raises(SnapshotLostError, match="volume was closed"):
            call()
    snapshot.close()


def test_closed_volume_says_so(tmp_path: Path) -> None:
    volume = volume_of(pattern(2), tmp_path, name="db")
    volume.close()
    volume.close()
    calls: list[Callable[[], object]] = [
        lambda: volume.pread(1, 0),
        lambda: volume.pwrite(b"x", 0),
        lambda: volume.pwrite(b"", 0),
        volume.extents,
        volume.flush,
        volume.snapshot,
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="db is closed"):
            call()
    assert shadow_files(tmp_path) == []


def test_volume_closed_before_the_instant_takes_nothing(tmp_path: Path) -> None:
    one, two = volume_of(b"1", tmp_path), volume_of(b"2", tmp_path)
    with one, CowInstant((one, two)) as instant:
        two.close()
        with pytest.raises(ClosedError):
            instant.take(Deadline(WAIT))
        assert one.pwrite(b"x", 0) == 1
    assert shadow_files(tmp_path) == []


def test_closed_snapshot_closes_its_readers(tmp_path: Path) -> None:
    with volume_of(pattern(2), tmp_path) as volume:
        snapshot = volume.snapshot()
        reader = snapshot.open()
        snapshot.close()
        snapshot.close()
        calls: list[Callable[[], object]] = [
            lambda: reader.pread(1, 0),
            reader.confirm,
            snapshot.open,
            snapshot.confirm,
        ]
        for call in calls:
            with pytest.raises(ClosedError):
                call()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_closing_snapshots_in_any_order_gives_all_disk_back(tmp_path: Path, order: tuple[int, ...]) -> None:
    with volume_of(pattern(8), tmp_path) as volume:
        snapshots = []
        for index in range(3):
            snapshots.append(volume.snapshot())
            volume.pwrite(bytes([index]) * 4 * BLOCK, 0)
        for index in order:
            snapshots[index].close()
        assert (volume.shadow_used, shadow_files(tmp_path)) == (0, [])


def test_forgotten_snapshot_warns_and_is_released(tmp_path: Path) -> None:
    with volume_of(pattern(2), tmp_path) as volume:
        snapshot = volume.snapshot()
        volume.pwrite(b"x", 0)
        with pytest.warns(ResourceWarning, match="never closed"):
            del snapshot
        assert shadow_files(tmp_path) == []


def test_reader_keeps_a_snapshot_from_being_forgotten(tmp_path: Path) -> None:
    with volume_of(pattern(2), tmp_path) as volume:
        reader = volume.snapshot().open()
        gc.collect()
        volume.pwrite(b"x", 0)
        assert reader.pread(2 * BLOCK, 0) == pattern(2)
        with pytest.warns(ResourceWarning, match="never closed"):
            del reader


def test_release_inside_the_chains_own_lock_waits_until_it_is_left(tmp_path: Path) -> None:
    # What happens when the garbage collector runs inside it and finds a forgotten snapshot.
    inside: list[int] = []

    def collect(self: Chain) -> None:
        snapshot.close()
        inside.append(len(shadow_files(tmp_path)))

    with volume_of(pattern(2), tmp_path) as volume:
        snapshot = volume.snapshot()
        chain._inside(collect)(volume._engine.chain)
        assert inside == [1]
        assert shadow_files(tmp_path) == []


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_volumes_and_snapshots_refuse_to_be_copied(
    tmp_path: Path, duplicate: Callable[[object], object]
) -> None:
    with volume_of(pattern(1), tmp_path) as volume, volume.snapshot() as snapshot:
        for thing in (volume, snapshot):
            with pytest.raises(UsageError, match="cannot be pickled or copied"):
                duplicate(thing)


def test_killed_process_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(pattern(64))
    outcome = run_script(
        """
        import os, signal, sys
        from vsssnap.blocks.cow import CowVolume
        volume = CowVolume(sys.argv[1], block_size=4096)
        snapshot = volume.snapshot()
        volume.pwrite(b"x" * 100000, 0)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        path,
    )
    assert outcome.returncode == -9, outcome.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["disk.img"]


def test_forked_child_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(pattern(4))
    outcome = run_script(
        """
        import os, sys
        from vsssnap.blocks.cow import CowVolume
        from vsssnap.errors import UsageError
        volume = CowVolume(sys.argv[1], block_size=4096)
        old = volume.pread(1 << 20, 0)
        snapshot = volume.snapshot()
        reader = snapshot.open()
        volume.pwrite(b"x" * 5000, 0)
        child = os.fork()
        if not child:
            refused = 0
            write, read = lambda: volume.pwrite(b"y", 0), lambda: reader.pread(1, 0)
            for call in (write, volume.snapshot, read, snapshot.open):
                try:
                    call()
                except UsageError:
                    refused += 1
            reader.close(), snapshot.close(), volume.close()
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
        assert reader.pread(1 << 20, 0) == old
        snapshot.close(), volume.close()
        """,
        path,
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")


# A volume of zeros of any size that keeps nothing: every byte of it can be overwritten.
OVERWRITE = """
import resource, sys
from vsssnap.blocks.cow import CowVolume

size, step = int(sys.argv[1]), 16 << 20

class Sparse:
    size = size
    zeros = bytes(step)
    def pread(self, length, offset):
        return self.zeros if length == step else self.zeros[:length]
    def pwrite(self, data, offset):
        return len(data)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

with CowVolume(Sparse(), shadow_folder=sys.argv[2]) as volume, volume.snapshot() as one:
    data = b"x" * step
    volume.pwrite(data, 0)
    volume.pwrite(data, size - step)
    before = peak()
    for offset in range(0, size, step):
        volume.pwrite(data, offset)
    with volume.snapshot():
        for offset in range(0, size, step):
            volume.pwrite(data, offset)
    one.confirm()
    print(peak() - before)
"""


@pytest.mark.parametrize("gib", [8, pytest.param(100, marks=pytest.mark.long)], ids=lambda gib: f"{gib} GiB")
def test_memory_stays_flat_while_a_sparse_volume_is_overwritten(tmp_path: Path, gib: int) -> None:
    outcome = run_script(OVERWRITE, gib << 30, tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert int(outcome.stdout) < 4 << 10, "KiB more than at the start"


def test_a_collection_while_room_is_counted_waits_until_that_is_done(tmp_path: Path) -> None:
    """It may come at any call, and must not take a store out of the chain under those who count or commit."""
    seen: list[int] = []
    with volume_of(pattern(2), tmp_path) as volume:
        snapshot = volume.snapshot()
        stores = volume._engine.chain._stores

        class Collected:
            """Stands for a store whose size is asked for when the collector runs."""

            living = dropped = True

            @property
            def usage(self) -> int:
                snapshot.close()
                seen.append(len(shadow_files(tmp_path)))
                return 0

        stores.append(Collected())  # type: ignore[arg-type]
        assert volume.shadow_used == 0
        assert seen == [1]
        assert shadow_files(tmp_path) == []
        del stores[:]
