"""Devices of Windows through the real Windows Python and a kernel driver, run by Wine.

The driver keeps the rules of raw volumes (sectors, locks, the end of the file system), leaves every
call pending until a thread of its own has done it, and counts how many are so at once.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
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

pytestmark = pytest.mark.lab

HERE = Path(__file__).parent / "wine_vss"
SIZE = 16 << 20
CLUSTER = 4096


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VssPython]:
    made = VssPython(tmp_path_factory.mktemp("windows"))
    made.build(
        "vssapi.dll", HERE / "vssapi.cpp", HERE / "vssapi.def", libraries=("ole32", "oleaut32", "uuid")
    )
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


@pytest.fixture(scope="module", params=[512, 4096])
def lab(python: VssPython, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    requirements.require_lab("mkntfs", "ntfscp", "ntfscat", root=False)
    return Lab(python, tmp_path_factory.mktemp("devices"), request.param)


def test_the_fake_devices_are_served_to_the_windows_python_too(python: VssPython, tmp_path: Path) -> None:
    done = python.wine.pytest(*portable.DEVICES, "-m", "not lab and not long", timeout=280, scratch=tmp_path)
    assert not done.returncode, done.stdout[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) > 90, done.stdout


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


def test_an_image_is_restored_to_a_locked_volume(lab: Lab) -> None:
    found = lab.found["writing"]
    assert found["verified"]
    assert found["size"] == SIZE
    assert found["writes"] >= DEPTH
    assert lab.target == lab.expected[:1000] + b"x" * 5000 + lab.expected[6000:]


def test_a_file_is_opened_in_place_of_a_device(lab: Lab) -> None:
    assert lab.found["files"] == {
        "tail": "01234abc89",
        "missing": "DeviceReadError",
        "folder": "DeviceReadError",
    }
