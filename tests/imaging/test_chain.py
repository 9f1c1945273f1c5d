"""Images behind images: chains longer than the stack is deep, circles, side-cars on the way."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import pytest

from vsssnap import create_image, open_image
from vsssnap.blocks.extent import Extent
from vsssnap.errors import CorruptImageError, ImageNotFoundError, UnsupportedFeatureError
from vsssnap.formats import FileStorage, ImageReader
from vsssnap.formats.registry import by_name
from vsssnap.formats.vhd import VhdOptions
from vsssnap.metadata import ImageMetadata

LINKS = 300
SIZE = 1 << 20
BLOCK = 64 << 10


@pytest.fixture(autouse=True)
def nothing_is_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of images wait a thousand times for the disk, which proves nothing here."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def known(found: ImageReader | None) -> Callable[..., ImageReader]:
    """A parent that is open already."""

    def resolve(candidates: Sequence[str], /, *, format: str | None = None) -> ImageReader:
        assert found is not None
        return found

    return resolve


def make(folder: Path, formats: Sequence[str], sidecar: bool = False) -> tuple[list[Path], bytes]:
    """Images of the formats, each the child of the one before; the last one's path and disk.

    Each writes its number over one block of a few, so that most of each is hidden by those before it.
    """
    disk = bytearray(SIZE)
    paths: list[Path] = []
    below: ImageReader | None = None
    for number, name in enumerate(formats):
        path = folder / f"{number}.{name}"
        at = number % 5 * BLOCK
        disk[at : at + BLOCK] = number.to_bytes(2, "little") * (BLOCK // 2)
        options = VhdOptions(sidecar=sidecar) if sidecar else None
        with open(path, "x+b") as file:
            storage = FileStorage(os.dup(file.fileno()), str(path))
        if sidecar:
            storage.close()
            path.unlink()
            writer = create_image(path, SIZE, options=options, parent=below)
        else:
            writer = create_image(storage, SIZE, format=name, parent=below)
        if sidecar or not number:
            writer.pwrite(memoryview(disk), 0)
        else:
            writer.pwrite(memoryview(disk)[at : at + BLOCK], at)
        writer.finish()
        paths.append(path)
        storage = FileStorage(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), str(path))
        below = by_name(name).open(storage, resolve_parent=known(below))
    assert below is not None
    below.close()
    return paths, bytes(disk)


@contextmanager
def shallow_stack(frames: int) -> Iterator[None]:
    """Leave room for so many calls within each other."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        frames, frame = frames + 1, frame.f_back
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize("links", [100, pytest.param(LINKS, marks=pytest.mark.long)])
@pytest.mark.parametrize("formats", [["vhd"], ["vhdx"], ["qcow2"], ["vhdx", "qcow2"]])
def test_hundreds_of_images_are_followed_in_the_memory_of_one(
    formats: list[str], links: int, tmp_path: Path
) -> None:
    """With a stack that is less deep than they are many."""
    paths, disk = make(tmp_path, [name for name in formats for _ in range(links // len(formats))])

    tracemalloc.start()
    with shallow_stack(95), open_image(paths[-1]) as image:
        assert image.pread(SIZE, 0) == disk
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used < 28 << 20  # tables: 16 MiB of QCOW2 and 4 MiB of VHDX at most; some KiB an image
        assert image.pread(3 * BLOCK, BLOCK // 2) == disk[BLOCK // 2 :][: 3 * BLOCK]
        buffer = bytearray(SIZE)
        image.preadinto(buffer, 0)
        assert buffer == disk
        assert [found for found in image.extents() if not found.reads_as_zero] == [Extent(0, 5 * BLOCK)]
        assert image.origins == tuple(str(path) for path in reversed(paths))
        assert image.confirm() is None  # type: ignore[func-returns-value]
    assert not [name for name in os.listdir("/dev/fd") if str(tmp_path) in _target(name)]

    paths[0].unlink()
    with pytest.raises(ImageNotFoundError, match=rf"[/\\]1\.{formats[0]}: its parent is not there"):
        open_image(paths[-1])
    assert not [name for name in os.listdir("/dev/fd") if str(tmp_path) in _target(name)]


@pytest.mark.parametrize(
    "name",
    ["vhd", pytest.param("vhdx", marks=pytest.mark.long), pytest.param("qcow2", marks=pytest.mark.long)],
)
def test_tables_of_hundreds_of_large_images_are_kept_in_the_room_of_one(name: str, tmp_path: Path) -> None:
    """150 MiB of tables in the VHD images, whose pages are asked for in every one of them."""
    size = 256 << 30
    places = [part * size // 8 + 5 * BLOCK for part in range(8)]
    below: ImageReader | None = None
    for number in range(LINKS):
        path = tmp_path / str(number)
        storage = FileStorage(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), str(path))
        with closing(by_name(name).create(storage, size, parent=below)) as writer:
            writer.pwrite(memoryview(number.to_bytes(2, "little") * (BLOCK // 2)), places[number % 8])
            writer.finish(ImageMetadata())
        storage = FileStorage(os.open(path, os.O_RDONLY), str(path))
        below = by_name(name).open(storage, resolve_parent=known(below))
    assert below is not None
    below.close()

    tracemalloc.start()
    with open_image(tmp_path / str(LINKS - 1)) as image:
        for part, at in enumerate(places):
            last = max(number for number in range(LINKS) if number % 8 == part)
            assert image.pread(2, at) == last.to_bytes(2, "little")
            assert image.pread(2, at + BLOCK) == bytes(2)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert used < 28 << 20


def _target(name: str) -> str:
    try:
        return os.readlink(f"/dev/fd/{name}")
    except OSError:
        return ""


@pytest.mark.parametrize("name", ["vhdx", "qcow2"])
def test_a_long_circle_is_refused(name: str, tmp_path: Path) -> None:
    paths, _ = make(tmp_path, [name] * 120)
    # The oldest one becomes a link to the youngest, which leads back to it.
    paths[0].unlink()
    paths[0].symlink_to(paths[-1])
    with pytest.raises(CorruptImageError, match="its own descendant"):
        open_image(paths[-1])


def test_parents_with_side_cars_are_counted(tmp_path: Path) -> None:
    """Each is a call deeper, and what it lost when it was made still raises."""
    paths, disk = make(tmp_path, ["vhd"] * 70, sidecar=True)
    with open_image(paths[63]) as image:
        assert image.pread(2, 3 * BLOCK) == b"\x3f\0"
        assert sum(found.length for found in image.extents()) == SIZE
    with pytest.raises(UnsupportedFeatureError, match="too many parents behind one another"):
        open_image(paths[-1])
    for path in paths[:40]:
        os.unlink(f"{path}.vsssnap")
    with open_image(paths[-1]) as image:
        assert image.pread(SIZE, 0) == disk
