"""Where an image's bytes lie: the little that every format asks of a file."""

from __future__ import annotations

import errno
import os
import sys
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from vsssnap import _files
from vsssnap._behind import WriteBehind, WriteFailed
from vsssnap._uses import UseGate
from vsssnap.blocks.extent import Extent, ExtentKind
from vsssnap.errors import CorruptImageError, DeviceReadError, TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

__all__ = ["FileStorage", "MemoryStorage", "Storage"]


class Storage(ABC):
    """Bytes of one image.

    Positional calls are thread-safe; `append`, `flush`, `truncate` and `close` are for one
    thread at a time.  ``data`` is never kept after a call returns.

    Attributes:
        name: For messages; a path where there is one.
        seekable: Whether `pread` and `pwrite` work; a pipe only appends.
    """

    name: str = ""
    seekable: bool = True

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes now; on a pipe those appended so far."""

    @abstractmethod
    def pread(self, length: int, offset: int, /) -> bytes:
        """Exactly ``length`` bytes.

        Raises:
            CorruptImageError: the storage ends before ``offset + length``.
            DeviceReadError: it failed.
        """

    def preadinto(self, view: memoryview, offset: int, /) -> None:
        """Fill ``view`` (writable single bytes) from ``offset``; raises as `pread` does."""
        view[:] = self.pread(len(view), offset)

    @abstractmethod
    def append(self, parts: Sequence[bytes | bytearray | memoryview], /) -> int:
        """Write pieces one behind the other at the end.

        Returns:
            The offset of the first one.

        Raises:
            TargetError: the target is full or failed.
        """

    @abstractmethod
    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
        """Write all of ``data`` at ``offset``; behind the end the storage grows, with zeros between.

        Raises:
            TargetError: the target is full or failed.
            UsageError: it only appends.
        """

    @abstractmethod
    def truncate(self, size: int, /) -> None:
        """Cut or extend to ``size`` bytes; what is added reads as zeros and takes no space if possible."""

    def make_sparse(self) -> None:  # noqa: B027 - of most storages there is nothing to say
        """Before anything is written: take no space where nothing will be.

        Windows wants to be told so of each file, and Hyper-V takes no such file for a virtual disk.
        """

    def allocate(self, size: int, /) -> None:
        """Extend to ``size`` bytes of zeros whose space is reserved.

        Raises:
            TargetError: there is not that much room.
            UsageError: this storage cannot reserve space.
        """
        raise UsageError(f"{self.name or 'this storage'} cannot reserve space", hint="do not preallocate")

    @abstractmethod
    def flush(self) -> None:
        """Return when all is on stable storage."""

    def extents(self, offset: int, length: int, /) -> Iterator[Extent]:
        """DATA and ZERO of a range, gap-free: file holes are ZERO; all DATA if that cannot be told."""
        if length:
            yield Extent(offset, length)

    @abstractmethod
    def close(self) -> None:
        """Let the resource go.  Idempotent; running calls finish.

        What was written since the last `flush` may be lost.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _short(self, length: int, offset: int) -> CorruptImageError:
        return CorruptImageError(
            f"{self.name or 'the image'} ends at byte {self.size}, {length} bytes at {offset} were asked for",
            path=self.name,
            structure="file",
            offset=offset,
            hint="it was cut short: get it whole, or read what is left with recover=True and"
            " on_read_error=OnReadError.MARK",
        )


