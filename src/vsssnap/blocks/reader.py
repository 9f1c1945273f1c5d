"""The one reader of the library: a device, a shadow copy, an image and a window are all the same.

`BlockReader` does the argument checks, the clipping at the end, the closing and the file
interface once.  A driver extends it with at most six small methods, which only ever see
valid, non-empty ranges and run on any thread, several at once:

* ``_read_into(view, offset)``: fill the whole view or raise.
* ``_read(length, offset)``: the same as new bytes, where a driver can save the copy.
* ``_read_parts(parts)``: several reads, where a driver can make them cheaper together.
* ``_extents(offset, length)``: what is known of a range; default all DATA.
* ``_confirm()``: raise SnapshotLostError if what is read no longer exists.
* ``_release()``: let the resource go; called once, by the last user.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from vsssnap._units import MAX_SIZE, is_power_of_two, whole
from vsssnap._uses import UseGate
from vsssnap.blocks.extent import Extent, ExtentKind, checked, grid
from vsssnap.errors import DeviceReadError, UsageError
from vsssnap.metadata import ImageMetadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

__all__ = ["BlockReader", "SupportsPread", "as_reader"]


@runtime_checkable
class SupportsPread(Protocol):
    """The least that a source must do.

    ``extents(offset, length)`` and ``confirm()`` with the meaning they have in `BlockReader`
    are used if present, and so are ``sector_size`` and ``metadata``.  What cannot be read is a
    DeviceReadError with its range, which `OnReadError.MARK` goes on after; others pass as they are.
    """

    @property
    def size(self) -> int:
        """Bytes; constant."""

    def pread(self, length: int, offset: int, /) -> bytes:
        """Exactly ``length`` bytes from ``offset``, fewer only at the end; thread-safe."""


class BlockReader(io.RawIOBase):
    """Random access to the blocks of a volume as they were at one instant.

    `pread`, `preadinto`, `extents` and `blocks` are positional and thread-safe.  The file
    interface (`read`, `seek`, `tell`) has one cursor and is for one thread at a time; note
    that ``io.BufferedReader(reader)`` closes the reader when it is collected (`detach` first).

    A read gives exactly what was asked for, fewer bytes only at the end, or raises.  After
    `close` new calls raise ClosedError and running ones finish.

    Attributes:
        size: Bytes; any number, 0 too.
        sector_size: Logical sector size in bytes; advice for formats, reads need no alignment.
        metadata: Where the blocks come from.
    """

    size: int
    sector_size: int
    metadata: ImageMetadata

    def __init__(self, size: int, *, sector_size: int = 512, metadata: ImageMetadata | None = None) -> None:
        super().__init__()
        self._position = 0
        self.size = whole(size, "size")
        self.sector_size = whole(sector_size, "sector_size", least=1)
        if not is_power_of_two(self.sector_size):
            raise UsageError(f"sector_size is {self.sector_size}, no power of two")
        self.metadata = metadata if metadata is not None else ImageMetadata()
        # Last: what has a gate is closed when it is collected, and what failed above holds nothing.
        self._gate = UseGate(type(self).__name__)

    def __repr__(self) -> str:
        of = self.metadata.volume or next(iter(self.origins), "")
        state = ", closed" if self.closed else ""
        return f"<{type(self).__name__}{f' of {of}' if of else ''}: {self.size} bytes{state}>"

    # What drivers extend.

    def _read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` (single bytes, writable, not empty) from ``offset``, all of it inside the volume."""
        view[:] = self._read(len(view), offset)

    def _read(self, length: int, offset: int) -> bytes:
        """``length`` bytes from ``offset``, all of it inside the volume, at least 1."""
        buffer = bytearray(length)
        with memoryview(buffer) as view:
            self._read_into(view, offset)
        return bytes(buffer)

    def _read_parts(self, parts: Sequence[tuple[memoryview, int]]) -> None:
        """Fill every view from its offset, all of them inside the volume; for readers on top of this one."""
        for view, offset in parts:
            self.preadinto(view, offset)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What is known of a range inside the volume, ascending and gap-free."""
        yield Extent(offset, length, ExtentKind.DATA)

    def _confirm(self) -> None:
        """Raise SnapshotLostError if what is read no longer exists."""

    def _release(self) -> None:
        """Let the resource go."""

    # What callers use.

    @property
    def origins(self) -> tuple[str, ...]:
        """Paths of the files and devices whose bytes are read here; none of them may be a target."""
        return ()

    def pread(self, length: int, offset: int, /) -> bytes:
        """Read at a place, in `os.pread`'s order of arguments.

        Args:
            length: Bytes wanted, at least 0.
            offset: First byte wanted, at least 0; behind the end there is nothing.

        Returns:
            ``length`` bytes, fewer only where the volume ends.

        Raises:
            UsageError: an argument is negative or no whole number.
            ClosedError: the reader is closed.
            DeviceReadError: the device failed, or the range is UNREADABLE.
            SnapshotLostError: the snapshot is gone; so for every later call.
        """
        length = min(whole(length, "length"), max(0, self.size - whole(offset, "offset")))
        with self._gate:
            try:
                return self._read(length, offset) if length else b""
            except OverflowError as exc:  # what `bytes` raises beyond the address space
                raise MemoryError(f"cannot hold {length} bytes") from exc

    def preadinto(self, buffer: Buffer, offset: int, /) -> int:
        """Read into ``buffer`` from ``offset``.

        Args:
            buffer: Writable and contiguous; its whole byte length is asked for.
            offset: First byte wanted, at least 0.

        Returns:
            Bytes written: all of ``buffer``, or fewer only where the volume ends.

        Raises:
            UsageError: ``offset`` is negative, or ``buffer`` is not writable and contiguous.
            ClosedError: the reader is closed.
            DeviceReadError: the device failed; ``buffer`` then holds no valid bytes.
            SnapshotLostError: the snapshot is gone; so for every later call.
        """
        view = writable(buffer)
        length = min(len(view), max(0, self.size - whole(offset, "offset")))
        with self._gate:
            if length:
                self._read_into(view[:length], offset)
        return length

    def extents(self, offset: int = 0, length: int | None = None) -> Iterator[Extent]:
        """What the volume holds, ascending and gap-free, clipped to a range.

        A range may be reported DATA though it is all zero, never the reverse.

        Args:
            offset: First byte of the range.
            length: Bytes of the range; None for all up to the end.

        Raises:
            UsageError: an argument is negative or no whole number.
            ClosedError: the reader is closed, now or while this is iterated.
        """
        rest = max(0, self.size - whole(offset, "offset"))
        length = rest if length is None else min(rest, whole(length, "length"))
        with self._gate:
            pass
        return self._walk(offset, length)

    def _walk(self, offset: int, length: int) -> Iterator[Extent]:
        if not length:
            return
        with self._gate:
            source = iter(self._extents(offset, length))
        while True:
            with self._gate:
                extent = next(source, None)
            if extent is None:
                return
            yield extent

    def blocks(self, block_size: int, *, only_data: bool = True) -> Iterator[tuple[int, memoryview]]:
        """The volume block by block, ascending; ends with `confirm`.

        A block is read whole as soon as any of it is DATA.  Each view has memory of its own: it
        stays valid and unchanged for as long as it is referenced, also on other threads.

        Args:
            block_size: Bytes a block, at least 1; the last one may be shorter.
            only_data: Leave out blocks that are zero by `extents`.

        Yields:
            ``(offset, block)``.

        Raises:
            UsageError: ``block_size`` is no positive whole number.
            DeviceReadError: a block cannot be read.
            SnapshotLostError: the snapshot was lost, also if only at the end.
        """
        return self._blocks(whole(block_size, "block_size", least=1), only_data=only_data)

    def _blocks(self, block_size: int, *, only_data: bool) -> Iterator[tuple[int, memoryview]]:
        source = self.extents() if only_data else iter((Extent(0, self.size),))
        for offset, length in grid(source, block_size, self.size):
            yield offset, memoryview(self.pread(length, offset))
        self.confirm()

    def window(self, offset: int, length: int) -> BlockReader:
        """A part of this volume as a reader of its own; closing it leaves this one open.

        Raises:
            UsageError: the range is not inside the volume.
        """
        from vsssnap.blocks.window import WindowReader  # below this module in use, above it in class order

        return WindowReader(self, offset, length)

    def confirm(self) -> None:
        """Make sure that what is read still exists.

        Call it after the last read and before a copy is called complete: bytes read from a
        snapshot that was lost meanwhile may be wrong although every read succeeded.

        Raises:
            SnapshotLostError: it does not.
            ClosedError: the reader is closed.
        """
        with self._gate:
            self._confirm()

    # The file interface.

    def close(self) -> None:
        """Refuse new calls; the last running one lets the resource go.  Idempotent."""
        if not self.closed:
            super().close()
        # A constructor that failed early leaves an object without a gate to the collector.
        gate = getattr(self, "_gate", None)
        if gate is not None:
            gate.close(self._release)

    def __enter__(self) -> Self:
        with self._gate:  # IOBase would say it with an error that is not ours
            return self

    def __iter__(self) -> Iterator[bytes]:
        """The lines, as of any binary file; read through `io.BufferedReader` if they are many."""
        with self._gate:
            return self

    def flush(self) -> None:
        """Nothing to do."""

    def isatty(self) -> bool:
        """Always false."""
        return False

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the cursor of the file interface; behind the end is allowed and reads nothing."""
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise UsageError(f"whence is {whence!r}", hint="use io.SEEK_SET, io.SEEK_CUR or io.SEEK_END")
        by = whole(offset, "offset", least=-MAX_SIZE)
        with self._gate:
            base = (0, self._position, self.size)[whence]
            self._position = whole(base + by, "the position")
        return self._position

    def tell(self) -> int:
        """The cursor of the file interface."""
        with self._gate:
            return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        """Read into ``buffer`` at the cursor and move it."""
        count = self.preadinto(buffer, self._position)
        self._position += count
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes from the cursor, all to the end if negative or None; moves it."""
        # IOBase's own would allocate `size` bytes, however little there is to read.
        if size is None or whole(size, "size", least=-MAX_SIZE) < 0:
            return self.readall()
        data = self.pread(size, self._position)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """Everything from the cursor to the end, in one piece of memory."""
        data = self.pread(self.size, self._position)
        self._position += len(data)
        return data

    def __reduce_ex__(self, protocol: Any, /) -> Any:  # noqa: ANN401 - object's own signature
        """Readers hold system resources and cannot be copied or pickled."""
        raise UsageError(
            f"{type(self).__name__} cannot be pickled or copied", hint="open the source again there"
        )


def writable(buffer: Buffer) -> memoryview:
    """A caller's buffer as single bytes.

    Raises:
        UsageError: it is not writable and contiguous.
    """
    try:
        view = memoryview(buffer).cast("B")
    except (TypeError, ValueError, BufferError) as exc:  # not a buffer, not in one piece, released
        raise UsageError(f"buffer is not contiguous bytes: {exc}") from None
    if view.readonly:
        raise UsageError("buffer is read-only", hint="pass a bytearray or another writable buffer")
    return view


class _ForeignReader(BlockReader):
    """A `SupportsPread` of the caller's, held to the contract; its exceptions pass unchanged."""

    def __init__(self, source: SupportsPread) -> None:
        metadata = getattr(source, "metadata", None)
        super().__init__(
            source.size,
            sector_size=getattr(source, "sector_size", 512),
            metadata=metadata if isinstance(metadata, ImageMetadata) else None,
        )
        self._source = source

    def _read(self, length: int, offset: int) -> bytes:
        given = self._source.pread(length, offset)
        try:
            # A copy of anything but bytes: a bytearray may be the source's own buffer.
            data = given if type(given) is bytes else bytes(memoryview(given))
        except TypeError:
            raise UsageError(
                f"{type(self._source).__name__}.pread gave {type(given).__name__}, no bytes",
                hint="a source must give exactly what is asked for, or raise",
            ) from None
        if len(data) != length:
            raise DeviceReadError(
                f"{type(self._source).__name__}.pread gave {len(data)} of {length} bytes at {offset}",
                offset=offset,
                length=length,
                hint="a source must give exactly what is asked for, or raise",
            )
        return data

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        method = getattr(self._source, "extents", None)
        if method is None:
            return super()._extents(offset, length)
        name = type(self._source).__name__
        return checked(method(offset, length), offset, length, name)

    def _confirm(self) -> None:
        method = getattr(self._source, "confirm", None)
        if method is not None:
            method()


def as_reader(source: SupportsPread) -> BlockReader:
    """``source`` itself if it is a `BlockReader`, else a reader around it.

    Closing the reader leaves a foreign source open.

    Raises:
        UsageError: ``source`` has no ``size`` and ``pread``.
    """
    if isinstance(source, BlockReader):
        return source
    if not isinstance(source, SupportsPread):
        raise UsageError(
            f"{type(source).__name__} is no source of blocks", hint="it needs size and pread(length, offset)"
        )
    return _ForeignReader(source)
