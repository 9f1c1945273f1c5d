"""What `Snapshot.open` leaves out: the file system's map and the system's own, joined."""

from __future__ import annotations

import dataclasses
import errno
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from foreign import closed_by_windows, mkntfs, ntfs_put
from vsssnap import (
    DEFAULT_EXCLUSIONS,
    Consistency,
    Exclusion,
    Extent,
    ExtentKind,
    Snapshot,
    UnusedPolicy,
    open_image,
    save_image,
)
from vsssnap.errors import DeviceReadError, SnapshotLostError, UsageError
from vsssnap.providers import Deadline, SnapshotVolume, Taken
from vsssnap.testing import Faults, MemoryProvider, MemoryVolume, faulty_provider, installed

MIB = 1 << 20


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("ntfs")
    volume = mkntfs(folder / "v", 8 * MIB)
    ntfs_put(volume, b"data" * 100_000, "kept.bin", folder)
    ntfs_put(volume, b"page" * 100_000, "pagefile.sys", folder)
    raw = bytearray(closed_by_windows(volume))
    # Old content of free clusters, so that leaving them out can be seen.
    at = raw.index(bytes(64 * 1024), 5 * MIB)
    raw[at : at + 1000] = b"deleted!" * 125
    return bytes(raw)


@pytest.fixture
def volume(content: bytes) -> Iterator[MemoryVolume]:
    with installed(MemoryProvider):
        yield MemoryVolume(content, name="vol")


def kinds(reader: object) -> dict[ExtentKind, int]:
    counts: dict[ExtentKind, int] = {}
    for each in reader.extents():  # type: ignore[attr-defined]  # any reader
        counts[each.kind] = counts.get(each.kind, 0) + each.length
    return counts


def test_free_blocks_and_page_files_are_left_out_by_default(volume: MemoryVolume, content: bytes) -> None:
    with Snapshot("vol") as s, s.open() as disk:
        whole = disk.pread(len(content), 0)
        assert b"deleted!" in content
        assert b"deleted!" not in whole
        assert b"page" * 99_000 not in whole
        assert b"data" * 99_000 in whole
        found = kinds(disk)
        assert found[ExtentKind.EXCLUDED] == 98 * 4096
        assert found[ExtentKind.HOLE] > 4 * MIB
        assert disk.metadata.filesystem == "ntfs"
        assert disk.metadata.exclusions == ("\\pagefile.sys",)
        assert "blocks that the ntfs file system calls free are left out" in disk.metadata.notes


def test_everything_can_be_had(volume: MemoryVolume, content: bytes) -> None:
    with Snapshot("vol") as s, s.open(unused=UnusedPolicy.READ, exclude=()) as disk:
        assert disk.pread(len(content), 0) == content
        assert kinds(disk) == {ExtentKind.DATA: len(content)}
        assert disk.metadata.notes == ()


def test_free_blocks_can_be_had_without_the_page_file(volume: MemoryVolume, content: bytes) -> None:
    with Snapshot("vol") as s, s.open(unused=UnusedPolicy.READ) as disk:
        assert b"deleted!" in disk.pread(len(content), 0)
        assert set(kinds(disk)) == {ExtentKind.DATA, ExtentKind.EXCLUDED}
        assert "nobody promises" in disk.metadata.notes[-1]


@pytest.mark.parametrize(
    "bad", [{"unused": "some"}, {"exclude": ["some"]}, {"exclude": "page-file"}, {"exclude": 1}]
)
def test_what_is_no_policy_is_refused(volume: MemoryVolume, bad: dict[str, object]) -> None:
    with Snapshot("vol") as s, pytest.raises(UsageError, match=r"^(unused|exclude) is"):
        s.open(**bad)  # type: ignore[arg-type]  # that is the test


def test_an_unknown_file_system_is_kept_whole_and_the_image_says_so(tmp_path: Path) -> None:
    image = tmp_path / "image.vsnap"
    with installed(MemoryProvider):
        content = b"\1" * MIB
        with Snapshot(MemoryVolume(content)) as s, s.open() as disk:
            assert kinds(disk) == {ExtentKind.DATA: MIB}
            save_image(disk, image)
    with open_image(image) as saved:
        assert saved.pread(MIB, 0) == content
        assert "every block is kept: there is no file system whose map is known" in saved.metadata.notes


def test_an_image_holds_what_the_view_shows(volume: MemoryVolume, content: bytes, tmp_path: Path) -> None:
    image = tmp_path / "image.vsnap"
    with Snapshot("vol") as s, s.open() as disk:
        report = save_image(disk, image)
        with open_image(image) as saved:
            assert saved.pread(len(content), 0) == disk.pread(len(content), 0)
            assert saved.metadata.exclusions == ("\\pagefile.sys",)
            said = kinds(disk)
    assert (report.hole, report.excluded) == (said[ExtentKind.HOLE], said[ExtentKind.EXCLUDED])
    assert report.data + report.zero == said[ExtentKind.DATA]


class Mapped(MemoryProvider):
    """A provider whose system has a map of its own."""

    name = "mapped"
    free: ClassVar[tuple[tuple[int, int], ...]] = ()

    def allocation(self, volume: SnapshotVolume, /) -> Callable[[int, int], Iterable[Extent]]:
        def ranges(offset: int, length: int) -> Iterator[Extent]:
            at, end = offset, offset + length
            for start, stop in self.free:
                if start >= end or stop <= at:
                    continue
                if start > at:
                    yield Extent(at, start - at)
                    at = start
                yield Extent(at, min(stop, end) - at, ExtentKind.HOLE)
                at = min(stop, end)
            if at < end:
                yield Extent(at, end - at)

        return ranges


