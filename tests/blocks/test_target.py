"""Writing to block devices."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loops import file_system, loop_device, sparse_file
from requirements import require_lab
from vsssnap import _files
from vsssnap.blocks.target import TargetWriter, open_target
from vsssnap.errors import ClosedError, TargetError, UsageError

MIB = 1 << 20

pytestmark = pytest.mark.lab


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    return sparse_file(tmp_path / "disk.img", 8 * MIB)


@pytest.fixture
def writer(backing: Path) -> Iterator[TargetWriter]:
    require_lab("losetup")
    with loop_device(backing) as name, open_target(name) as writer:
        yield writer


def test_written_and_zeroed_ranges_are_exact(writer: TargetWriter, backing: Path) -> None:
    data = os.urandom(3 * MIB)
    writer.pwrite(data, 777)
    writer.zero(MIB + 1, 70000)
    writer.flush()
    expected = bytearray(8 * MIB)
    expected[777 : 777 + len(data)] = data
    expected[MIB + 1 : MIB + 70001] = bytes(70000)
    assert backing.read_bytes() == expected


def test_reader_shows_what_the_disk_holds(writer: TargetWriter) -> None:
    writer.pwrite(b"written", 4095)
    with writer.reader() as reader:
        assert reader.pread(7, 4095) == b"written"


def test_reader_does_not_trust_the_cache(writer: TargetWriter, backing: Path) -> None:
    writer.pwrite(b"a" * 4096, 0)
    writer.flush()
    with backing.open("r+b") as disk:  # the disk turns out to hold something else
        disk.write(b"b" * 4096)
    with writer.reader() as reader:
        assert reader.pread(4096, 0) == b"b" * 4096


def test_writing_past_the_end_is_a_usage_error(writer: TargetWriter) -> None:
    with pytest.raises(UsageError, match=f"2 bytes at {8 * MIB - 1} are not inside .* {8 * MIB} bytes"):
        writer.pwrite(b"ab", 8 * MIB - 1)


def test_zeroing_past_the_end_is_a_usage_error(writer: TargetWriter) -> None:
    with pytest.raises(UsageError, match="are not inside"):
        writer.zero(8 * MIB, 1)


def test_closed_writer_says_so(writer: TargetWriter) -> None:
    writer.close()
    with pytest.raises(ClosedError):
        writer.pwrite(b"x", 0)


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.ENOSPC, "make room"), (errno.EIO, "the device is failing")]
)
def test_failing_write_names_path_place_and_remedy(
    writer: TargetWriter, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(_files, "pwrite", fail)
    with pytest.raises(TargetError, match=f"cannot write 3 bytes at 512: .*error {code}.*{remedy}") as caught:
        writer.pwrite(b"abc", 512)
    assert caught.value.path == writer.path


def test_short_writes_of_the_system_are_continued(
    writer: TargetWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = _files.pwrite
    monkeypatch.setattr(_files, "pwrite", lambda fd, view, offset: pwrite(fd, view[:1000], offset))
    data = os.urandom(4567)
    assert writer.pwrite(data, 99) == 4567
    with writer.reader() as reader:
        assert reader.pread(4567, 99) == data


def test_flush_that_failed_once_fails_for_ever(writer: TargetWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(TargetError, match="error 5"):
            writer.flush()
    with pytest.raises(TargetError, match="cannot bring what was written to the disk"):
        writer.flush()  # the system itself would say that all is well


def fill(writer: TargetWriter) -> None:
    for offset in range(0, writer.size, MIB):
        writer.pwrite(os.urandom(MIB), offset)
    writer.flush()


def test_full_disk_behind_a_device_is_a_target_error(tmp_path: Path) -> None:
    require_lab("losetup", "mkfs.ext4")
    with (
        file_system("ext4", tmp_path, 16 * MIB) as (point, _),
        loop_device(sparse_file(point / "disk.img", 64 * MIB)) as name,
        open_target(name) as writer,
        pytest.raises(TargetError) as caught,
    ):
        fill(writer)
    assert caught.value.path == name
    assert caught.value.code in (errno.ENOSPC, errno.EIO)
