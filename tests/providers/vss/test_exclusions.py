"""Files that Windows names, left out of images."""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from vsssnap import (
    DEFAULT_EXCLUSIONS,
    BlockReader,
    Exclusion,
    Extent,
    ExtentKind,
    Snapshot,
    _deadline,
    _held,
)
from vsssnap._deadline import Deadline
from vsssnap._win32 import listing
from vsssnap._win32.dll import System
from vsssnap.errors import ClosedError, SnapshotError, SnapshotTimeoutError
from vsssnap.providers import LeftOut, SnapshotVolume
from vsssnap.providers.vss import exclusions
from vsssnap.providers.vss.exclusions import Finder
from vsssnap.testing import MemoryProvider, MemoryVolume, installed
from vsssnap.testing.fake_vss import FakeFile, FakeVolume, FakeVss
from waiting import Late

CLUSTER = 4096
SIZE = 200 * CLUSTER
MEMORY = r"SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management"
NOT_TO_SNAPSHOT = r"SYSTEM\CurrentControlSet\Control\BackupRestore\FilesNotToSnapshot"
PROFILES = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion\ProfileList"
STORE = "\\System Volume Information\\{5a44c3a4-1-2}{3808876B-C176-4E48-B7AE-04046E6CC752}"


@pytest.fixture
def volume(fake_vss: FakeVss) -> FakeVolume:
    return fake_vss.add_volume("C:\\", "D:\\mounted\\", size=SIZE, data=random.Random(3).randbytes(SIZE))


