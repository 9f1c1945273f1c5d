"""Devices of Windows through the real Windows Python and a kernel driver, run by Wine.

The driver keeps the rules of raw volumes (sectors, locks, the end of the file system), leaves every
call pending until a thread of its own has done it, and counts how many are so at once.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import portable
import requirements
from vsssnap import verify_image
from vsssnap._win32.overlapped import DEPTH
from wine import windows
from wine_vss import VOLUME, VssPython

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1000)]

HERE = Path(__file__).parent / "wine_vss"
SIZE = 16 << 20
CLUSTER = 4096
DISK_SIZE = 8 << 20


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VssPython]:
    made = VssPython(tmp_path_factory.mktemp("windows"))
    made.build("vssapi.dll", HERE / "vssapi.cpp", HERE / "vssapi.def")
    yield made
    made.wine.stop()


def tool(name: str, *arguments: str) -> bytes:
    """Run a program of somebody else's and give its output."""
    program = requirements.require_program(name)
    return subprocess.run([program, *arguments], check=True, capture_output=True).stdout


class Lab:
    """An NTFS volume in a file, and what the Windows Python found on the driver's devices."""

    def __init__(self, python: VssPython, folder: Path, sector_size: int) -> None:
        self.folder, self.sector_size = folder, sector_size
        files = python.build_volsnap(folder, sector_size=sector_size)
        content = random.Random(sector_size).randbytes(6_000_001)
        (folder / "content").write_bytes(content)
        for name in ("LIVE", "TARGET"):
            with open(files[name], "wb") as file:
                file.truncate(SIZE)
        with open(files["DISK"], "wb") as file:
            file.truncate(DISK_SIZE)
        geometry = ("-s", str(sector_size), "-c", str(CLUSTER), "-p", "0", "-H", "0", "-S", "0")
        tool("mkntfs", "-F", "-Q", "-q", *geometry, str(files["LIVE"]))
        tool("ntfscp", "-q", "-f", str(files["LIVE"]), str(folder / "content"), "file.bin")
        bits = tool("ntfscat", "-i", "6", str(files["LIVE"]))  # $Bitmap
        files["BITMAP"].write_bytes(bits)
        volume = bytearray(files["LIVE"].read_bytes())
        self.whole = bytes(volume)
        for cluster in range((SIZE - sector_size) // CLUSTER):
            if not bits[cluster // 8] >> cluster % 8 & 1:
                volume[cluster * CLUSTER : (cluster + 1) * CLUSTER] = bytes(CLUSTER)
        self.expected = bytes(volume)
        self.disk = random.Random(1).randbytes(DISK_SIZE)
        (folder / "disk.raw").write_bytes(self.disk)
        # Of file.bin's clusters, in no order, with a hole; the image must be without them.
        self.clusters = list(range(200, 290)) + list(range(700, 720)) + list(range(100, 103))
        runs = [(40, 200), (90, 240), (91, -1), (111, 700), (112, 100), (113, 101), (114, 102)]
        (folder / "runs.given").write_bytes(b"".join(struct.pack("<qq", *run) for run in runs))
        done = python.run(
            windows(HERE / "devices.py"),
            windows(python.folder / "volsnap.sys"),
            windows(folder),
            VSSSNAP_LAB_LOG=windows(folder / "log.txt"),
            VSSSNAP_LAB_VOLUME=VOLUME,
            VSSSNAP_LAB_LOST=windows(files["LOST"]),
        )
        assert not done.returncode, done.stderr
        self.found: dict[str, Any] = json.loads(done.stdout)
        self.target = files["TARGET"].read_bytes()
        self.written = files["DISK"].read_bytes()

    def without_clusters(self) -> bytes:
        """The volume at the instant, less what the page file has."""
        made = bytearray(self.expected)
        for cluster in self.clusters:
            made[cluster * CLUSTER : (cluster + 1) * CLUSTER] = bytes(CLUSTER)
        return bytes(made)


@pytest.fixture(scope="module", params=[512, 4096])
def lab(python: VssPython, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    requirements.require_lab("mkntfs", "ntfscp", "ntfscat", root=False)
    return Lab(python, tmp_path_factory.mktemp("devices"), request.param)


def test_the_fake_devices_are_served_to_the_windows_python_too(python: VssPython, tmp_path: Path) -> None:
    assert python.wine.pytest(*portable.PYTEST, *portable.DEVICES, scratch=tmp_path) > 90


def test_a_shadow_copy_is_read_with_sectors_of_any_size(lab: Lab) -> None:
    found = lab.found["reading"]
    assert (found["size"], found["sector"]) == (SIZE, lab.sector_size)
    assert found["digest"] == hashlib.sha256(lab.expected).hexdigest()
    assert bytes.fromhex(found["head"]) == lab.whole[:11]
    assert not any("boot sector" in note for note in found["notes"])


def test_the_image_is_whole(lab: Lab) -> None:
    assert verify_image(lab.folder / "c.vsnap").ok


def test_several_reads_are_under_way_at_once(lab: Lab) -> None:
    assert lab.found["reading"]["one thread"] == DEPTH > 1
    assert lab.found["reading"]["three"] > DEPTH


def test_a_shadow_copy_that_is_lost_while_it_is_read_makes_no_image(lab: Lab) -> None:
    found = lab.found["losing"]
    assert found["why"][0] == found["again"][0] == "SnapshotLostError"
    assert found["left"] == []


def test_a_volume_in_use_is_refused_and_untouched(lab: Lab) -> None:
    found = lab.found["writing"]
    assert found["in use"][:2] == ["TargetRefusedError", 5]
    assert "HarddiskVolume9 is in use" in found["in use"][2]
    assert found["untouched"]
    assert found["locked"][:2] == ["TargetRefusedError", 5]
    assert found["shadow copy"][0] == "TargetRefusedError"


def test_a_volume_that_somebody_has_open_cannot_be_locked(lab: Lab) -> None:
    found = lab.found["writing"]["open elsewhere"]
    assert found[:2] == ["TargetRefusedError", 5]
    assert "FSCTL_LOCK_VOLUME" in found[2]


def test_a_file_is_left_out_where_the_system_says_it_lies(lab: Lab) -> None:
    found = lab.found["leaving out"]
    assert found["kinds"] == ["page-file"]
    clusters = {at // CLUSTER + n for at, length in found["extents"] for n in range(length // CLUSTER)}
    assert clusters == set(lab.clusters)
    assert found["excluded"] == [
        [100 * CLUSTER, 3 * CLUSTER],
        [200 * CLUSTER, 90 * CLUSTER],
        [700 * CLUSTER, 20 * CLUSTER],
    ]
    assert found["digest"] == hashlib.sha256(lab.without_clusters()).hexdigest()


def test_holes_of_a_file_are_asked_for_in_pages(lab: Lab) -> None:
    hole, end = 90 * CLUSTER, 114 * CLUSTER
    ranges = [(start, start + length, data) for start, length, data in lab.found["leaving out"]["holes"]]
    assert [start for start, _, _ in ranges[1:]] == [stop for _, stop, _ in ranges[:-1]]
    assert (ranges[0][0], ranges[-1][1]) == (1000, 1000 + (2 << 20))
    assert [(start, stop) for start, stop, data in ranges if not data] == [
        (hole, hole + CLUSTER),
        (end, 1000 + (2 << 20)),
    ]


def test_volumes_and_partitions_of_a_disk_are_found(lab: Lab) -> None:
    first, rest = lab.found["disks"]["placed"]
    assert first[:4] == [1 << 20, 6 << 20, "\\\\?\\Volume{77777777-0000-0000-0000-000000000001}\\", False]
    assert "no file system" in first[4]
    assert rest == [7 << 20, 1 << 19, "", True, ""]
    # The other volume lies on two other disks; what has no room is told by its count.
    assert lab.found["disks"]["spanned"] == [[8, 1 << 20, 6 << 20], [9, 0, 0]]
    assert lab.found["disks"]["first of two"] == [32, 2]


def test_a_disk_is_written_while_its_volume_is_locked(lab: Lab) -> None:
    found = lab.found["disks"]
    assert found["in use"][:2] == ["TargetRefusedError", 5]
    assert "Volume{77777777" in found["in use"][2]
    assert found["untouched"]
    assert found["mounted"] == 5  # Windows protects what a file system has
    assert found["verified"]
    assert found["digest"] == hashlib.sha256(lab.disk).hexdigest()
    assert hashlib.sha256(lab.written).digest() == hashlib.sha256(lab.disk).digest()


def test_an_image_is_restored_to_a_locked_volume(lab: Lab) -> None:
    found = lab.found["writing"]
    assert found["verified"]
    assert found["size"] == SIZE
    assert found["writes"] >= DEPTH
    assert lab.target == lab.expected[:1000] + b"x" * 5000 + lab.expected[6000:]


def test_a_device_that_does_not_answer_ends_every_wait(lab: Lab) -> None:
    found = lab.found["hanging"]
    assert found["open"][:2] == found["read"][:2] == found["again"][:2] == ["DeviceReadError", 1460]
    assert "does not answer" in found["open"][2]
    assert "did not answer before" in found["again"][2]
    assert found["left after cancelling"] == 0
    assert found["size"] == 1 << 20


def test_ctrl_c_comes_through_long_before_an_answer(lab: Lab) -> None:
    assert lab.found["hanging"]["ctrl-c"] < 100, "and not the 300 s that a device has"


def test_a_read_that_goes_on_though_it_is_cancelled_keeps_its_memory(lab: Lab) -> None:
    found = lab.found["hanging"]
    assert found["deaf"][:2] == ["DeviceReadError", 1460]
    assert found["left running"] == DEPTH
    assert found["left in the end"] == 0


def test_a_file_is_opened_in_place_of_a_device(lab: Lab) -> None:
    assert lab.found["files"] == {
        "tail": "01234abc89",
        "missing": "DeviceReadError",
        "folder": "DeviceReadError",
    }
