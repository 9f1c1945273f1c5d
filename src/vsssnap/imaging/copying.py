"""Copy the blocks of a source into a writer."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from vsssnap._arguments import instance
from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.blocks.pipeline import Unit, plan, pump
from vsssnap.blocks.reader import as_reader
from vsssnap.errors import CorruptImageError, DeviceReadError, UsageError
from vsssnap.formats.base import ImageWriter, SupportsWrite, WriteOrder
from vsssnap.imaging.reports import CopyOptions, CopyReport, Meter, OnReadError, RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vsssnap.blocks.reader import BlockReader, SupportsPread
    from vsssnap.imaging.reports import ProgressCallback
    from vsssnap.metadata import ImageMetadata

_ZEROS = memoryview(bytes(MIB))


def copy_blocks(
    source: SupportsPread,
    writer: ImageWriter | SupportsWrite,
    *,
    on_read_error: OnReadError = OnReadError.RAISE,
    copy: CopyOptions | None = None,
    progress: ProgressCallback | None = None,
) -> CopyReport:
    """Copy all blocks into a writer that is already open; ends with the source's ``confirm``.

    An `ImageWriter` is left for its owner to ``finish``.  Any other target (``size`` and
    ``pwrite(data, offset)``) gets every byte by rising offset, zeros too, unless it has a
    ``mark(extent)`` that takes what is not DATA.

    Args:
        source: See `save_image`.
        writer: The target; of the same size.
        on_read_error: What to do when the source cannot be read; MARK needs a ``mark``.
        copy: How the copy runs.
        progress: Called with a `Progress` about ten times a second, in this thread.

    Raises:
        UsageError: the sizes differ.
        DeviceReadError: the source failed.
        SnapshotLostError: the snapshot was lost: throw the copy away.
    """
    reader = as_reader(source)
    on_read_error = known_policy(on_read_error)
    if not isinstance(writer, ImageWriter | SupportsWrite):
        raise UsageError(
            f"{type(writer).__name__} is no target", hint="it needs size and pwrite(data, offset)"
        )
    started = time.monotonic()
    if writer.size != reader.size:
        raise UsageError(
            f"the source has {reader.size} bytes, the writer takes {writer.size}",
            hint="create the writer with the source's size",
        )
    sink = writer if isinstance(writer, ImageWriter) else _PlainWriter(writer)
    if on_read_error is OnReadError.MARK and isinstance(sink, _PlainWriter) and not sink.marks:
        raise UsageError(
            f"{type(writer).__name__} cannot mark unreadable ranges",
            hint="give it mark(extent), or use RAISE",
        )
    meter = Meter(progress, reader.size, "copy")
    counts = transfer(reader, sink, copy or CopyOptions(), on_read_error, meter)
    meter.enter("done")
    return counts.report(reader.size, sink, started)


def known_policy(value: str) -> OnReadError:
    """An argument ``on_read_error=``.

    Raises:
        UsageError: it is no `OnReadError`.
    """
    try:
        return OnReadError(value)
    except ValueError:
        raise UsageError(f"on_read_error is {value!r}", hint="use a member of OnReadError") from None


class _PlainWriter(ImageWriter):
    """A caller's target as an `ImageWriter`; one call at a time, by rising offset."""

    write_order = WriteOrder.ASCENDING

    def __init__(self, target: SupportsWrite) -> None:
        self._target = target
        self.size = target.size
        self.marks = hasattr(target, "mark")

    def encode(self, data: memoryview, offset: int, /) -> tuple[memoryview, int]:
        return data, offset

    def store(self, encoded: tuple[memoryview, int], /) -> None:
        data, offset = encoded
        count = self._target.pwrite(data, offset)
        if count != len(data):
            raise UsageError(
                f"{type(self._target).__name__}.pwrite wrote {count} of {len(data)} bytes at {offset}",
                hint="a target must write all it is given, or raise",
            )

    def mark(self, extent: Extent, /) -> None:
        if self.marks:
            self._target.mark(extent)  # type: ignore[attr-defined]  # optional: looked for above
            return
        for offset in range(extent.offset, extent.end, len(_ZEROS)):
            self.store((_ZEROS[: min(len(_ZEROS), extent.end - offset)], offset))

    def finish(self, metadata: ImageMetadata, /) -> None:
        """Nothing: the target is its owner's."""

    def close(self) -> None:
        """Nothing: the target is its owner's."""