class FileStorage(Storage):
    """A regular file, by descriptor; owns it.

    Args of the constructor: the descriptor (readable, and writable to write) and a name.
    """

    def __init__(self, fd: int, name: str = "") -> None:
        self.name = name
        self._fd = fd
        _files.binary(fd)
        self._size = os.fstat(fd).st_size
        self._behind = WriteBehind(fd)
        self._lock = threading.Lock()
        self._gate = UseGate(name or "the image file")

    def _let_go(self) -> None:
        self._behind.close()
        os.close(self._fd)

    @property
    def size(self) -> int:
        """Bytes: what the file had when opened, or as far as this object wrote."""
        return self._size

    def identity(self) -> tuple[int, int]:
        """Device and inode of the file, whatever name it has by now."""
        with self._gate:
            found = os.fstat(self._fd)
        return found.st_dev, found.st_ino

    def pread(self, length: int, offset: int, /) -> bytes:
        """See `Storage`."""
        if offset + length > self._size:
            raise self._short(length, offset)
        with self._gate:
            self._settle()
            try:
                data = _files.pread(self._fd, length, offset)
            except OSError as exc:
                raise self._unread(exc, length, offset) from exc
            if len(data) == length:
                return data
            # Linux reads at most 2 GiB at once, and a file may have been cut short by somebody else.
            whole = bytearray(length)
            whole[: len(data)] = data
            self._fill(memoryview(whole)[len(data) :], offset + len(data))
            return bytes(whole)

    def preadinto(self, view: memoryview, offset: int, /) -> None:
        """See `Storage`."""
        if offset + len(view) > self._size:
            raise self._short(len(view), offset)
        with self._gate:
            self._settle()
            self._fill(view, offset)

    def _fill(self, view: memoryview, offset: int) -> None:
        while view:
            try:
                count = _files.preadinto(self._fd, view, offset)
            except OSError as exc:
                raise self._unread(exc, len(view), offset) from exc
            if not count:
                raise CorruptImageError(
                    f"{self.name or 'the image'} was cut to {offset} bytes while it was open,"
                    f" {len(view)} more were asked for",
                    path=self.name,
                    structure="file",
                    offset=offset,
                )
            view = view[count:]
            offset += count

    def _unread(self, exc: OSError, length: int, offset: int) -> DeviceReadError:
        return DeviceReadError(
            f"{self.name}: cannot read {length} bytes at {offset}: {exc.strerror}",
            offset=offset,
            length=length,
            call="pread",
            code=exc.errno,
            hint="the disk that holds the image is failing",
        )

    def append(self, parts: Sequence[bytes | bytearray | memoryview], /) -> int:
        """See `Storage`."""
        start = self._size
        self._write(parts, start)
        return start

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
        """See `Storage`."""
        self._write((data,), offset)

    def _write(self, parts: Sequence[bytes | bytearray | memoryview], offset: int) -> None:
        views = [
            part.cast("B") if isinstance(part, memoryview) else memoryview(part)
            for part in parts
            if len(part)
        ]
        if not views:
            return  # nothing written behind the end does not move it
        length = sum(map(len, views))
        with self._gate:
            try:
                self._behind.write(views, offset)
            except WriteFailed as exc:
                raise self._unwritten(exc) from exc.error
        with self._lock:
            self._size = max(self._size, offset + length)

    def truncate(self, size: int, /) -> None:
        """See `Storage`."""
        with self._gate:
            self._settle()
            try:
                os.ftruncate(self._fd, size)
            except OSError as exc:
                raise self._failed("ftruncate", exc, f"cannot make it {size} bytes long") from exc
            self._size = size

    def make_sparse(self) -> None:
        """See `Storage`."""
        with self._gate:
            _files.make_sparse(self._fd)

    def allocate(self, size: int, /) -> None:
        """See `Storage`."""
        if sys.platform == "win32":
            self.truncate(size)  # reserves clusters, unless the file was made sparse
        else:
            with self._gate:
                self._settle()
                try:
                    if size:  # a length of 0 is EINVAL: posix_fallocate(3)
                        os.posix_fallocate(self._fd, 0, size)
                except OSError as exc:
                    raise self._failed("posix_fallocate", exc, f"cannot reserve {size} bytes") from exc
                with self._lock:
                    self._size = max(self._size, size)

    def flush(self) -> None:
        """See `Storage`."""
        with self._gate:
            self._settle(last=True)
            try:
                os.fsync(self._fd)
            except OSError as exc:
                raise self._failed("fsync", exc, "cannot be written out") from exc

    def extents(self, offset: int, length: int, /) -> Iterator[Extent]:
        """See `Storage`."""
        source = _files.ranges(self._fd, offset, length)
        while True:
            try:
                with self._gate:  # for each step: the descriptor may be another file's after close
                    self._settle()
                    found = next(source, None)
            except OSError as exc:
                raise self._unread(exc, length, offset) from exc
            if found is None:
                return
            at, count, data = found
            yield Extent(at, count, ExtentKind.DATA if data else ExtentKind.ZERO)

    def close(self) -> None:
        """See `Storage`."""
        self._gate.close(self._let_go)

    def _settle(self, *, last: bool = False) -> None:
        """Have in the file what was written."""
        if last or self._behind.pending:
            try:
                self._behind.drain()
            except WriteFailed as exc:
                raise self._unwritten(exc) from exc.error

    def _unwritten(self, exc: WriteFailed) -> TargetError:
        return self._failed("pwritev", exc.error, f"cannot write {exc.length} bytes at {exc.offset}")

    def _failed(self, call: str, exc: OSError, what: str) -> TargetError:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "make room or choose another target" if full else "the target's disk is failing"
        return TargetError(
            f"{self.name}: {what}: {exc.strerror}", path=self.name, call=call, code=exc.errno, hint=hint
        )


class MemoryStorage(Storage):
    """Bytes in memory, for tests and small images; ``data`` is the content, shared with the caller."""

    def __init__(self, data: bytes | bytearray = b"", name: str = "memory") -> None:
        self.name = name
        self.data = data if isinstance(data, bytearray) else bytearray(data)
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes now."""
        return len(self.data)

    def pread(self, length: int, offset: int, /) -> bytes:
        """See `Storage`."""
        with self._lock:  # a view that lives on another thread keeps a bytearray from growing
            if offset + length > len(self.data):
                raise self._short(length, offset)
            return bytes(self.data[offset : offset + length])

    def append(self, parts: Sequence[bytes | bytearray | memoryview], /) -> int:
        """See `Storage`."""
        with self._lock:
            start = len(self.data)
            for part in parts:
                self.data += part
        return start

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int, /) -> None:
        """See `Storage`."""
        with self._lock:
            if offset > len(self.data) and len(data):
                self.data.extend(bytes(offset - len(self.data)))
            self.data[offset : offset + len(data)] = data

    def truncate(self, size: int, /) -> None:
        """See `Storage`."""
        with self._lock:
            del self.data[size:]
            self.data.extend(bytes(size - len(self.data)))

    def allocate(self, size: int, /) -> None:
        """See `Storage`."""
        with self._lock:
            self.data.extend(bytes(max(0, size - len(self.data))))

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do: the content is the caller's."""
