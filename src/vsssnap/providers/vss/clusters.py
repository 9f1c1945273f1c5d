"""Which clusters of a shadow copy are in use, asked for as they are needed.

A volume bitmap grows with its volume (512 MiB for 16 TiB); here a few pages of it are held.  It does
not change, as nobody writes to the shadow copy.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from vsssnap._uses import UseGate
from vsssnap._win32.constants import Win32Error
from vsssnap._win32.devices import BITMAP_PAGE, RawDevice
from vsssnap._win32.handles import WindowsCallError
from vsssnap.blocks.extent import Extent, ExtentKind, coalesce

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vsssnap._win32.devices import Clusters
    from vsssnap._win32.dll import System

_log = logging.getLogger("vsssnap.vss")

_PAGE_BITS = BITMAP_PAGE * 8  # clusters
_HELD = 16  # pages
_SAME = re.compile(rb"\x00+|\xff+|[^\x00\xff]", re.DOTALL)


def runs(bits: bytes, count: int) -> Iterator[tuple[int, int, bool]]:
    """Runs of equal bits, the lowest of each byte first: ``(first, length, value)``; neighbours may agree."""
    for match in _SAME.finditer(bits):
        at, byte = match.start() * 8, match[0][0]
        if at >= count:
            return
        if byte in (0x00, 0xFF):
            yield at, min(len(match[0]) * 8, count - at), byte == 0xFF
            continue
        for index in range(min(8, count - at)):
            yield at + index, 1, bool(byte >> index & 1)


class ClusterMap:
    """The used clusters of a shadow copy.  Thread-safe; has a handle of its own until `close`.

    A part of the bitmap that cannot be read counts as used.
    """

    def __init__(self, device: RawDevice, clusters: Clusters, on_failure: Callable[[], None]) -> None:
        """Take over an open device; `open` makes sure that it has a bitmap.

        Args:
            device: Open.
            clusters: How it is divided; what lies before and behind them is in use.
            on_failure: Called when the bitmap cannot be read; it may raise.
        """
        self._device = device
        self._clusters = clusters
        self._on_failure = on_failure
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._gate = UseGate(f"the cluster map of {device.path}")

    @classmethod
    def open(cls, system: System, path: str, on_failure: Callable[[], None]) -> ClusterMap | None:
        """The map of a shadow copy, or None where its file system gives none.

        Raises:
            WindowsCallError: the device cannot be opened, or does not say how large it is.
        """
        device = RawDevice(system, path)
        try:
            size = device.length()
            clusters = device.clusters()
            device.bitmap(0)
        except WindowsCallError as exc:
            device.close()
            _log.info("%s: which clusters are free is not known: %s", path, exc)
            return None
        except BaseException:
            device.close()
            raise
        if not (
            clusters.size > 0 <= clusters.base and clusters.base + clusters.count * clusters.size <= size
        ):
            device.close()
            _log.warning("%s has %d bytes, and no room for %s", path, size, clusters)
            return None
        return cls(device, clusters, on_failure)

    def close(self) -> None:
        """Refuse new calls; the last running one lets the device go.  Idempotent."""
        self._gate.close(self._device.close)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """DATA and HOLE over a range of the device."""
        return coalesce(self._pieces(offset, length))

    def _pieces(self, offset: int, length: int) -> Iterator[Extent]:
        unit, base, end = self._clusters.size, self._clusters.base, offset + length
        mapped = base + self._clusters.count * unit
        if offset < base:
            yield Extent(offset, min(base, end) - offset, ExtentKind.DATA)
        at = max(offset, base)
        while at < min(end, mapped):
            page = (at - base) // unit // _PAGE_BITS
            first = page * _PAGE_BITS
            for start, count, used in runs(self._page(page), min(_PAGE_BITS, self._clusters.count - first)):
                begin = max(base + (first + start) * unit, at)
                stop = min(base + (first + start + count) * unit, end)
                if begin < stop:
                    yield Extent(begin, stop - begin, ExtentKind.DATA if used else ExtentKind.HOLE)
            at = base + (first + _PAGE_BITS) * unit
        if end > mapped:
            begin = max(offset, mapped)
            yield Extent(begin, end - begin, ExtentKind.DATA)

    def _page(self, number: int) -> bytes:
        with self._lock:
            known = self._pages.get(number)
            if known is not None:
                self._pages.move_to_end(number)
                return known
        found = self._load(number * _PAGE_BITS)
        with self._lock:
            self._pages[number] = found
            while len(self._pages) > _HELD:
                self._pages.popitem(last=False)
        return found

    def _load(self, first: int) -> bytes:
        """The bits of a page; Windows gives as many at a time as it likes."""
        wanted = min(_PAGE_BITS, self._clusters.count - first)
        try:
            with self._gate:
                return self._asked(first, wanted)
        except WindowsCallError as exc:
            self._on_failure()
            _log.warning("%s: %s: clusters from %d on count as used", self._device.path, exc, first)
            return b"\xff" * -(-wanted // 8)

    def _asked(self, first: int, wanted: int) -> bytes:
        found = bytearray()
        while len(found) * 8 < wanted:
            at = first + len(found) * 8
            start, count, bits = self._device.bitmap(at)
            skip = at - start
            if skip < 0 or skip % 8 or count <= skip:
                _log.info("asked for cluster %d, it gave %d from %d", at, count, start)
                raise WindowsCallError(
                    "DeviceIoControl(FSCTL_GET_VOLUME_BITMAP)", Win32Error.ERROR_INVALID_PARAMETER
                )
            found += bits[skip // 8 : -(-count // 8)]
        return bytes(found[: -(-wanted // 8)])
