"""Writing large files behind their writer, past the page cache where that is worth it.

A write through the page cache costs its copy, a page for each 4 KiB, and at the end a wait for
the disk, all of it taken from whoever compresses meanwhile; and it pushes out of memory what a busy
server had there, for an image that nobody reads soon.  With O_DIRECT the disk fetches the bytes
itself (open(2)), if memory, offset and length are aligned.  So what is written to a large file is gathered in
aligned buffers, and a thread of its own hands these to the disk, one at a time and in order.

Only on file systems that lie on a block device: elsewhere (NFS, FUSE, memory) a direct write may
wait for a far end each time, or is none.  There, and for the beginning of every file, bytes are
written at once, as ever, and the disk is asked to begin with them now and then.

What was written is seen by `os.pread` of the same file only after `drain`.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

from vsssnap import _files

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALIGN = 4096  # bytes: the largest logical sector of any disk
_BUFFER = 2 << 20  # bytes of a buffer; a disk with moving heads wants no less
_BUFFERS = 4
_FIRST = 8 << 20  # bytes of a file that are written at once; smaller files need no thread
_DIRECT = 64 << 10  # bytes below which a direct write is not worth the disk's attention
_PATIENCE = 1.0  # seconds that a thread is waited for when what it writes is thrown away


class WriteFailed(Exception):
    """A write that failed; it may be one of an earlier call.

    Attributes:
        error: What the system said.
        offset: Of the write in the file.
        length: Bytes of the write.
    """

    def __init__(self, error: OSError, offset: int, length: int) -> None:
        super().__init__(error, offset, length)
        self.error = error
        self.offset = offset
        self.length = length


class WriteBehind:
    """Takes all writes to one file; any thread.

    After the first `drain` nothing is held back any more: a writer that flushes is at its end, or
    wants what it wrote to be there.
    """

    def __init__(self, fd: int) -> None:
        """Take a descriptor, which is the caller's and open in every call."""
        self._fd = fd
        self._lock = threading.Lock()
        self._stage: _Stage | None = None
        self._first = _FIRST
        self._clear()

    def _clear(self) -> None:
        self._low, self._high, self._count = sys.maxsize, 0, 0

    def write(self, parts: Sequence[memoryview], offset: int) -> None:
        """Write pieces one behind the other.

        Raises:
            WriteFailed: this write failed, or an earlier one did.
        """
        with self._lock:
            if self._first:
                self._first = max(0, self._first - sum(map(len, parts)))
                if not self._first:
                    self._stage = _stage(self._fd)
            stage = self._stage
            if stage is not None:
                stage.write(parts, offset)
                return
        self._noted(offset, write_all(self._fd, list(parts), offset))

    @property
    def pending(self) -> bool:
        """Whether there may be bytes that are not in the file yet."""
        return self._stage is not None

    def drain(self) -> None:
        """Return when all bytes are in the file, though not yet on the disk.

        Raises:
            WriteFailed: an earlier write failed.
        """
        with self._lock:
            self._first = 0
            stage = self._stage
            if stage is not None:
                stage.drain()
                self._stage = None
                stage.end()

    def close(self) -> None:
        """Throw away what is not in the file yet."""
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.end()

    def _noted(self, offset: int, length: int) -> None:
        """Keep the disk busy, so that fsync finds little left to do.

        Linux leaves what is written in memory until it is some thirty seconds old
        (Documentation/admin-guide/sysctl/vm.rst, dirty_expire_centisecs); meanwhile the disk would be
        idle, and the end of every copy a wait for it.
        """
        with self._lock:
            self._low = min(self._low, offset)
            self._high = max(self._high, offset + length)
            self._count += length
            if self._count < STEP:
                return
            start, span, dense = self._low, self._high - self._low, self._count
            self._clear()
        # Of ranges that are scattered the system must look at too much between them.
        if span <= 4 * dense:
            _files.start_writing(self._fd, start, span)


STEP = 8 << 20
"""Bytes written at once between two calls that let the disk begin."""


def write_all(fd: int, parts: list[memoryview], offset: int) -> int:
    """Write all pieces one behind the other; their bytes.

    Raises:
        WriteFailed: the system took less.
    """
    at = offset
    while parts:
        try:
            count = _files.pwritev(fd, parts, at)
        except OSError as exc:
            raise WriteFailed(exc, at, sum(map(len, parts))) from exc
        at += count
        while parts and count >= len(parts[0]):
            count -= len(parts.pop(0))
        if count:
            parts[0] = parts[0][count:]
    return at - offset


