"""Volumes, disks and shadow copies of Windows as readers.

Every thread's read goes to the device at once, past the cache, in several pieces
(`vsssnap._win32.overlapped`).  One that fails is tried again, since disks and
networks of disks recover; then the bad sectors are searched for, so that an error names just them.
"""

from __future__ import annotations

import errno
import logging
import time
from typing import TYPE_CHECKING, Final

from vsssnap._win32.constants import Win32Error
from vsssnap._win32.handles import WindowsCallError
from vsssnap.blocks import _retry
from vsssnap.blocks.reader import BlockReader
from vsssnap.errors import DeviceReadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vsssnap._win32.devices import RawDevice
    from vsssnap.metadata import ImageMetadata

__all__ = ["WindowsReader"]

_log = logging.getLogger("vsssnap.device")

_TRIES: Final = 3
_PAUSE = 0.2  # seconds between two tries
_GONE: Final = frozenset(
    {
        Win32Error.ERROR_FILE_NOT_FOUND,
        Win32Error.ERROR_PATH_NOT_FOUND,
        Win32Error.ERROR_INVALID_HANDLE,
        Win32Error.ERROR_NOT_READY,
        Win32Error.ERROR_DEV_NOT_EXIST,
        Win32Error.ERROR_NO_SUCH_DEVICE,
        Win32Error.ERROR_DEVICE_NOT_CONNECTED,
        Win32Error.ERROR_DEVICE_REMOVED,
    }
)
"""Errors of a device that is not there any more: no sector of it can be read."""


class WindowsReader(BlockReader):
    """An open device; all of it is DATA."""

    def __init__(
        self,
        device: RawDevice,
        size: int,
        sector_size: int,
        *,
        metadata: ImageMetadata | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        """Take over an open device; it is closed with the reader, also if the constructor fails.

        Args:
            device: Open.
            size: Bytes.
            sector_size: Bytes of a logical sector.
            metadata: What the reader says of itself.
            on_failure: Called when a read has failed, before it is tried again; what it raises is
                the reader's answer.
        """
        self._device = device
        self._on_failure = on_failure
        try:
            super().__init__(size, sector_size=sector_size, metadata=metadata)
        except BaseException:
            device.close()
            raise

    @property
    def origins(self) -> tuple[str, ...]:
        """The device."""
        return (self._device.path,)

    def _read_into(self, view: memoryview, offset: int) -> None:
        failure: WindowsCallError | None = None
        for _ in range(_TRIES):
            if failure is not None:
                time.sleep(_PAUSE)
            try:
                self._device.read_into(view, offset, self.sector_size)
            except WindowsCallError as exc:
                failure = exc
                _log.info("%s: %s in %d bytes at %d", self._device.path, exc, len(view), offset)
                if self._on_failure is not None:
                    self._on_failure()
                if exc.code in _GONE:
                    break
            else:
                return
        assert failure is not None  # noqa: S101 - else it has returned
        if failure.code in _GONE:
            raise self._unread(failure, len(view), offset) from failure
        view[:] = _retry.search(
            self._sectors, _as_os(failure), len(view), offset, self.sector_size, self._unread
        )

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
            hint="the device was taken away"
            if code in _GONE
            else "the disk is failing; on_read_error=OnReadError.MARK keeps what can be read",
        )

    def _release(self) -> None:
        self._device.close()


def _as_os(exc: WindowsCallError) -> OSError:
    made = OSError(errno.EIO, str(exc))
    made.__cause__ = exc
    return made