def left_out(volume: FakeVolume, *exclude: Exclusion) -> tuple[tuple[str, ...], set[int]]:
    """Paths in the metadata, and the clusters that are left out; all else is as it was."""
    with Snapshot("C:") as s, s.open(exclude=exclude or DEFAULT_EXCLUSIONS) as disk:
        gone: set[int] = set()
        for extent in disk.extents():
            if extent.kind is ExtentKind.EXCLUDED:
                gone |= set(range(extent.offset // CLUSTER, -(-extent.end // CLUSTER)))
        expected = bytearray(volume.data)
        for cluster in gone:
            expected[cluster * CLUSTER : (cluster + 1) * CLUSTER] = bytes(CLUSTER)
        assert disk.pread(disk.size, 0) == expected
        return disk.metadata.exclusions, gone


def found(fake_vss: FakeVss, kind: str, **environment: str) -> dict[str, list[int]]:
    """What is found of a kind: paths, and the first cluster of each of its runs."""
    shadow = next(iter(fake_vss.shadows.values()))
    finder = Finder(
        fake_vss, shadow.device, shadow.volume.guid_path, deadline=Deadline(60), environment=environment
    )
    return {
        each.path: [extent.offset // CLUSTER for extent in each.extents]
        for each in finder.find(frozenset({kind}))
    }


def test_files_of_windows_are_left_out_wherever_they_lie(fake_vss: FakeVss, volume: FakeVolume) -> None:
    volume.pwrite(b"wake", 150 * CLUSTER)
    volume.files = {
        "\\pagefile.sys": FakeFile(((10, 5), (-1, 3), (20, 2), (30, 1), (33, 1), (40, 1))),
        "\\swapfile.sys": FakeFile(((45, 2),)),
        "\\hiberfil.sys": FakeFile(((150, 1),)),
        "\\other\\page.sys": FakeFile(((70, 1),)),
        "\\document.txt": FakeFile(((80, 9),)),
    }
    lines = [r"\??\C:\pagefile.sys", r"\??\c:\other\page.sys", r"\??\E:\document.txt"]
    fake_vss.registry[MEMORY] = {"ExistingPageFiles": lines, "PagingFiles": [r"\??\C:\document.txt"]}
    names, gone = left_out(volume)
    assert names == ("\\pagefile.sys", "\\other\\page.sys", "\\swapfile.sys", "\\hiberfil.sys")
    assert gone == {*range(10, 15), 20, 21, 30, 33, 40, 70, 45, 46, 150}
    assert left_out(volume, Exclusion.SWAP_FILE) == (("\\swapfile.sys",), {45, 46})
    with Snapshot("C:") as s, s.open(exclude=()) as disk:
        assert disk.metadata.exclusions == ()
        assert disk.pread(SIZE, 0) == volume.data


def test_a_hibernated_system_is_kept(fake_vss: FakeVss, volume: FakeVolume) -> None:
    volume.pwrite(b"HIBR", 150 * CLUSTER)
    volume.files = {"\\hiberfil.sys": FakeFile(((150, 1),))}
    assert left_out(volume) == ((), set())
    # What tells is how the file begins, wherever on the volume that lies.
    volume.pwrite(bytes(CLUSTER), 20 * CLUSTER)
    volume.files = {"\\hiberfil.sys": FakeFile(((150, 1), (20, 1)))}
    assert left_out(volume) == ((), set())
    volume.pwrite(b"wake", 150 * CLUSTER)
    assert left_out(volume) == (("\\hiberfil.sys",), {20, 150})


def test_the_storage_of_shadow_copies_is_found(fake_vss: FakeVss, volume: FakeVolume) -> None:
    volume.files = {
        STORE: FakeFile(((60, 4),)),
        "\\System Volume Information\\tracking.log": FakeFile(((70, 4),)),
    }
    with Snapshot("C:"):
        assert found(fake_vss, "shadow-storage") == {STORE: [60]}
    # Nobody can blank what points at it on a volume without NTFS.
    assert left_out(volume) == ((), set())


def test_patterns_of_the_registry_are_followed(fake_vss: FakeVss, volume: FakeVolume) -> None:
    volume.files = {
        "\\Windows\\memory.dmp": FakeFile(((1, 1),)),
        "\\Windows\\Temp\\a.tmp": FakeFile(((2, 1),)),
        "\\Windows\\Temp\\below\\b.TMP": FakeFile(((3, 1),)),
        "\\Windows\\Temp\\c.tmpx": FakeFile(((4, 1),)),
        "\\Users\\anna\\mail\\box.ost": FakeFile(((5, 1),)),
        "\\Users\\bert\\mail\\deep\\box.ost": FakeFile(((6, 1),)),
        "\\Users\\link\\mail\\box.ost": FakeFile(((7, 1),)),
        "\\Users\\link": FakeFile(folder=True, link=True),
        "\\all\\noextension": FakeFile(((8, 1),)),
        "\\all\\with.one": FakeFile(((9, 1),)),
        "\\there\\x.bin": FakeFile(((10, 1),)),
        "\\kept.txt": FakeFile(((11, 1),)),
    }
    patterns = {
        "dump": [r"%SystemRoot%\MEMORY.DMP"],
        "temp": [r"%systemroot%\Temp\*.tmp /s", r"%unknown%\*"],
        "mail": [r"$UserProfile$\mail\*.ost"],
        "all": [r"$AllVolumes$\all\*.*"],
        "mounted": [r"D:\mounted\there\x.bin"],
        "other": [r"E:\kept.txt", r"\*\kept.txt", "C:\\", "", "kept.txt"],
    }
    fake_vss.registry[NOT_TO_SNAPSHOT] = patterns
    fake_vss.registry[PROFILES] = {"ProfilesDirectory": [r"%SystemDrive%\Users"]}
    with Snapshot("C:"):
        assert found(fake_vss, "not-in-snapshot", SystemRoot=r"C:\Windows", SystemDrive="C:") == {
            r"%SystemRoot%\MEMORY.DMP": [1],
            r"%systemroot%\Temp\*.tmp /s": [2, 3],
            r"$UserProfile$\mail\*.ost": [5],
            r"$AllVolumes$\all\*.*": [8, 9],
            r"D:\mounted\there\x.bin": [10],
        }


def test_what_is_wanted_under_another_name_or_lies_nowhere_is_kept(
    fake_vss: FakeVss, volume: FakeVolume
) -> None:
    volume.files = {
        "\\pagefile.sys": FakeFile(((10, 5),), links=2),
        "\\swapfile.sys": FakeFile(((190, 100),)),
        "\\hiberfil.sys": FakeFile(),
    }
    assert left_out(volume) == ((), set())


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("FindFirstFileW", "shadow-storage"),
        ("IOCTL_DISK_GET_LENGTH_INFO", "page-file"),
        ("CreateFileW", "page-file"),
    ],
)
def test_what_cannot_be_asked_is_kept(fake_vss: FakeVss, volume: FakeVolume, call: str, kind: str) -> None:
    volume.files = {STORE: FakeFile(((60, 4),)), "\\pagefile.sys": FakeFile(((10, 5),))}
    with Snapshot("C:"):
        fake_vss.faults.fail(call, 5)
        assert found(fake_vss, kind) == {}
        assert not fake_vss.faults.unused()
        assert len(found(fake_vss, kind)) == 1


def test_there_is_an_end_to_looking(
    fake_vss: FakeVss, volume: FakeVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusions, "_MOST_FILES", 2)
    volume.files = {f"\\t\\{number}": FakeFile(((number, 1),)) for number in range(1, 9)}
    fake_vss.registry[NOT_TO_SNAPSHOT] = {"t": [r"C:\t\1", r"C:\t\2", r"C:\t\3"]}
    assert left_out(volume) == ((r"C:\t\1", r"C:\t\2"), {1, 2})


@pytest.fixture
def endless(volume: FakeVolume, fake_vss: FakeVss, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A folder that has no end; the event says that somebody looks into it."""
    looked_into = threading.Event()
    volume.files = {"\\first": FakeFile(((1, 1),)), "\\t\\x": FakeFile(((2, 1),))}
    fake_vss.registry[NOT_TO_SNAPSHOT] = {"t": [r"\first", r"C:\t\* /s"]}
    entries = listing.entries

    def forever(system: System, folder: str) -> Iterator[listing.Entry]:
        if not folder.endswith("\\t"):
            yield from entries(system, folder)
            return
        looked_into.set()
        while True:
            time.sleep(0.001)
            yield listing.Entry("there is no such file", False, False)

    monkeypatch.setattr(listing, "entries", forever)
    return looked_into


def test_looking_for_files_ends_with_the_timeout(
    fake_vss: FakeVss,
    endless: threading.Event,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_deadline, "time", Late(endless.is_set))
    with Snapshot("C:") as s, s.open() as disk:
        assert disk.metadata.exclusions == ("\\first",)
    assert endless.is_set()
    assert "more files could be left out" in caplog.text


def test_looking_for_files_ends_when_the_snapshot_is_released(
    fake_vss: FakeVss, endless: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_held, "_RELEASE_BUDGET", 0.2)
    snapshot = Snapshot("C:", timeout=math.inf)
    snapshot.create()
    readers: list[BlockReader] = []

    def look() -> None:
        with contextlib.suppress(ClosedError):  # it ends as one or the other, by what is released first
            readers.append(snapshot.open())

    thread = threading.Thread(target=look)
    thread.start()
    assert endless.wait(60)
    with pytest.raises(SnapshotTimeoutError, match="wait for open"):
        snapshot.close()
    thread.join(60)
    assert not thread.is_alive()
    assert all(reader.closed for reader in readers)
    assert not fake_vss.shadows


class Naming(MemoryProvider):
    """A provider that names what to leave out."""

    name = "naming"
    given: ClassVar[Sequence[LeftOut]] = ()

    def excluded(self, volume: SnapshotVolume, kinds: frozenset[str], /) -> Sequence[LeftOut]:
        return self.given


def test_a_provider_that_names_nonsense_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(kind: str, end: int) -> LeftOut:
        extent = Extent(0, end, ExtentKind.EXCLUDED)
        return LeftOut(kind=kind, path="\\x", extents=(extent,))

    with installed(Naming), Snapshot(MemoryVolume(b"x" * 8192), provider="naming") as s:
        monkeypatch.setattr(Naming, "given", [named("page-file", 4096), named("unheard-of", 8192)])
        with s.open() as disk:
            assert disk.pread(8192, 0) == bytes(4096) + b"x" * 4096
            assert disk.metadata.exclusions == ("\\x",)
        monkeypatch.setattr(Naming, "given", [named("page-file", 8193)])
        with pytest.raises(SnapshotError, match="has 8192 bytes"):
            s.open()
