"""Restore an image to a file or a block device.

To a file: a sparse raw copy that appears under its name complete or not at all.

To a device: it must be free, and at no moment may a half-restored one look valid, because what
looks valid gets mounted.  So its first and last MiB, where partition tables and boot sectors
lie, are zeroed and flushed before anything else, and written last, the first one at the very
end.  Zeros are written, not skipped: a device keeps what it held before.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING

from vsssnap._arguments import path_text
from vsssnap._units import MIB
from vsssnap.blocks.reader import BlockReader, as_reader
from vsssnap.blocks.target import is_device, open_target, windows_system
from vsssnap.errors import CorruptImageError, DeviceReadError, TargetError, TargetRefusedError
from vsssnap.formats.base import SIDECAR_SUFFIX, ImageWriter, WriteOrder
from vsssnap.formats.raw import RawFormat, RawOptions
from vsssnap.formats.storage import FileStorage
from vsssnap.imaging.committing import commit
from vsssnap.imaging.comparing import compare_blocks
from vsssnap.imaging.copying import known_policy, transfer
from vsssnap.imaging.files import size_of
from vsssnap.imaging.opening import open_image
from vsssnap.imaging.partial import PartialFile, check_target
from vsssnap.imaging.reports import CopyOptions, CopyReport, Meter, OnReadError, Progress
from vsssnap.metadata import ImageMetadata
from vsssnap.volumes.wrapping import from_disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vsssnap.blocks.extent import Extent
    from vsssnap.blocks.reader import SupportsPread
    from vsssnap.blocks.target import TargetWriter
    from vsssnap.imaging.reports import ProgressCallback

GUARD = MIB
"""Bytes at both ends of a device that are written last."""


def restore_image(
    image: str | os.PathLike[str] | SupportsPread,
    target: str | os.PathLike[str],
    *,
    verify: bool = False,
    replace: bool = False,
    on_read_error: OnReadError = OnReadError.RAISE,
    copy: CopyOptions | None = None,
    progress: ProgressCallback | None = None,
    unwrap: bool = True,
) -> CopyReport:
    """Write an image's volume to a file or a block device.

    Of a volume that `save_image` or `as_disk` put into a disk that volume is written, not the disk.

    A block device must be free: not mounted, not swap, held by nobody; what it holds is lost
    from the first moment, and what lies behind the image's end stays.  A volume of Windows is locked
    and dismounted meanwhile, a disk with every volume on it, for which no file of them may be open.

    Args:
        image: An image's path, or any reader.
        target: A file's name, or a block device as `open_device` takes it.
        verify: Read the target back from the disk and compare it with the image.
        replace: Whether an existing file is replaced when the new one is complete; a block
            device is written without it.
        on_read_error: What to do where the image cannot be read: with MARK the target has zeros there,
            and the report lists the ranges under ``unreadable``.
        copy: How the copy runs.
        progress: Called with a `Progress` about ten times a second, in this thread.
        unwrap: False to write the disk around such a volume too.

    Raises:
        TargetRefusedError: the target is mounted, in use, too small, a link, the image itself, or
            a file that exists; nothing was touched.
        TargetError: the target is full or failing, or does not hold what was written.
        DeviceReadError: a range of the image is unreadable.
        CorruptImageError: the image is damaged.
        ParentMismatchError: an image behind it is another one than it was made against.
    """
    name = path_text(target)
    opened = isinstance(image, str | os.PathLike)
    reader = open_image(image) if isinstance(image, str | os.PathLike) else as_reader(image)
    whole = reader
    try:
        options = copy or CopyOptions()
        if unwrap:
            reader = _unwrapped(reader, known_policy(on_read_error))
        if is_device(name):
            return _to_device(reader, name, verify, known_policy(on_read_error), options, progress)
        return _to_file(reader, name, verify, replace, known_policy(on_read_error), options, progress)
    finally:
        if opened:
            whole.close()


def _unwrapped(reader: BlockReader, on_read_error: OnReadError) -> BlockReader:
    try:
        return from_disk(reader)
    except (CorruptImageError, DeviceReadError) as exc:
        if on_read_error is OnReadError.MARK:
            return reader  # what is left of it, as it is: nobody can tell whether it is a volume's disk
        exc.hint = f"{exc.hint}; unwrap=False writes the disk as it is"
        raise


def _to_file(
    reader: BlockReader,
    name: str,
    verify: bool,
    replace: bool,
    on_read_error: OnReadError,
    options: CopyOptions,
    progress: ProgressCallback | None,
) -> CopyReport:
    started = time.monotonic()
    meter = Meter(progress, reader.size, "copy")
    file = PartialFile(name, replace=replace, origins=reader.origins)
    try:
        # A side-car of the file that was there would be taken for the new one's.
        check_target(name + SIDECAR_SUFFIX, replace=replace, origins=reader.origins)
        fd = file.take()
        storage = FileStorage(fd, name)
        writer = RawFormat().create(storage, reader.size, options=RawOptions(sidecar=False))
        try:
            counts = transfer(reader, writer, options, on_read_error, meter)
            meter.enter("finish")
            writer.finish(ImageMetadata())
            if verify:
                _drop_cache(fd)
                with RawFormat().open(FileStorage(os.dup(fd), name)) as written:
                    _read_back(reader, written, (0, reader.size), counts.unreadable, name, progress)
        finally:
            writer.close()
        commit(file, (), replace=replace)
    finally:
        file.discard()
    meter.enter("done")
    return counts.report(
        reader.size, writer, started, path=name, format="raw", stored=size_of(name), verified=verify
    )


def _to_device(
    reader: BlockReader,
    name: str,
    verify: bool,
    on_read_error: OnReadError,
    options: CopyOptions,
    progress: ProgressCallback | None,
) -> CopyReport:
    started = time.monotonic()
    _refuse_origin(reader, name)
    device = open_target(name)
    try:
        if device.size < reader.size:
            raise TargetRefusedError(
                f"{name} has {device.size} bytes, the image needs {reader.size}",
                path=name,
                hint="choose a device that is at least as large",
            )
        meter = Meter(progress, reader.size, "copy")
        sink = _DeviceSink(device, reader.size)
        sink.blank()
        counts = transfer(reader, sink, options, on_read_error, meter)
        if verify:
            # Both ends are still blank: a device that fails this never looks valid.
            _read_back(reader, device, sink.body, counts.unreadable, name, progress)
        meter.enter("finish")
        try:
            sink.finish(ImageMetadata())
            for guard in sink.guards if verify else ():
                _read_back(reader, device, guard, counts.unreadable, name, None)
        except BaseException as exc:
            try:
                sink.blank()
            except TargetError as failed:  # the first error is the one to raise
                exc.add_note(f"its first and last MiB could not be blanked: {failed}")
            raise
        meter.enter("done")
        return counts.report(reader.size, sink, started, path=name, verified=verify)
    finally:
        device.close()


class _DeviceSink(ImageWriter):
    """A device as the target of a transfer; holds both ends back until `finish`."""

    write_order = WriteOrder.ANY

    def __init__(self, device: TargetWriter, size: int) -> None:
        self.size = size
        self._device = device
        first, last = min(GUARD, size), max(min(GUARD, size), size - GUARD)
        self.guards = ((last, size - last), (0, first))  # in the order they are written
        self.body = (first, last - first)
        self._lock = threading.Lock()
        self._kept: list[tuple[int, bytes]] = []

    def blank(self) -> None:
        """Make sure that the device looks like nothing."""
        for offset, length in self.guards:
            self._device.zero(offset, length)
        self._device.flush()

    def encode(self, data: memoryview, offset: int, /) -> tuple[memoryview, int]:
        return data, offset

    def store(self, encoded: tuple[memoryview, int], /) -> None:
        data, offset = encoded
        start, length = self.body
        first, last = max(offset, start), min(offset + len(data), start + length)
        if first < last:
            self._device.pwrite(data[first - offset : last - offset], first)
        for at, count in self.guards:
            begin, end = max(offset, at), min(offset + len(data), at + count)
            if begin < end:
                with self._lock:
                    self._kept.append((begin, bytes(data[begin - offset : end - offset])))

    def mark(self, extent: Extent, /) -> None:
        start, length = self.body
        first, last = max(extent.offset, start), min(extent.end, start + length)
        if first < last:
            self._device.zero(first, last - first)

    def finish(self, metadata: ImageMetadata, /) -> None:
        self._device.flush()
        for at, count in self.guards:
            for offset, data in self._kept:
                if at <= offset < at + count:
                    self._device.pwrite(memoryview(data), offset)
            self._device.flush()

    def close(self) -> None:
        """The device is closed by whoever opened it."""


def _read_back(
    reader: BlockReader,
    written: BlockReader | TargetWriter,
    part: tuple[int, int],
    unreadable: Sequence[Extent],
    name: str,
    progress: ProgressCallback | None,
) -> None:
    """Compare what the disk holds with what it was given; of what was unreadable there is nothing to compare.

    Raises:
        TargetError: they differ.
    """
    back = written if isinstance(written, BlockReader) else written.reader()
    offset, length = part

    def shown(seen: Progress) -> None:
        if progress is not None:
            done = at - offset + seen.done
            progress(dataclasses.replace(seen, done=done, total=length, state="read back"))

    try:
        for at, count in _between(offset, offset + length, unreadable):
            with reader.window(at, count) as wanted, back.window(at, count) as got:
                wrong = next(compare_blocks(wanted, got, progress=shown), None)
            if wrong is not None:
                raise TargetError(
                    f"{name} does not hold what was written: {wrong.length} bytes differ"
                    f" at {at + wrong.offset}",
                    path=name,
                    hint="the target is failing; use another one",
                )
    finally:
        if back is not written:
            back.close()  # its descriptor would hold the device


def _between(start: int, end: int, gaps: Sequence[Extent]) -> Iterator[tuple[int, int]]:
    """What lies between ascending gaps in a range: offset and length."""
    at = start
    for gap in gaps:
        if at < min(gap.offset, end):
            yield at, min(gap.offset, end) - at
        at = max(at, gap.end)
    if at < end:
        yield at, end - at


def _drop_cache(fd: int) -> None:
    """Make the next reads of a flushed file come from the disk."""
    if sys.platform != "win32":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _refuse_origin(reader: BlockReader, name: str) -> None:
    """Refuse a target that is what is read, lies on it, or has it on it."""
    system = windows_system(name)
    if system is not None:
        from vsssnap.blocks import windows

        windows.refuse_origin(system, name, reader.origins)
        return
    if sys.platform != "win32":
        from vsssnap._posix.topology import beneath

        target = os.stat(name)
        for origin in reader.origins:
            try:
                found = os.stat(origin)
            except OSError:
                continue
            read = (found.st_rdev,) if stat.S_ISBLK(found.st_mode) else (found.st_dev, found.st_ino)
            if read in beneath(target) or (target.st_rdev,) in beneath(found):
                raise TargetRefusedError(
                    f"{name} is what is being read"
                    if read == (target.st_rdev,)
                    else f"{name} lies on {origin}, which is being read, or holds it",
                    path=name,
                    hint="restore to another device",
                )
