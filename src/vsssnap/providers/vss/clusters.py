"""Which clusters of a shadow copy are in use, asked for as they are needed.

A volume bitmap grows with its volume (512 MiB for 16 TiB); here a few pages of it are held.  It does
not change, as nobody writes to the shadow copy.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from vsssnap._win32.devices import BITMAP_PAGE
from vsssnap._win32.handles import WindowsCallError
from vsssnap.blocks.extent import Extent, ExtentKind, coalesce
from vsssnap.errors import DeviceReadError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap._win32.devices import Clusters, RawDevice

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
    """The used clusters of an open shadow copy.  Thread-safe."""

    def __init__(self, device: RawDevice, clusters: Clusters, size: int) -> None:
        """Describe a device.

        Args:
            device: Open.
            clusters: How NTFS divides it.
            size: Bytes of the device; what lies behind the last cluster is in use.
        """
        self._device = device
        self._clusters = clusters
        self._size = size
        self._pages: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """DATA and HOLE over a range of the device.

        Raises:
            DeviceReadError: the bitmap cannot be read.
        """
        return coalesce(self._pieces(offset, length))

    def _pieces(self, offset: int, length: int) -> Iterator[Extent]:
        unit, end = self._clusters.size, offset + length
        mapped = min(self._clusters.count * unit, self._size)
        at = offset
        while at < min(end, mapped):
            page = at // unit // _PAGE_BITS
            first = page * _PAGE_BITS
            for start, count, used in runs(self._page(page), min(_PAGE_BITS, self._clusters.count - first)):
                begin, stop = (first + start) * unit, min((first + start + count) * unit, mapped)
                begin, stop = max(begin, at), min(stop, end)
                if begin < stop:
                    yield Extent(begin, stop - begin, ExtentKind.DATA if used else ExtentKind.HOLE)
            at = (first + _PAGE_BITS) * unit
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
        found = bytearray()
        while len(found) * 8 < wanted:
            at = first + len(found) * 8
            try:
                start, count, bits = self._device.bitmap(at)
            except WindowsCallError as exc:
                raise self._failed(str(exc), exc.code) from exc
            skip = at - start
            if skip < 0 or skip % 8 or count <= skip:
                raise self._failed(f"asked for cluster {at} it gave {count} from {start}", None)
            found += bits[skip // 8 : -(-count // 8)]
        return bytes(found[: -(-wanted // 8)])

    def _failed(self, why: str, code: int | None) -> DeviceReadError:
        return DeviceReadError(
            f"{self._device.path}: its volume bitmap cannot be read: {why}",
            length=self._size,
            call="DeviceIoControl(FSCTL_GET_VOLUME_BITMAP)",
            code=code,
            hint="chkdsk the volume",
        )
