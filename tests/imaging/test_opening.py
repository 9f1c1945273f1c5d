"""Finding an image's parents by path, and opening what a failing disk still gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vsnap_images import noise
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import (
    CorruptImageError,
    DeviceReadError,
    ImageError,
    ImageNotFoundError,
    ParentMismatchError,
    TargetError,
    TargetRefusedError,
    UsageError,
)
from vsssnap.formats import FileStorage, MemoryStorage
from vsssnap.formats.raw import RawOptions
from vsssnap.formats.sidecar import SidecarWriter
from vsssnap.formats.vsnap import VsnapOptions
from vsssnap.imaging.opening import create_image, open_device, open_image
from vsssnap.imaging.planning import check_save
from vsssnap.imaging.reports import Progress
from vsssnap.imaging.restoring import restore_image
from vsssnap.imaging.saving import save_image
from vsssnap.imaging.verifying import verify_image

pytestmark = pytest.mark.posix("links need a right there")

UNIT = 1 << 16
PLAIN = RawOptions(sidecar=False)
OPTIONS = VsnapOptions(chunk_size=UNIT, cell_size=4096)


class Source(MemoryStorage):
    def __init__(self, seed: int) -> None:
        """A part is the same for every seed, so that a child needs its parent."""
        super().__init__(noise(1, 2 * UNIT) + noise(seed, UNIT))


def save(path: Path, seed: int, parent: Path | None = None) -> bytes:
    source = Source(seed)
    if parent is None:
        save_image(source, path, options=OPTIONS)
    else:
        with open_image(parent) as reader:
            save_image(source, path, parent=reader)
    return bytes(source.data)


def check(path: Path, data: bytes) -> None:
    with open_image(path) as reader:
        assert reader.pread(len(data), 0) == data


def test_a_child_made_against_a_link_stays_a_child_when_the_link_moves_on(tmp_path: Path) -> None:
    """``latest.vsnap`` is what many people name their newest image."""
    latest = tmp_path / "latest.vsnap"
    save(tmp_path / "monday.vsnap", 1)
    latest.symlink_to("monday.vsnap")
    data = save(tmp_path / "tuesday.vsnap", 2, latest)
    latest.unlink()
    latest.symlink_to("tuesday.vsnap")
    check(latest, data)
    check(tmp_path / "tuesday.vsnap", data)


def test_a_parent_is_found_beside_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    save(tmp_path / "store" / "a.vsnap", 1)
    data = save(tmp_path / "store" / "b.vsnap", 2, tmp_path / "store" / "a.vsnap")
    (tmp_path / "newest.vsnap").symlink_to("store/b.vsnap")
    check(tmp_path / "newest.vsnap", data)


def test_folders_reached_by_links_are_named_as_they_are(tmp_path: Path) -> None:
    """``..`` behind a link leads out of where the link leads to, not back."""
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "daily").symlink_to("deep/deeper")
    save(tmp_path / "full" / "a.vsnap", 1)
    data = save(tmp_path / "daily" / "b.vsnap", 2, tmp_path / "full" / "a.vsnap")
    check(tmp_path / "daily" / "b.vsnap", data)
    check(tmp_path / "deep" / "deeper" / "b.vsnap", data)


def test_a_parent_that_is_a_link_is_followed(tmp_path: Path) -> None:
    save(tmp_path / "a.vsnap", 1)
    data = save(tmp_path / "b.vsnap", 2, tmp_path / "a.vsnap")
    (tmp_path / "a.vsnap").rename(tmp_path / "moved.vsnap")
    (tmp_path / "a.vsnap").symlink_to("moved.vsnap")
    check(tmp_path / "b.vsnap", data)


def test_a_link_to_the_child_in_the_parents_place_is_a_circle(tmp_path: Path) -> None:
    save(tmp_path / "a.vsnap", 1)
    save(tmp_path / "b.vsnap", 2, tmp_path / "a.vsnap")
    (tmp_path / "a.vsnap").unlink()
    (tmp_path / "a.vsnap").symlink_to("b.vsnap")
    with open_image(tmp_path / "b.vsnap") as reader, pytest.raises(CorruptImageError, match="own descendant"):
        reader.pread(1, 0)


def test_a_missing_parent_is_named_with_the_places_that_were_tried(tmp_path: Path) -> None:
    save(tmp_path / "a.vsnap", 1)
    save(tmp_path / "b.vsnap", 2, tmp_path / "a.vsnap")
    (tmp_path / "a.vsnap").unlink()
    with open_image(tmp_path / "b.vsnap") as reader, pytest.raises(ImageNotFoundError, match=r"a\.vsnap"):
        reader.pread(1, 0)


def test_another_image_in_the_parents_place_is_not_taken(tmp_path: Path) -> None:
    save(tmp_path / "a.vsnap", 1)
    save(tmp_path / "b.vsnap", 2, tmp_path / "a.vsnap")
    (tmp_path / "a.vsnap").unlink()
    save(tmp_path / "a.vsnap", 1)  # the same content, but other bytes: pieces lie elsewhere
    with open_image(tmp_path / "b.vsnap") as reader, pytest.raises(ParentMismatchError):
        reader.pread(1, 0)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("as_parent", [False, True])
def test_a_fifo_is_refused_and_not_waited_for(as_parent: bool, tmp_path: Path) -> None:
    save(tmp_path / "a.vsnap", 1)
    save(tmp_path / "b.vsnap", 2, tmp_path / "a.vsnap")
    (tmp_path / "a.vsnap").unlink()
    os.mkfifo(tmp_path / "a.vsnap")
    if not as_parent:
        with pytest.raises(ImageError, match="no regular file"):
            open_image(tmp_path / "a.vsnap")
        return
    with open_image(tmp_path / "b.vsnap") as reader, pytest.raises(ImageError, match="no regular file"):
        reader.pread(1, 0)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")
def test_refused_images_leave_no_descriptor_open(tmp_path: Path) -> None:
    save(tmp_path / "a.vsnap", 1)
    save(tmp_path / "b.vsnap", 2, tmp_path / "a.vsnap")
    whole = (tmp_path / "b.vsnap").read_bytes()
    below = (tmp_path / "a.vsnap").read_bytes()
    before = len(os.listdir("/proc/self/fd"))
    for child, parent in ((whole[:-1], below), (whole, below[:-1]), (whole, b""), (whole[:500], below)):
        (tmp_path / "b.vsnap").write_bytes(child)
        (tmp_path / "a.vsnap").write_bytes(parent)
        for recover in (False, True):
            for _ in range(3):
                try:
                    with open_image(tmp_path / "b.vsnap", recover=recover) as reader:
                        list(reader.extents())
                        reader.pread(reader.size, 0)
                except (ImageError, OSError):
                    pass
                assert len(os.listdir("/proc/self/fd")) == before


# Bad sectors.


@pytest.fixture
def bad_sectors(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Files and offsets that cannot be read from now on."""
    sectors: list[tuple[str, int]] = []
    read = FileStorage.pread

    def pread(self: FileStorage, length: int, offset: int, /) -> bytes:
        if any(name == self.name and offset < at + 512 and at < offset + length for name, at in sectors):
            raise DeviceReadError(f"{self.name}: cannot read at {offset}", offset=offset, length=length)
        return read(self, length, offset)

    monkeypatch.setattr(FileStorage, "pread", pread)
    return sectors


