"""Volumes, disks and shadow copies of Windows, read and written.

Every thread's read goes to the device at once, past the cache, in several pieces
(`vsssnap._win32.overlapped`).  One that fails is tried again, since disks and
networks of disks recover; then the bad sectors are searched for, so that an error names just them.
Once three ranges stayed bad, the next are searched at once, until a minute has passed: a failing disk
has thousands.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from vsssnap._win32 import slots
from vsssnap._win32.constants import Win32Error
from vsssnap._win32.handles import WindowsCallError
from vsssnap.blocks import _retry
from vsssnap.blocks.reader import BlockReader
from vsssnap.blocks.target import TargetWriter, Writable
from vsssnap.errors import DeviceReadError
from vsssnap.metadata import ImageMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vsssnap._win32.devices import RawDevice

__all__ = ["HeldDevice", "WindowsReader", "WindowsWriter", "WritableWindows"]

_log = logging.getLogger("vsssnap.device")

_ZEROS: Final = bytes(1 << 20)
_TRIES: Final = 3
_PAUSE = 0.2  # seconds between two tries
_HOPELESS: Final = 3  # ranges that stayed bad, after which none is waited for
_REMEMBERED = 60.0  # seconds that they count
_GONE: Final = frozenset(
    {
        Win32Error.ERROR_FILE_NOT_FOUND,
        Win32Error.ERROR_PATH_NOT_FOUND,
        Win32Error.ERROR_INVALID_HANDLE,
        Win32Error.ERROR_NOT_READY,
        Win32Error.ERROR_DEV_NOT_EXIST,
        433,  # ERROR_NO_SUCH_DEVICE, which mingw-w64 10 does not have to compare with
        Win32Error.ERROR_DEVICE_NOT_CONNECTED,
        Win32Error.ERROR_DEVICE_REMOVED,
    }
)
"""Errors of a device that is not there any more: no sector of it can be read."""
_FINAL: Final = _GONE | {Win32Error.ERROR_TIMEOUT}
"""Errors after which nothing is tried again."""


class HeldDevice:
    """A device that is written, and what is held so that it can be; closed by its last user."""

    def __init__(
        self, device: RawDevice, volumes: Sequence[RawDevice] = (), on_close: Callable[[], None] | None = None
    ) -> None:
        """Take over open devices.

        Args:
            device: What is written.
            volumes: Those that are locked for it.
            on_close: Called before they are closed.
        """
        self.device = device
        self._volumes = volumes
        self._on_close = on_close
        self._users = 1
        self._lock = threading.Lock()

    def share(self) -> HeldDevice:
        """One more user."""
        with self._lock:
            self._users += 1
        return self

    def close(self) -> None:
        """One user less."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        if self._on_close is not None:
            self._on_close()
        for device in (*self._volumes, self.device):
            device.close()


