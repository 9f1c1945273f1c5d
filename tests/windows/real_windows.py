r"""The first tests for a real Windows: VSS itself, volsnap, real writers.  Never run so far.

Not collected with the others.  Run elevated, with two scratch volumes of one size with NTFS, whose
contents are lost::

    set VSSSNAP_SCRATCH=V:
    set VSSSNAP_TARGET=W:
    python -m pytest tests/windows/real_windows.py

``.github/workflows/windows.yml`` makes them in virtual disks.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vsssnap import (
    BlockReader,
    Consistency,
    Snapshot,
    open_device,
    restore_image,
    save_image,
    verify_image,
)
from vsssnap.errors import SnapshotLostError, TargetRefusedError
from vsssnap.vss import VssOptions, list_writers, resize_shadow_storage, shadow_storage

SCRATCH = os.environ.get("VSSSNAP_SCRATCH", "")
TARGET = os.environ.get("VSSSNAP_TARGET", "")
MIB = 1 << 20
WITHOUT = VssOptions(writers=False)
GONE = 120.0  # seconds for VSS to notice that a requester is gone, and to delete what ends with it

pytestmark = pytest.mark.timeout(1800)  # volumes of GiB are read many times


@pytest.fixture(scope="module", autouse=True)
def volume() -> Path:
    """The scratch volume, with a file."""
    assert SCRATCH, "VSSSNAP_SCRATCH names no volume"
    assert TARGET, "VSSSNAP_TARGET names no volume"
    root = Path(f"{SCRATCH}\\")
    (root / "file.bin").write_bytes(random.Random(1).randbytes(64 * MIB))
    return root


@contextmanager
def churning(root: Path, *, most: int) -> Iterator[None]:
    """Write the volume's files meanwhile, ``most`` bytes in all of them."""
    stop = threading.Event()

    def churn() -> None:
        rng, number = random.Random(2), 0
        while not stop.is_set():
            number += 1
            with open(root / f"churn-{number % max(1, most // MIB)}", "wb") as file:
                file.write(rng.randbytes(MIB))
                file.flush()
                os.fsync(file.fileno())

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def digest(reader: BlockReader) -> str:
    """Of all that a reader gives."""
    found = hashlib.sha256()
    for offset in range(0, reader.size, MIB):
        found.update(reader.pread(MIB, offset))
    return found.hexdigest()


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """A program of Windows."""
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL
    )


def shadows() -> str:
    """What vssadmin says of shadow copies of the scratch volume."""
    return run("vssadmin", "list", "shadows", f"/for={SCRATCH}").stdout


def end() -> bool:
    """Whether the shadow copies of the scratch volume are gone before long."""
    until = time.monotonic() + GONE
    while "HarddiskVolumeShadowCopy" in shadows():
        if time.monotonic() > until:
            return False
        time.sleep(1)
    return True


@pytest.mark.parametrize("options", [None, WITHOUT], ids=["writers", "without"])
def test_one_instant_is_the_same_whenever_it_is_read(volume: Path, options: VssOptions | None) -> None:
    with Snapshot(SCRATCH, options=options) as s, churning(volume, most=16 * MIB), s.open() as disk:
        assert digest(disk) == digest(disk)
        sys.stdout.write(f"{disk.size} bytes, {disk.sector_size}, {disk.metadata.notes}\n")
    assert end()


def test_writers_are_well() -> None:
    assert {writer.name for writer in list_writers()} >= {"System Writer", "Registry Writer"}
    with Snapshot(f"{os.environ['SYSTEMDRIVE']}", require=Consistency.APPLICATION) as s:
        assert s.consistency is Consistency.APPLICATION


def test_a_restored_volume_passes_chkdsk(volume: Path, tmp_path: Path) -> None:
    with Snapshot(SCRATCH) as s, churning(volume, most=16 * MIB):
        save_image(s.open(), tmp_path / "v.vsnap")
    assert verify_image(tmp_path / "v.vsnap").ok
    assert restore_image(tmp_path / "v.vsnap", TARGET, verify=True).verified
    done = run("chkdsk", TARGET)
    assert done.returncode == 0, done.stdout
    restored = Path(f"{TARGET}\\") / "file.bin"
    assert restored.read_bytes() == (volume / "file.bin").read_bytes()


def test_a_volume_in_use_is_refused(volume: Path, tmp_path: Path) -> None:
    with Snapshot(SCRATCH) as s:
        save_image(s.open(), tmp_path / "v.vsnap")
    mark = Path(f"{TARGET}\\") / "mark"
    with open(mark, "wb"), pytest.raises(TargetRefusedError, match="in use"):
        restore_image(tmp_path / "v.vsnap", TARGET)
    assert mark.exists()


def test_the_end_of_the_partition_is_read() -> None:
    with Snapshot(SCRATCH) as s, s.open() as disk, open_device(SCRATCH) as live:
        assert disk.size == live.size
        assert not any("tail_captured=False" in note for note in disk.metadata.notes)


def test_a_killed_process_leaves_no_shadow_copy() -> None:
    program = (
        f"import time; from vsssnap import Snapshot\nwith Snapshot({SCRATCH!r}):\n"
        "    print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "up"
        assert "HarddiskVolumeShadowCopy" in shadows()
        process.kill()
    assert end()


def test_two_processes_take_turns() -> None:
    program = f"from vsssnap import Snapshot\nwith Snapshot({SCRATCH!r}, timeout=300): pass"
    both = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [process.wait(600) for process in both] == [0, 0]


def test_a_shadow_copy_without_room_is_lost_and_makes_no_image(volume: Path, tmp_path: Path) -> None:
    resize_shadow_storage(SCRATCH, maximum=320 * MIB)  # the least that Windows allows
    sys.stdout.write(f"{shadow_storage()}\n")
    lost: list[SnapshotLostError] = []
    with Snapshot(SCRATCH) as s, s.open() as disk:
        with churning(volume, most=600 * MIB):
            for _ in range(50):
                try:
                    digest(disk)
                except SnapshotLostError as exc:
                    lost.append(exc)
                    break
        assert lost, "shadow storage was large enough"
        # Which errors Windows gives is what the first run is to tell.
        sys.stdout.write(f"lost: {lost[0]!r}, {lost[0].__cause__!r}, {lost[0].__context__!r}\n")
        with pytest.raises(SnapshotLostError):
            save_image(disk, tmp_path / "lost.vsnap")
    assert list(tmp_path.iterdir()) == []