def holes(reader: object) -> set[int]:
    return {
        at
        for each in reader.extents()  # type: ignore[attr-defined]  # any reader
        if each.kind is ExtentKind.HOLE
        for at in range(each.offset, each.end, 512)
    }


def test_where_the_systems_map_and_ours_differ_the_block_is_kept(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mapped, "free", ((0, MIB), (6 * MIB, 7 * MIB)))
    with installed(MemoryProvider), installed(Mapped):
        vol = MemoryVolume(content)
        with Snapshot(vol, provider="memory") as s:
            ours = holes(s.open())
        with Snapshot(vol, provider="mapped") as s, s.open() as disk:
            system = {at for start, end in Mapped.free for at in range(start, end, 512)}
            assert holes(disk) == ours & system
            assert ours - system
            assert system - ours
            assert disk.pread(MIB, 5 * MIB) == content[5 * MIB : 6 * MIB]
            assert disk.pread(512, 0) == content[:512]


def test_of_an_unknown_file_system_the_systems_map_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mapped, "free", ((4096, 8192),))
    with installed(Mapped):
        refs = MemoryVolume(b"\1" * 16384)
        with Snapshot(refs, provider="mapped") as s, s.open() as disk:
            assert list(disk.extents()) == [
                Extent(0, 4096),
                Extent(4096, 4096, ExtentKind.HOLE),
                Extent(8192, 8192),
            ]
            assert disk.pread(16384, 0) == b"\1" * 4096 + bytes(4096) + b"\1" * 8192
            assert "blocks that the system calls free are left out" in disk.metadata.notes


def test_a_map_with_gaps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gaps(Mapped):
        name = "gaps"

        def allocation(self, volume: SnapshotVolume, /) -> Callable[[int, int], Iterable[Extent]]:
            return lambda offset, length: [Extent(offset + 1, length - 1)]

    with installed(Gaps):
        odd = MemoryVolume(b"\1" * 16384)
        with (
            Snapshot(odd, provider="gaps") as s,
            s.open() as disk,
            pytest.raises(UsageError, match="provider gaps"),
        ):
            list(disk.extents())


def test_a_volume_whose_first_sectors_fail_can_still_be_opened(content: bytes) -> None:
    faults = Faults()
    with installed(faulty_provider(MemoryProvider, faults)):
        vol = MemoryVolume(content)
        faults.fail("pread", errno.EIO, over=(0, 4096))
        with Snapshot(vol) as s, s.open() as disk:
            with pytest.raises(DeviceReadError):
                disk.pread(512, 0)
            assert disk.pread(512, MIB) == content[MIB : MIB + 512]
            assert kinds(disk).keys() <= {ExtentKind.DATA, ExtentKind.UNREADABLE}


def test_a_lost_snapshot_is_lost_for_the_view_too(volume: MemoryVolume) -> None:
    with Snapshot("vol") as s, s.open() as disk:
        volume.lose_snapshots()
        with pytest.raises(SnapshotLostError):
            disk.confirm()
        with pytest.raises(SnapshotLostError):
            s.open()


def test_a_view_is_read_by_many_threads(volume: MemoryVolume, content: bytes) -> None:
    with Snapshot("vol") as s, s.open() as disk:
        whole = disk.pread(len(content), 0)
        wrong: list[int] = []

        def work(seed: int) -> None:
            import random

            rng = random.Random(seed)
            for _ in range(200):
                offset, length = rng.randrange(len(content)), rng.randrange(1, 70_000)
                if disk.pread(length, offset) != whole[offset : offset + length]:
                    wrong.append(offset)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_default_exclusions_are_all_there_are() -> None:
    assert set(DEFAULT_EXCLUSIONS) == set(Exclusion)


class Judged(MemoryProvider):
    """A provider that says how the volume was at the instant."""

    name = "judged"
    level: ClassVar[Consistency] = Consistency.CRASH
    still: ClassVar[bool] = False

    def take(self, deadline: Deadline, /) -> Taken:
        taken = super().take(deadline)
        volumes = tuple(dataclasses.replace(each, still=self.still) for each in taken.volumes)
        return dataclasses.replace(taken, volumes=volumes, level=self.level)


@pytest.mark.parametrize(
    ("level", "still", "used"),
    [
        (Consistency.CRASH, False, False),
        (Consistency.CRASH, True, True),
        (Consistency.FILESYSTEM, False, True),
        (Consistency.APPLICATION, False, True),
    ],
)
def test_ntfs_whose_log_says_nothing_is_trusted_only_if_nobody_can_have_used_it(
    level: Consistency, still: bool, used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that keeps no log empties it, and leaves no other mark on what it has mounted."""
    content = mkntfs(tmp_path / "v", 4 * MIB).read_bytes()
    monkeypatch.setattr(Judged, "level", level)
    monkeypatch.setattr(Judged, "still", still)
    with installed(Judged), Snapshot(MemoryVolume(content), provider="judged") as s, s.open() as disk:
        assert (ExtentKind.HOLE in kinds(disk)) == used
        said = any("it may have been in use" in note for note in disk.metadata.notes)
        assert said != used