class WindowsReader(BlockReader):
    """An open device; all of it is DATA."""

    def __init__(
        self,
        device: RawDevice,
        size: int,
        sector_size: int,
        *,
        metadata: ImageMetadata | None = None,
        held: HeldDevice | None = None,
    ) -> None:
        """Take over an open device; it is closed with the reader, also if the constructor fails.

        Args:
            device: Open.
            size: Bytes.
            sector_size: Bytes of a logical sector.
            metadata: What the reader says of itself.
            held: Closed instead of ``device``.
        """
        self._device = device
        self._close = device.close if held is None else held.close
        self._bad = 0  # ranges that stayed bad, not long ago
        self._bad_until = 0.0
        try:
            super().__init__(size, sector_size=sector_size, metadata=metadata)
        except BaseException:
            self._close()
            raise

    @property
    def origins(self) -> tuple[str, ...]:
        """The device."""
        return (self._device.path,)

    def _read_into(self, view: memoryview, offset: int) -> None:
        tries = 1 if self._is_hopeless() else _TRIES
        failure: WindowsCallError | None = None
        for tried in range(tries):
            if tried:
                time.sleep(_PAUSE)
            device = self._device
            try:
                device.read_into(view, offset, self.sector_size)
            except WindowsCallError as exc:
                failure = exc
                _log.info("%s: %s in %d bytes at %d", device.path, exc, len(view), offset)
                renewed = self._renew(device, exc, more=tried + 1 < tries)
                if exc.code == Win32Error.ERROR_TIMEOUT or (exc.code in _GONE and not renewed):
                    break
            else:
                return
        assert failure is not None  # noqa: S101 - else it has returned
        if failure.code in _FINAL:
            raise self._unread(failure, len(view), offset) from failure
        try:
            view[:] = _retry.search(
                self._sectors, _as_os(failure), len(view), offset, self.sector_size, self._unread
            )
        except DeviceReadError:
            self._bad += 1
            self._bad_until = time.monotonic() + _REMEMBERED
            raise

    def _is_hopeless(self) -> bool:
        """Whether so much stays bad that waiting helps nobody: a disk that is failing, not busy."""
        if self._bad and time.monotonic() > self._bad_until:
            self._bad = 0
        return self._bad >= _HOPELESS

    def _renew(self, device: RawDevice, failure: WindowsCallError, *, more: bool) -> bool:
        """A read of ``device`` has failed; what this raises is the reader's answer.

        Args:
            device: As it was then.
            failure: How.
            more: Whether the read is tried again.

        Returns:
            Whether what is read next is another opening of it.
        """
        del device, failure, more
        return False

    def _sectors(self, length: int, offset: int) -> bytes:
        found = bytearray(min(length, self.size - offset))
        try:
            with memoryview(found) as view:
                self._device.read_into(view, offset, self.sector_size)
        except WindowsCallError as exc:
            raise _as_os(exc) from exc
        return bytes(found)

    def _unread(self, exc: Exception, length: int, offset: int) -> DeviceReadError:
        cause = exc if isinstance(exc, WindowsCallError) else exc.__cause__
        call, code = (cause.call, cause.code) if isinstance(cause, WindowsCallError) else ("ReadFile", None)
        return DeviceReadError(
            f"{self._device.path}: cannot read {length} bytes at {offset}: {cause}",
            offset=offset,
            length=length,
            call=call,
            code=code,
            hint=_hint(code),
        )

    def _release(self) -> None:
        self._close()


class WindowsWriter(TargetWriter):
    """A device that nobody else can write meanwhile."""

    def __init__(self, held: HeldDevice, path: str, size: int, sector_size: int) -> None:
        """Take over an open device; `close` lets it go."""
        super().__init__(path, size, sector_size)
        self._held = held

    def _write(self, view: memoryview, offset: int) -> int:
        try:
            self._held.device.write(view, offset, self.sector_size)
        except WindowsCallError as exc:
            raise _as_os(exc) from exc
        return len(view)

    def _zero(self, offset: int, length: int) -> None:
        with memoryview(_ZEROS) as zeros:
            for at in range(0, length, len(zeros)):
                self._write(zeros[: min(len(zeros), length - at)], offset + at)

    def _sync(self) -> None:
        try:
            self._held.device.flush()
        except WindowsCallError as exc:
            raise _as_os(exc) from exc

    def _reader(self) -> BlockReader:
        # Through the same handle: a locked volume cannot be opened a second time.
        held = self._held.share()
        return WindowsReader(
            held.device,
            self.size,
            self.sector_size,
            metadata=ImageMetadata(volume=self.path, device=held.device.path),
            held=held,
        )

    def _let_go(self) -> None:
        self._held.close()


class WritableWindows(Writable, WindowsReader):
    """A device that is read and written."""

    def __init__(self, held: HeldDevice, path: str, size: int, sector_size: int) -> None:
        """Take over an open device; it is closed with the reader, also if the constructor fails."""
        metadata = ImageMetadata(volume=path, device=held.device.path)
        super().__init__(held.device, size, sector_size, metadata=metadata, held=held)
        self._writer = WindowsWriter(held, path, size, sector_size)  # never closed by itself


def _hint(code: int | None) -> str:
    if code in _GONE:
        return "the device was taken away"
    if code == Win32Error.ERROR_TIMEOUT:
        return f"it did not answer for {slots.ANSWER:g} s; look at the System event log, then open it again"
    return "the disk is failing; on_read_error=OnReadError.MARK keeps what can be read"


def _as_os(exc: WindowsCallError) -> OSError:
    full = exc.code == Win32Error.ERROR_DISK_FULL
    made = OSError(errno.ENOSPC if full else errno.EIO, str(exc))
    made.__cause__ = exc
    return made