@pytest.mark.parametrize("place", ["header", "first footer", "second footer"])
def test_an_image_opens_in_spite_of_one_bad_sector_that_another_makes_up_for(
    place: str, bad_sectors: list[tuple[str, int]], tmp_path: Path
) -> None:
    path = tmp_path / "a.vsnap"
    data = save(path, 1)
    size = path.stat().st_size
    bad_sectors.append((str(path), {"header": 0, "first footer": size - 8192}.get(place, size - 4096)))
    with open_image(path) as reader:
        assert reader.pread(len(data), UNIT) == data[UNIT:]  # the first frame shares the header's sector
    report = verify_image(path)
    assert not report.ok
    assert {finding.structure for finding in report.findings} <= {"header", "footer", "frame"}


def test_an_image_without_a_readable_end_is_reported_and_not_raised(
    bad_sectors: list[tuple[str, int]], tmp_path: Path
) -> None:
    path = tmp_path / "a.vsnap"
    data = save(path, 1)
    size = path.stat().st_size
    bad_sectors += [(str(path), size - 8192), (str(path), size - 4096)]
    report = verify_image(path)
    assert (report.ok, report.format) == (False, "vsnap")
    with open_image(path, recover=True) as reader:
        assert reader.pread(len(data), 0) == data


# What lies beside an image.


