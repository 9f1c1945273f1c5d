"""The real Windows Python, run by Wine: calling conventions, libraries and paths of Windows.

Wine is not Windows, and its VSS is a stub: the vssapi.dll used here is our own, in C++, compiled
against mingw-w64's headers, and knows nothing of the binding.
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
from vsssnap import open_image, verify_image
from wine import windows
from wine_vss import VOLUME, VssPython

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1000)]

HERE = Path(__file__).parent / "wine_vss"

WRITER = "Sp\u00e4tzle \U0001f400 Writer"
COPY = "0badcafe-1234-5678-9abc-def012345678"
SET = "abcdef01-2345-6789-abcd-ef0102030405"
SYSTEM_PROVIDER = "b5946137-7b9f-4925-af80-51abd60b20d5"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VssPython]:
    made = VssPython(tmp_path_factory.mktemp("windows"))
    yield made
    made.wine.stop()


@pytest.fixture(scope="module")
def abi(python: VssPython, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[str]]:
    """What Python got, and what the library got, from one run through all calls."""
    log = tmp_path_factory.mktemp("abi") / "log.txt"
    python.build("vssapi.dll", HERE / "vssapi.cpp", HERE / "vssapi.def")
    done = python.run(windows(HERE / "abi.py"), VSSSNAP_LAB_LOG=windows(log))
    assert not done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found, log.read_text("utf-8").splitlines()


def test_the_suite_passes_under_the_real_windows_python(python: VssPython, tmp_path: Path) -> None:
    assert python.wine.pytest(*portable.PYTEST, *portable.VSS, scratch=tmp_path) > 350


def test_ids_by_value_bools_and_strings_arrive_whole(abi: tuple[dict[str, Any], list[str]]) -> None:
    _, log = abi
    assert "SetContext 0x80000002" in log
    assert "SetBackupState 0 1 5 0" in log
    assert "DisableWriterClasses 01234567-89ab-cdef-0123-456789abcdef" in log
    assert "DisableWriterClasses fedcba98-7654-3210-fedc-ba9876543210" in log
    assert f"IsVolumeSupported {SYSTEM_PROVIDER} X:\\" in log
    assert f"AddToSnapshotSet X:\\m\u00e4p\\ {SYSTEM_PROVIDER}" in log
    assert f"GetSnapshotProperties {COPY}" in log
    assert "QueryInterface c191bfbc-b602-4675-8bd1-67d642f529d5" in log


def test_what_calls_give_arrives_whole(abi: tuple[dict[str, Any], list[str]]) -> None:
    found, _ = abi
    assert found["set"] == SET
    assert found["copy"] == COPY
    assert found["supported"] is True
    assert found["metadata"] == [
        [
            WRITER,
            "11111111-2222-3333-4444-010203040506",
            "99999999-8888-7777-6666-060504030201",
            "<m>\0</m>",
        ]
    ]
    assert found["status"] == [[WRITER, "VSS_WS_FAILED_AT_FREEZE", 0x800423F2, 0x80004005, "log is full"]]
    assert found["snapshot"] == [
        COPY,
        SET,
        "\\\\?\\GLOBALROOT\\Device\\HarddiskVolumeShadowCopy7",
        "\\\\?\\Volume{original}\\",
        SYSTEM_PROVIDER,
        0x20000,
        "2024-01-01T00:00:00+00:00",
        12,
    ]
    assert found["unknown copy"] == 0x80042308
    assert found["xml"] == "<b/>"


def test_the_order_is_that_of_the_calls_and_nothing_is_left(abi: tuple[dict[str, Any], list[str]]) -> None:
    _, log = abi
    assert [line.split()[0] for line in log if not line.startswith("QueryInterface")] == [
        "CreateVssBackupComponents",
        "InitializeForBackup",
        "SetContext",
        "SetBackupState",
        "DisableWriterClasses",
        "DisableWriterClasses",
        "GatherWriterMetadata",
        "GetWriterMetadata",
        "FreeWriterMetadata",
        "StartSnapshotSet",
        "IsVolumeSupported",
        "AddToSnapshotSet",
        "PrepareForBackup",
        "GatherWriterStatus",
        "GetWriterStatus",
        "FreeWriterStatus",
        "DoSnapshotSet",
        "GetSnapshotProperties",
        "GetSnapshotProperties",
        "BackupComplete",
        "AbortBackup",
        "released,",
    ]
    assert log[-1] == "released, objects left: 0"


def test_the_other_libraries_answer(abi: tuple[dict[str, Any], list[str]]) -> None:
    found, _ = abi
    assert found["wow64"] is False
    assert found["elevated"] is True
    assert found["privilege"] is True
    assert found["no service"] == "is not installed"
    assert found["rpc service"] == ""
    assert re.fullmatch(r"\\\\\?\\Volume\{[0-9a-f-]{36}\}\\", found["volume"])
    assert "C:\\" in found["mounted"]


def test_where_vss_is_not_installed_it_says_so(python: VssPython) -> None:
    program = "from vsssnap.providers import available; print(available()['vss'])"
    done = python.run("-c", program)
    assert "the service Volume Shadow Copy is not installed" in done.stdout, done.stderr


# Imaging a volume that is being written, through everything.


class Lab:
    """A live NTFS volume in a file, and what became of imaging it."""

    def __init__(self, python: VssPython, folder: Path) -> None:
        requirements.require_lab("mkntfs", "ntfscp", "ntfscat", "ntfsfix", root=False)
        files = python.build_volsnap(folder)
        self.live, self.bitmap = files["LIVE"], files["BITMAP"]
        self.images, self.log = folder / "images", folder / "log.txt"
        self.images.mkdir()
        self.content = random.Random(7).randbytes(3_000_001)
        (folder / "content").write_bytes(self.content)
        with open(self.live, "wb") as file:
            file.truncate(16 << 20)
        geometry = ("-p", "0", "-H", "0", "-S", "0")
        tool("mkntfs", "-F", "-Q", "-q", "-s", "512", "-c", "4096", *geometry, str(self.live))
        tool("ntfscp", "-q", "-f", str(self.live), str(folder / "content"), "file.bin")
        self.bitmap.write_bytes(tool("ntfscat", "-i", "6", str(self.live)))  # $Bitmap
        self.before = self.live.read_bytes()
        self.expected = self._expected(self.before, self.bitmap.read_bytes())
        done = python.run(
            windows(HERE / "imaging.py"),
            windows(python.folder / "volsnap.sys"),
            VOLUME,
            windows(self.images),
            windows(files["LOST"]),
            VSSSNAP_LAB_LOG=windows(self.log),
            VSSSNAP_LAB_VOLUME=VOLUME,
            VSSSNAP_LAB_LOST=windows(files["LOST"]),
        )
        assert not done.returncode, done.stderr
        self.found: dict[str, Any] = json.loads(done.stdout)

    def _expected(self, volume: bytes, bits: bytes) -> bytes:
        """The volume at the instant, its free clusters zeroed."""
        made = bytearray(volume)
        for cluster in range((len(volume) - 512) // 4096):
            if not bits[cluster // 8] >> cluster % 8 & 1:
                made[cluster * 4096 : (cluster + 1) * 4096] = bytes(4096)
        return bytes(made)


def tool(name: str, *arguments: str) -> bytes:
    """Run a program of somebody else's and give its output."""
    program = requirements.require_program(name)
    return subprocess.run([program, *arguments], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def lab(
    python: VssPython,
    abi: tuple[dict[str, Any], list[str]],  # which has built vssapi.dll
    tmp_path_factory: pytest.TempPathFactory,
) -> Lab:
    return Lab(python, tmp_path_factory.mktemp("imaging"))


def test_an_image_is_the_volume_at_the_instant(lab: Lab) -> None:
    assert (lab.images / "c.raw").read_bytes() == lab.expected
    assert lab.found["images"]["size"] == 16 << 20, "with the backup boot sector"
    assert lab.found["images"]["digests"] == [hashlib.sha256(lab.expected).hexdigest()]
    assert lab.live.read_bytes() != lab.before, "it was written meanwhile"


def test_the_driver_keeps_what_is_overwritten_and_no_more(lab: Lab) -> None:
    """Nothing is copied at the instant: only clusters in use, one at a time, before each is overwritten."""
    used = sum(byte.bit_count() for byte in lab.bitmap.read_bytes())
    before, after = lab.found["images"]["copied"]
    assert before == 0
    assert 100 < after <= used
    kept, live = (lab.images / "kept").read_bytes(), lab.live.read_bytes()
    places = [slice(at, at + 4096) for at in range(0, len(kept), 4096)]
    overwritten = [place for place in places if any(kept[place]) and kept[place] != live[place]]
    assert len(overwritten) > 100
    assert all(kept[place] == lab.before[place] for place in overwritten)


def test_whoever_reads_past_the_shadow_copy_gets_another_volume(lab: Lab) -> None:
    assert lab.found["images"]["past it"] != hashlib.sha256(lab.before).hexdigest()
    assert lab.found["images"]["past it"] not in lab.found["images"]["digests"]
    torn = (lab.images / "torn.raw").read_bytes()
    assert sum(torn[at : at + 4096] != lab.before[at : at + 4096] for at in range(0, len(torn), 4096)) > 100


def test_the_file_system_in_the_image_is_whole(lab: Lab) -> None:
    image = str(lab.images / "c.raw")
    assert tool("ntfscat", image, "file.bin") == lab.content
    tool("ntfsfix", "--no-action", image)


def test_an_image_from_windows_is_read_and_verified_elsewhere(lab: Lab) -> None:
    assert verify_image(lab.images / "c.vsnap").ok
    assert verify_image(lab.images / "c.raw").ok
    with open_image(lab.images / "c.vsnap") as image:
        assert image.pread(image.size, 0) == lab.expected
        assert image.metadata.volume == "C:"
        assert image.metadata.provider == "vss"
        assert image.metadata.documents["vss/backup-components.xml"] == b"<b/>"


def test_free_space_is_neither_read_nor_stored(lab: Lab) -> None:
    data, hole = lab.found["images"]["vsnap"]
    assert data + hole == 16 << 20
    assert hole > 8 << 20


def test_a_failed_writer_is_reported(lab: Lab) -> None:
    assert lab.found["images"]["level"] == "FILESYSTEM"
    assert lab.found["images"]["reports"] == [[WRITER, "FAILED_AT_FREEZE"]]


def test_a_shadow_copy_that_is_lost_makes_no_image(lab: Lab) -> None:
    assert lab.found["lost"]["error"] == "SnapshotLostError"
    assert "lost.vsnap" not in lab.found["lost"]["left"]
    assert not [name for name in lab.found["lost"]["left"] if name.endswith(".partial")]


def test_failures_come_out_as_what_the_caller_can_do(lab: Lab) -> None:
    assert lab.found["failing"] == [
        ["SnapshotBusyError", 0x80042314],  # PrepareForBackup failed with HOLD_WRITES_TIMEOUT
        ["SnapshotTimeoutError", None],  # DoSnapshotSet hung
        ["WriterFailedError", 0x800423F2],  # APPLICATION was required
        ["", None],  # without writers nobody asks those that hang
    ]


def test_nothing_is_left_after_any_of_it(lab: Lab) -> None:
    log = lab.log.read_text("utf-8").splitlines()
    assert log.count("released, objects left: 0") == log.count("CreateVssBackupComponents") == 6
    assert log.count("DoSnapshotSet.Cancel") == 1
    assert log.count("BackupComplete") == 1, "once it was told that all is well"
