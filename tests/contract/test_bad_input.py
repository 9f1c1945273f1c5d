"""What users get wrong: each error says what, where, the number and the remedy, and leaves nothing.

What needs root, a full disk or a device is in tests/labs/test_bad_input.py.
"""

from __future__ import annotations

import errno
import os
import random
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vsssnap import (
    CowVolume,
    Snapshot,
    compare_blocks,
    copy_blocks,
    create_image,
    open_device,
    open_image,
    restore_image,
    save_image,
    verify_image,
)
from vsssnap.errors import (
    ClosedError,
    CorruptImageError,
    DeviceReadError,
    ImageNotFoundError,
    ProviderUnavailableError,
    SnapshotError,
    SnapshotLostError,
    SourceChangedError,
    TargetError,
    TargetRefusedError,
    UnknownFormatError,
    UsageError,
    VssSnapError,
)
from vsssnap.testing import (
    Faults,
    FaultyReader,
    MemoryProvider,
    MemoryReader,
    MemoryVolume,
    faulty_provider,
    installed,
)

MIB = 1 << 20
DATA = random.Random(1).randbytes(1_275_001)  # no multiple of any sector


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """No test leaves half an image, whatever it was called."""
    yield
    assert [path.name for path in tmp_path.rglob("*.partial*")] == []


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def image(disk: Path, tmp_path: Path) -> Path:
    path = tmp_path / "image.vsnap"
    with open_device(disk) as source:
        save_image(source, path)
    return path


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Names with their sizes and times."""
    return {path.name: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.iterdir()}


def says(error: VssSnapError, *parts: str | Path | int) -> None:
    """The message has all of these; a number is the errno and is on the error too."""
    for part in parts:
        if isinstance(part, int):
            assert error.code == part
            assert f"error {part}" in str(error)
        else:
            assert str(part) in str(error)
    assert "\n\n" not in str(error)


# A path that is no volume.

NO_VOLUMES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("kind", NO_VOLUMES)
def test_snapshot_of_no_volume_tells_each_providers_reason(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "no volume"
    NO_VOLUMES[kind](path)
    with pytest.raises(ProviderUnavailableError) as caught:
        Snapshot(path).create()
    says(caught.value, f"no provider can snapshot {path}", "each provider says why not")
    assert {"cow", "reflink", "static"} <= set(caught.value.reasons)
    for name, reason in caught.value.reasons.items():
        assert (f"\n  {name}: {reason}" in str(caught.value)) == (name not in caught.value.unrelated)
    assert {"cow", "vss"} <= set(caught.value.unrelated)
    assert all(str(path) in caught.value.reasons[name] for name in ("cow", "reflink", "static"))


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("nothing", ("there is no", errno.ENOENT, "check the name")),
        ("folder", ("is a folder", "name the device")),
        ("pipe", ("is a FIFO, not a block device or a regular file", "name a device or a file")),
        ("dangling link", ("there is no", errno.ENOENT, "check the name")),
        ("link to itself", ("symbolic links", errno.ELOOP)),
    ],
)
def test_opening_no_volume_says_what_it_is(tmp_path: Path, kind: str, parts: tuple[str | int, ...]) -> None:
    path = tmp_path / "no volume"
    NO_VOLUMES[kind](path)
    with pytest.raises(DeviceReadError) as caught:
        open_device(path)
    says(caught.value, path, *parts)


def test_opening_a_socket_or_a_character_device_does_not_wait(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        for path, kind in ((tmp_path / "s", "socket"), (Path("/dev/null"), "character device")):
            with pytest.raises(DeviceReadError) as caught:
                open_device(path)
            says(caught.value, path, f"is a {kind}, not a block device or a regular file", "name a")


@pytest.mark.parametrize("path", ["", "a\0b", "lone\ud800surrogate", 7, None, object()])
def test_name_that_is_no_path_is_a_usage_error(path: object) -> None:
    for call in (open_device, Snapshot, open_image, verify_image, save, create, restore):
        with pytest.raises(UsageError, match=r"is no (path|volume)"):
            call(path)  # type: ignore[arg-type]  # wrong on purpose


# A volume that vanishes.


def test_volume_that_vanishes_before_the_instant(disk: Path) -> None:
    snapshot = Snapshot(disk, provider="static", on_event=lambda event: vanish(event.step, disk))
    with pytest.raises(VssSnapError) as caught:
        snapshot.create()
    says(caught.value, disk)


def vanish(step: str, path: Path) -> None:
    if step == "prepare":
        path.unlink()


def test_volume_that_vanishes_while_it_is_read(tmp_path: Path) -> None:
    volume = CowVolume(MemoryVolume(DATA), shadow_folder=tmp_path)
    with Snapshot(volume) as snapshot, snapshot.open() as reader:
        volume.close()
        with pytest.raises((SnapshotLostError, ClosedError)) as caught:
            save_image(reader, tmp_path / "a.vsnap")
    says(caught.value, "closed")
    assert list(tmp_path.iterdir()) == []


def test_device_that_fails_while_it_is_read(tmp_path: Path) -> None:
    faults = Faults()
    faults.fail("pread", errno.ENODEV, over=(MIB, 1))
    with pytest.raises(DeviceReadError) as caught:
        save_image(FaultyReader(MemoryReader(DATA), faults), tmp_path / "a.raw")
    says(caught.value, "No such device", errno.ENODEV)
    assert caught.value.offset <= MIB < caught.value.offset + caught.value.length
    assert list(tmp_path.iterdir()) == []


# A source that shrinks.


def test_source_that_shrinks_says_both_sizes(disk: Path, tmp_path: Path) -> None:
    with open_device(disk) as source:
        os.truncate(disk, 1000)
        with pytest.raises(SourceChangedError) as caught:
            save_image(source, tmp_path / "a.raw")
    says(caught.value, disk, "1000", str(len(DATA)), "take a snapshot")
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_source_that_shrinks_under_a_snapshot_is_a_change(disk: Path, tmp_path: Path) -> None:
    with Snapshot(disk, provider="static") as snapshot, snapshot.open() as reader:
        os.truncate(disk, 1000)
        with pytest.raises((SourceChangedError, DeviceReadError)) as caught:
            save_image(reader, tmp_path / "a.raw")
    says(caught.value, disk, "1000", str(len(DATA)))
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_source_that_grows_is_not_complete(disk: Path, tmp_path: Path) -> None:
    with open_device(disk) as source:
        with disk.open("ab") as file:
            file.write(b"more")
        with pytest.raises(VssSnapError) as caught:
            save_image(source, tmp_path / "a.raw")
    says(caught.value, disk, str(len(DATA)), str(len(DATA) + 4))
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_image_that_shrinks_while_it_is_read_is_corrupt(image: Path) -> None:
    with open_image(image) as reader:
        os.truncate(image, 5000)
        with pytest.raises(CorruptImageError) as caught:
            reader.readall()
    says(caught.value, image)


# Targets.


def save(path: Path) -> object:
    return save_image(MemoryReader(DATA), path)


def save_raw(path: Path) -> object:
    return save_image(MemoryReader(DATA), path, format="raw")


def create(path: Path) -> object:
    return create_image(path, 100)


def restore(path: Path) -> object:
    return restore_image(MemoryReader(DATA), path)


TARGETS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "existing": (
        lambda path: path.write_bytes(b"precious"),
        ("exists", "choose another name", "replace=True"),
    ),
    "link": (
        lambda path: path.symlink_to("elsewhere"),
        ("is a symbolic link to elsewhere", "name the file itself"),
    ),
    "folder": (lambda path: path.mkdir(), ("is a folder", "name a file")),
    "pipe": (os.mkfifo, ("is no regular file", "name a file")),
}


@pytest.mark.parametrize("call", [save, create], ids=["save_image", "create_image"])
@pytest.mark.parametrize("kind", TARGETS)
def test_target_that_must_not_be_written(tmp_path: Path, kind: str, call: Callable[[Path], object]) -> None:
    make, parts = TARGETS[kind]
    path = tmp_path / "target.raw"
    make(path)
    before = listing(tmp_path)
    with pytest.raises(TargetRefusedError) as caught:
        call(path)
    says(caught.value, path, *parts)
    assert caught.value.path == str(path)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("kind", TARGETS)
def test_restore_to_what_must_not_be_written(tmp_path: Path, image: Path, kind: str) -> None:
    make, parts = TARGETS[kind]
    path = tmp_path / "target"
    make(path)
    before = listing(tmp_path)
    with pytest.raises(TargetRefusedError) as caught:
        restore_image(image, path)
    says(caught.value, path, *parts)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("spelling", ["same", "dots", "hard link", "link in the path"])
def test_target_that_is_the_source(disk: Path, tmp_path: Path, spelling: str, replace: bool) -> None:
    path = disk
    if spelling == "dots":
        (tmp_path / "sub").mkdir()
        path = tmp_path / "sub" / ".." / "disk"
    elif spelling == "hard link":
        path = tmp_path / "other.raw"
        os.link(disk, path)
    elif spelling == "link in the path":
        (tmp_path / "here").symlink_to(tmp_path)
        path = tmp_path / "here" / "disk"
    with open_device(disk) as source, pytest.raises(TargetRefusedError) as caught:
        save_image(source, path, format="raw", replace=replace)
    says(caught.value, path, "is what is being read", "name another file")
    assert disk.read_bytes() == DATA


def test_restored_image_is_not_written_over_itself(image: Path) -> None:
    before = image.read_bytes()
    with pytest.raises(TargetRefusedError) as caught:
        restore_image(image, image, replace=True)
    says(caught.value, image, "is what is being read")
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("missing/a.raw", ("No such file", errno.ENOENT, "the folder must exist")),
        ("disk/a.raw", ("Not a directory", errno.ENOTDIR)),
        ("n" * 300 + ".raw", ("a name of 304 bytes; 239 are the most", errno.ENAMETOOLONG)),
    ],
)
def test_target_that_cannot_be(disk: Path, tmp_path: Path, path: str, parts: tuple[str | int, ...]) -> None:
    with pytest.raises(TargetError) as caught:
        save(tmp_path / path)
    says(caught.value, tmp_path / path, *parts)
    assert [found.name for found in tmp_path.iterdir()] == ["disk"]


@pytest.mark.parametrize("name", ["/dev/no-such-disk", "/dev/no-such-disk.raw"])
def test_mistyped_device_does_not_become_a_file(name: str) -> None:
    for call in (restore, save_raw):
        with pytest.raises(TargetRefusedError) as caught:
            call(Path(name))
        says(caught.value, f"there is no device {name}", "check the name")
    assert not os.path.lexists(name)


def test_folder_that_is_not_there_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(TargetRefusedError) as caught:
        restore_image(MemoryReader(DATA), f"{tmp_path}/missing/")
    says(caught.value, f"{tmp_path}/missing/ names a folder", "name a file")
    assert list(tmp_path.iterdir()) == []


def test_target_without_a_known_suffix_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormatError) as caught:
        save(tmp_path / "image.xyz")
    says(caught.value, tmp_path / "image.xyz", ".raw", ".vsnap")
    assert list(tmp_path.iterdir()) == []


def test_save_that_fails_keeps_the_image_that_was_to_be_replaced(image: Path) -> None:
    before = image.read_bytes()
    faults = Faults()
    faults.fail("pread", errno.EIO, nth=1)
    with pytest.raises(DeviceReadError):
        save_image(FaultyReader(MemoryReader(DATA), faults), image, replace=True)
    assert image.read_bytes() == before
    assert verify_image(image).ok


# Sizes.


@pytest.mark.parametrize("suffix", ["raw", "vsnap"])
@pytest.mark.parametrize("size", [0, 1, 511, 513, 4095, 65_537, MIB + 1])
def test_any_size_goes_round(tmp_path: Path, suffix: str, size: int) -> None:
    disk, image, back = tmp_path / "disk", tmp_path / f"image.{suffix}", tmp_path / "back"
    disk.write_bytes(DATA[:size])
    with open_device(disk) as source:
        assert save_image(source, image).size == size
    assert verify_image(image).ok
    with open_image(image) as reader:
        assert (reader.size, reader.readall()) == (size, DATA[:size])
        with open_device(disk) as source:
            assert list(compare_blocks(reader, source)) == []
    assert restore_image(image, back, verify=True).size == size
    assert back.read_bytes() == DATA[:size]


def test_snapshot_of_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with Snapshot(tmp_path / "empty", provider="static") as snapshot, snapshot.open() as reader:
        assert save_image(reader, tmp_path / "a.vsnap").size == 0
    assert verify_image(tmp_path / "a.vsnap").ok


@pytest.mark.parametrize("size", [-1, 1 << 63, 1.5, "1"])
def test_size_that_cannot_be_is_a_usage_error(tmp_path: Path, size: object) -> None:
    with pytest.raises(UsageError):
        create_image(tmp_path / "a.raw", size)  # type: ignore[arg-type]  # wrong on purpose
    assert list(tmp_path.iterdir()) == []


# Images.


@pytest.mark.parametrize(
    ("content", "kind", "parts"),
    [
        (None, ImageNotFoundError, ("there is no image", errno.ENOENT)),
        (b"", UnknownFormatError, ()),
        (b"just some text\n" * 100, UnknownFormatError, ()),
    ],
)
def test_what_is_no_image_is_said_so(
    tmp_path: Path, content: bytes | None, kind: type[VssSnapError], parts: tuple[str | int, ...]
) -> None:
    path = tmp_path / "image"
    if content is not None:
        path.write_bytes(content)
    for call in (open_image, verify_image, lambda p: restore_image(p, tmp_path / "back")):
        with pytest.raises(kind) as caught:
            call(path)
        says(caught.value, path, *parts)
    assert not (tmp_path / "back").exists()


def test_image_of_another_format_than_named(image: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no image format 'qed': known are .*raw, "):
        open_image(image, format="qed")


def test_half_an_image_is_refused_until_where(image: Path) -> None:
    os.truncate(image, image.stat().st_size // 2)
    with pytest.raises(CorruptImageError) as caught:
        open_image(image)
    says(caught.value, image, "recover=True")
    assert re.search(r"\d", str(caught.value))


# Arguments of another kind.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"parent": "monday.vsnap"}, "parent is str, no ImageReader: open it with open_image"),
        ({"metadata": {"volume": "C:"}}, "metadata is dict, no ImageMetadata"),
        ({"copy": 4}, "copy is int, no CopyOptions"),
        ({"on_read_error": "ignore"}, "on_read_error is 'ignore': use a member of OnReadError"),
        ({"options": {"level": 3}}, "dict is no options of 'raw': pass RawOptions"),
        ({"format": 7}, "there is no image format 7: known are "),
    ],
)
def test_argument_of_another_kind_says_what_to_pass(
    tmp_path: Path, arguments: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        save_image(MemoryReader(DATA), tmp_path / "a.raw", **arguments)  # type: ignore[arg-type]  # wrong on purpose
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("depth", ["content", 2, True])
def test_depth_of_another_kind_is_a_usage_error(image: Path, depth: object) -> None:
    with pytest.raises(UsageError, match=r"depth is .*, no Depth"):
        verify_image(image, depth=depth)  # type: ignore[arg-type]  # wrong on purpose


def test_what_is_no_source_or_target_says_what_one_needs() -> None:
    with pytest.raises(UsageError, match="int is no source of blocks: it needs size and pread"):
        save_image(3, "a.raw")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(UsageError, match="int is no target: it needs size and pwrite"):
        copy_blocks(MemoryReader(DATA), 3)  # type: ignore[arg-type]  # wrong on purpose


def test_time_that_is_no_number_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="a time budget is str, no number of seconds"):
        Snapshot("x", timeout="600")  # type: ignore[arg-type]  # wrong on purpose


# Nothing but the library's errors, whatever fails underneath.


def test_provider_that_fails_leaves_no_image_and_no_snapshot(tmp_path: Path) -> None:
    volume, faults = MemoryVolume(DATA), Faults()
    faults.fail("take", SnapshotError("VSS_E_HOLD_WRITES_TIMEOUT", call="DoSnapshotSet", code=0x80042314))
    with (
        installed(faulty_provider(MemoryProvider, faults)),
        pytest.raises(SnapshotError) as caught,
        Snapshot(volume) as snapshot,
    ):
        save_image(snapshot.open(), tmp_path / "a.raw")
    says(caught.value, "DoSnapshotSet", "error 0x80042314")
    assert list(tmp_path.iterdir()) == []