def test_a_side_car_that_was_left_behind_is_not_taken_for_a_new_image(tmp_path: Path) -> None:
    path, beside = tmp_path / "a.raw", tmp_path / "a.raw.vsssnap"
    save_image(Source(1), path)
    path.unlink()
    with pytest.raises(TargetRefusedError, match=r"a\.raw\.vsssnap exists"):
        save_image(Source(2), path, options=PLAIN)
    with pytest.raises(TargetRefusedError, match=r"a\.raw\.vsssnap exists"):
        restore_image(Source(2), path)
    assert os.listdir(tmp_path) == [beside.name]
    save_image(Source(2), path, options=PLAIN, replace=True)
    assert os.listdir(tmp_path) == [path.name]
    assert verify_image(path).ok


def test_a_restore_that_replaces_an_image_takes_its_side_car_away(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    save_image(Source(1), path)
    restore_image(Source(2), path, replace=True)
    assert os.listdir(tmp_path) == [path.name]
    check(path, bytes(Source(2).data))


@pytest.mark.parametrize("way", ["save", "plain", "restore", "check"])
def test_a_source_that_is_called_like_the_side_car_of_the_target_stays(tmp_path: Path, way: str) -> None:
    source, target = tmp_path / "a.raw.vsssnap", tmp_path / "a.raw"
    data = bytes(Source(1).data)
    source.write_bytes(data)

    def go(reader: BlockReader) -> None:
        if way == "restore":
            restore_image(reader, target, replace=True)
        elif way == "check":
            check_save(target, reader.size, replace=True, origins=reader.origins)
        else:
            save_image(reader, target, replace=True, options=RawOptions(sidecar=way == "save"))

    with open_device(source) as reader, pytest.raises(TargetRefusedError, match="is what is being read"):
        go(reader)
    assert os.listdir(tmp_path) == [source.name]
    assert source.read_bytes() == data


def test_the_side_car_of_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    save_image(Source(1), path)
    beside = (tmp_path / "a.raw.vsssnap").read_bytes()
    with open_image(path) as reader:
        with pytest.raises(TargetRefusedError, match=r"a\.raw\.vsssnap is what is being read"):
            save_image(reader, tmp_path / "a.raw.vsssnap", format="vsnap", replace=True)
        with pytest.raises(TargetRefusedError, match=r"a\.raw\.vsssnap is what is being read"):
            restore_image(reader, tmp_path / "a.raw.vsssnap", replace=True)
    assert (tmp_path / "a.raw.vsssnap").read_bytes() == beside


def test_a_folder_in_place_of_the_side_car_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.vsnap"
    data = save(path, 1)
    (tmp_path / "a.vsnap.vsssnap").mkdir()
    with pytest.raises(TargetRefusedError, match=r"a\.vsnap\.vsssnap is a folder"):
        save_image(Source(2), path, replace=True)
    check(path, data)


def test_no_side_car_stays_beside_an_image_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    writer = create_image(path, 3 * UNIT)
    path.write_bytes(bytes(3 * UNIT))  # somebody else's
    with pytest.raises(TargetRefusedError, match="came into being"):
        writer.finish()
    assert os.listdir(tmp_path) == [path.name]
    assert verify_image(path).ok


def test_an_image_that_is_fetched_at_once_is_no_error(tmp_path: Path) -> None:
    path, other = tmp_path / "a.vsnap", tmp_path / "taken"

    def fetch(progress: Progress) -> None:
        if progress.state == "done":
            path.rename(other)

    assert save_image(Source(1), path, progress=fetch).stored is None
    other.unlink()
    assert restore_image(Source(1), path, progress=fetch).stored is None


def test_a_storage_is_closed_also_if_its_image_is_refused() -> None:
    for size, name in ((-1, "vsnap"), (5, None), (5, "no-such-format")):
        storage = Closing()
        with pytest.raises(UsageError):
            create_image(storage, size, format=name)
        assert storage.closes == 1


class Closing(MemoryStorage):
    closes = 0

    def close(self) -> None:
        self.closes += 1


def test_an_image_whose_side_car_cannot_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: SidecarWriter, *_: object) -> None:
        raise TargetError("the disk is full", path="a", hint="make room")

    monkeypatch.setattr(SidecarWriter, "_begin", full)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TargetError, match="the disk is full"):
        create_image(tmp_path / "a.raw", UNIT)
    assert (len(os.listdir("/proc/self/fd")), os.listdir(tmp_path)) == (before, [])


def test_a_folder_is_said_to_be_one_also_where_the_system_opens_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)  # as Windows

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(ImageError, match="is a folder, no image: name an image's file"):
        open_image(tmp_path)
