"""Whether $LogFile was closed: else its changes are not yet in the structures that it guards.

The log begins with two restart pages, written in turn; the one with the higher sequence number
counts.  It names the log's clients, of which NTFS is the only one, and says whether the volume was
closed.  A log that was reset by a driver that does not use it is filled with 0xFF.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._units import is_power_of_two
from vsssnap.errors import CorruptImageError
from vsssnap.volumes.ntfs.geometry import fixed
from vsssnap.volumes.ntfs.structs import STRIDE, RestartArea, RestartPage

if TYPE_CHECKING:
    from vsssnap.volumes.ntfs.stream import Stream

_NO_CLIENT = 0xFFFF
_CLOSED = 2
_PAGE_SIZES = (4096, 512, 1024, 2048, 8192, 16384, 32768, 65536)


def is_reset(log: Stream) -> bool:
    """Whether a driver emptied it that keeps none: then it does not tell whether that still runs."""
    head = log.read(0, min(log.size, 4096))
    return bool(head) and not head.strip(b"\xff")


def why_open(log: Stream) -> str:
    """Why changes may be missing outside of the log, or "" if it was closed."""
    if is_reset(log):
        return ""
    head = log.read(0, 4)
    if head[:4] == b"CHKD":
        return "$LogFile was taken over by chkdsk"
    areas = [area for place in (0, *_PAGE_SIZES) if (area := _restart(log, place)) is not None]
    if not areas:
        return "$LogFile has no restart page"
    latest = max(areas, key=lambda area: area.current_lsn)
    if latest.client_in_use_list == _NO_CLIENT or latest.flags & _CLOSED:
        return ""
    return "$LogFile is open: the volume was in use, and its last changes may be in the log alone"


def _restart(log: Stream, place: int) -> RestartArea | None:
    """The restart area of a page, or None if there is no good one."""
    head = log.read(place, STRIDE)
    if head[:4] != b"RSTR":
        return None
    page = RestartPage.unpack(head)
    if not (is_power_of_two(page.system_page_size) and STRIDE <= page.system_page_size <= 1 << 16):
        return None
    if place and place != page.system_page_size:
        return None
    try:
        whole = log.read(place, page.system_page_size)
        return RestartArea.unpack(
            fixed(whole, b"RSTR", page.usa_offset, page.usa_count, place), page.restart_offset
        )
    except CorruptImageError:
        return None