class Counts:
    """What a transfer counted, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = dict.fromkeys(ExtentKind, 0)
        self._unreadable: list[Extent] = []
        self.unchanged = 0

    def unit(self, data: int, zero: int) -> None:
        """Count the bytes of a unit that was stored."""
        with self._lock:
            self._bytes[ExtentKind.DATA] += data
            self._bytes[ExtentKind.ZERO] += zero

    def mark(self, extent: Extent) -> None:
        """Count a range that was marked."""
        with self._lock:
            self._bytes[extent.kind] += extent.length
            if extent.kind is ExtentKind.UNREADABLE:
                self._unreadable.append(extent)

    @property
    def unreadable(self) -> tuple[Extent, ...]:
        """The ranges that could not be read, ascending."""
        return tuple(sorted(self._unreadable, key=lambda extent: extent.offset))

    def report(
        self,
        size: int,
        writer: ImageWriter,
        started: float,
        *,
        path: str = "",
        format: str = "",
        stored: int | None = None,
        verified: bool = False,
        wrapped: bool = False,
    ) -> CopyReport:
        """What was counted, with what the caller knows of the target."""
        return CopyReport(
            size=size,
            data=self._bytes[ExtentKind.DATA],
            zero=self._bytes[ExtentKind.ZERO],
            hole=self._bytes[ExtentKind.HOLE],
            excluded=self._bytes[ExtentKind.EXCLUDED],
            unchanged=self.unchanged,
            changed=writer.changed(),
            unreadable=self.unreadable,
            stored=stored,
            flattened=dict(writer.flattened()),
            format=format,
            path=path,
            seconds=time.monotonic() - started,
            verified=verified,
            wrapped=wrapped,
        )


def transfer(
    reader: BlockReader,
    writer: ImageWriter,
    copy: CopyOptions,
    on_read_error: OnReadError,
    meter: Meter,
    changes: Iterable[Extent] | None = None,
) -> Counts:
    """Move everything, then ask the source whether all that was true.

    With ``changes`` only the units that they touch are moved.
    """
    instance(copy, CopyOptions, "copy")
    counts = Counts()
    # Such a target gets the zeros of a mark inside a unit with the unit: each byte once, by rising offset.
    blind = isinstance(writer, _PlainWriter) and not writer.marks
    limit = RateLimit(copy.rate_limit) if copy.rate_limit is not None else None

    def work(item: Unit | Extent, buffer: bytearray) -> tuple[tuple[Extent, ...], int, Any] | None:
        if isinstance(item, Extent):
            if item.kind is ExtentKind.UNREADABLE and on_read_error is OnReadError.RAISE:
                raise _unreadable(item)
            return None
        view = memoryview(buffer)[: item.length]
        if limit is not None:
            limit.wait(sum(length for _, length in item.parts))
        if on_read_error is OnReadError.RAISE:
            for mark in item.marks:
                if mark.kind is ExtentKind.UNREADABLE:
                    raise _unreadable(mark)
        bad = read_unit(reader, item, view, mark=on_read_error is OnReadError.MARK)
        if not bad:
            return item.marks, 0, writer.encode(view, item.offset)
        marks = tuple(sorted((*item.marks, *bad), key=lambda extent: extent.offset))
        return marks, sum(mark.length for mark in bad), writer.encode(view, item.offset)

    def done(item: Unit | Extent, result: tuple[tuple[Extent, ...], int, Any] | None) -> None:
        if isinstance(item, Extent) or result is None:
            assert isinstance(item, Extent)  # noqa: S101 - work gives None for extents alone
            writer.mark(item)
            counts.mark(item)
            meter.add(item.length, read=0)
            return
        marks, lost, encoded = result
        for mark in marks:
            if not blind:
                writer.mark(mark)
            counts.mark(mark)
        writer.store(encoded)
        read = sum(length for _, length in item.parts)
        counts.unit(read - lost, item.length - read - sum(mark.length for mark in item.marks))
        meter.add(item.length, read=read)

    def unchanged(count: int) -> None:
        counts.unchanged += count
        meter.add(count, read=0)

    extents = reader.extents()
    if changes is not None:
        extents = _touched(reader, changes, writer.unit, unchanged)
    pump(
        plan(extents, writer.unit, reader.size),
        work,
        done,
        buffer_size=min(writer.unit, max(1, reader.size)),
        workers=copy.workers,
        ordered=writer.write_order is WriteOrder.ASCENDING,
        keeps=writer.keeps_data,
        tick=meter.tick,
        halted=limit.halted if limit is not None else None,
    )
    reader.confirm()
    return counts


def _touched(
    reader: BlockReader, changes: Iterable[Extent], unit: int, unchanged: Callable[[int], None]
) -> Iterator[Extent]:
    """What the reader holds in the units that ranges touch; ``unchanged`` counts the bytes between them.

    Whole units, because a writer takes nothing less: it finds by itself which part is as in the parent.
    """
    at = seen = 0
    for change in changes:
        instance(change, Extent, "changes", "give Extent objects")
        if change.offset < seen or change.length < 0 or change.end > reader.size:
            raise UsageError(
                f"changes: {change.length} bytes at {change.offset} come after {seen} of {reader.size}",
                hint="give ascending ranges inside the volume",
            )
        seen = change.end
        first = max(at, change.offset - change.offset % unit)
        last = min(reader.size, -(-change.end // unit) * unit)
        if change.length and first < last:
            unchanged(first - at)
            yield from reader.extents(first, last - first)
            at = last
    unchanged(reader.size - at)


def read_unit(reader: BlockReader, unit: Unit, view: memoryview, *, mark: bool = False) -> list[Extent]:
    """Fill ``view`` with a unit: its parts from the reader, zeros between them.

    Args:
        reader: The source.
        unit: What to read.
        view: As long as the unit.
        mark: Whether ranges that fail are zeroed and returned instead of raised.

    Returns:
        The UNREADABLE ranges, ascending.
    """
    at = unit.offset
    bad: list[Extent] = []
    for offset, length in unit.parts:
        if offset > at:
            view[at - unit.offset : offset - unit.offset] = bytes(offset - at)
        part = view[offset - unit.offset : offset - unit.offset + length]
        try:
            reader.preadinto(part, offset)
        except (DeviceReadError, CorruptImageError):
            if not mark:
                raise
            bad += _salvage(reader, part, offset)
        at = offset + length
    if at < unit.offset + unit.length:
        view[at - unit.offset :] = bytes(unit.offset + unit.length - at)
    return bad


def _salvage(reader: BlockReader, view: memoryview, offset: int) -> list[Extent]:
    """Read what can be read of a failing range, sector by sector."""
    step = reader.sector_size
    bad: list[Extent] = []
    at, end = offset, offset + len(view)
    while at < end:
        stop = min(end, at - at % step + step)
        part = view[at - offset : stop - offset]
        try:
            reader.preadinto(part, at)
        except (DeviceReadError, CorruptImageError):
            part[:] = bytes(len(part))
            if bad and bad[-1].end == at:
                bad[-1] = Extent(bad[-1].offset, stop - bad[-1].offset, ExtentKind.UNREADABLE)
            else:
                bad.append(Extent(at, stop - at, ExtentKind.UNREADABLE))
        at = stop
    return bad


def _unreadable(extent: Extent) -> DeviceReadError:
    return DeviceReadError(
        f"bytes {extent.offset} to {extent.end} are marked unreadable in the source",
        offset=extent.offset,
        length=extent.length,
        hint="pass on_read_error=OnReadError.MARK to keep the rest",
    )