class _Stage:
    """Gathers writes in aligned buffers and hands full ones to a thread; one caller at a time."""

    def __init__(self, plain: int, direct: int) -> None:
        """Own two descriptors of the file; the second was opened with O_DIRECT."""
        self._disk = _Disk(plain, direct)
        self._view: memoryview | None = None  # the buffer that is being filled
        self._base = self._start = self._end = 0  # where it lies in the file, and what of it is filled
        threading.Thread(target=self._disk.run, name="vsssnap-behind", daemon=True).start()
        # A storage that is forgotten must not leave a thread that waits for ever.
        self._forgotten = weakref.finalize(self, self._disk.stop)
        self._forgotten.atexit = False  # it ends with the process; a forked child may never get its lock

    def write(self, parts: Sequence[memoryview], offset: int) -> None:
        """Write pieces one behind the other; waits for the disk when all buffers are full."""
        for part in parts:
            at = 0
            while at < len(part):
                if self._view is not None and offset != self._end:
                    self._hand_over()
                if self._view is None:
                    self._view = self._disk.buffer()
                    self._base = offset - offset % _ALIGN
                    self._start = self._end = offset
                into = self._end - self._base
                count = min(len(part) - at, _BUFFER - into)
                self._view[into : into + count] = part[at : at + count]
                at += count
                offset += count
                self._end += count
                if self._end == self._base + _BUFFER:
                    self._hand_over()

    def _hand_over(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            self._disk.put(view, self._base, self._start, self._end)

    def drain(self) -> None:
        """Return when everything is in the file."""
        self._hand_over()
        self._disk.wait()

    def end(self) -> None:
        """Throw away what is not in the file, and let go of it."""
        self._disk.stop()
        self._forgotten.detach()
        self._disk.ended.wait(_PATIENCE)


class _Disk:
    """What the thread knows; it must not refer to the `_Stage`, which ends it when it is forgotten."""

    def __init__(self, plain: int, direct: int) -> None:
        self._plain = plain
        self._direct: int | None = direct
        self._changed = threading.Condition()
        self._free: list[memoryview] = []
        self._made = 0
        self._queue: deque[tuple[memoryview, int, int, int]] = deque()
        self._busy = False
        self._stop = False
        self._failed: WriteFailed | None = None
        self.ended = threading.Event()

    def buffer(self) -> memoryview:
        """A buffer to fill; waits for the disk."""
        with self._changed:
            while not self._free and self._made == _BUFFERS and self._failed is None:
                self._changed.wait()
            self._check()
            if self._free:
                return self._free.pop()
            self._made += 1
        try:
            return memoryview(mmap.mmap(-1, _BUFFER))  # begins on a page
        except OSError as exc:
            with self._changed:
                self._made -= 1
            raise MemoryError(f"no {_BUFFER} bytes to write from: {exc.strerror}") from exc

    def put(self, view: memoryview, base: int, start: int, end: int) -> None:
        """Write ``view``, which lies at ``base``, from ``start`` to ``end`` of the file."""
        with self._changed:
            self._queue.append((view, base, start, end))
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when everything is written."""
        with self._changed:
            while (self._queue or self._busy) and self._failed is None:
                self._changed.wait()
            self._check()

    def _check(self) -> None:
        if self._failed is not None:
            raise WriteFailed(self._failed.error, self._failed.offset, self._failed.length)

    def stop(self) -> None:
        """Let the thread end after the write in hand."""
        with self._changed:
            self._stop = True
            self._queue.clear()
            self._changed.notify_all()

    def run(self) -> None:
        """Write until told to stop, or a write fails."""
        try:
            while True:
                with self._changed:
                    while not self._queue and not self._stop:
                        self._changed.wait()
                    if self._stop:
                        return
                    job = self._queue.popleft()
                    self._busy = True
                failed = None
                try:
                    self._write(*job)
                except WriteFailed as exc:
                    failed = exc
                except BaseException as exc:  # whoever waits must not wait for ever
                    failed = WriteFailed(
                        OSError(errno.EIO, f"{type(exc).__name__}: {exc}"), job[2], job[3] - job[2]
                    )
                with self._changed:
                    self._busy = False
                    self._failed = failed
                    self._free.append(job[0])
                    self._changed.notify_all()
                if failed is not None:
                    return
        finally:
            os.close(self._plain)
            if self._direct is not None:
                os.close(self._direct)
            self.ended.set()

    def _write(self, view: memoryview, base: int, start: int, end: int) -> None:
        first = start + -start % _ALIGN
        last = end - end % _ALIGN
        if self._direct is None or last - first < _DIRECT:
            self._through_cache(view, base, start, end)
            return
        self._through_cache(view, base, start, first)
        at = first
        while at < last:
            try:
                count = _files.pwrite(self._direct, view[at - base : last - base], at)
            except OSError as exc:
                if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise WriteFailed(exc, at, last - at) from exc
                os.close(self._direct)  # this file system wants more, or has no direct writes
                self._direct = None
                break
            at += count
            if not count or at % _ALIGN:
                break  # a disk that is nearly full; the plain write gets the system's word for it
        self._through_cache(view, base, at, end)

    def _through_cache(self, view: memoryview, base: int, start: int, end: int) -> None:
        if start < end:
            write_all(self._plain, [view[start - base : end - base]], start)


if sys.platform == "linux":

    def _stage(fd: int) -> _Stage | None:
        """Direct writes to a file; None where they are not to be had, or not worth it."""
        found = os.fstat(fd)
        # Major number 0: no block device beneath (Documentation/admin-guide/devices.txt).
        if not stat.S_ISREG(found.st_mode) or not os.major(found.st_dev):
            return None
        owned: list[int] = []
        try:
            owned.append(os.dup(fd))
            # The open file, whatever its name is by now.
            owned.append(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC))
            return _Stage(*owned)
        except (OSError, RuntimeError):  # no direct writes, no descriptor or no thread to be had
            for number in owned:
                os.close(number)
            return None

else:

    def _stage(fd: int) -> _Stage | None:
        """None: never measured here."""
