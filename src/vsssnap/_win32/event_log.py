"""The newest events of an event log.

Sources: "Querying for Events" (a channel, an XPath expression, the order), EvtNext, "Rendering Events"
(an event as XML); Windows SDK documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsssnap._win32._ffi import ffi
from vsssnap._win32.blocking import answered
from vsssnap._win32.com import wide
from vsssnap._win32.constants import (
    EvtQueryChannelPath,
    EvtQueryReverseDirection,
    EvtRenderEventXml,
    Win32Error,
)
from vsssnap._win32.handles import WindowsCallError, last

if TYPE_CHECKING:
    from vsssnap._win32.dll import System

_PATIENCE = 5.0  # seconds for all of it
_NEXT = 1000  # milliseconds for some events
_ROOM = 64 << 10  # bytes of one event; one that is longer is left out


def newest(system: System, channel: str, query: str, count: int) -> list[str]:
    """Events as XML, the newest first.

    Args:
        system: The libraries.
        channel: The log, ``"System"``.
        query: Which of its events, in XPath 1.0 as far as the event log knows it.
        count: How many at most.

    Raises:
        WindowsCallError: the log cannot be read, or not within five seconds.
        ProviderUnavailableError: this Windows has no such library.
    """
    system.wevtapi  # noqa: B018 - a library that is not there is told in the caller's thread
    found, _ = answered(system, "EvtQuery", lambda: _read(system, channel, query, count), seconds=_PATIENCE)
    if isinstance(found, WindowsCallError):
        raise found
    return found


def _read(system: System, channel: str, query: str, count: int) -> list[str] | WindowsCallError:
    """In a thread of its own, which may not raise."""
    wevtapi = system.wevtapi
    flags = EvtQueryChannelPath | EvtQueryReverseDirection
    result = wevtapi.EvtQuery(ffi.NULL, wide(channel), wide(query), flags)
    if not result:
        return last(system, f"EvtQuery({channel})")
    events, returned = ffi.new("HANDLE[]", count), ffi.new("DWORD *")
    room, used, properties = ffi.new("char[]", _ROOM), ffi.new("DWORD *"), ffi.new("DWORD *")
    found: list[str] = []
    try:
        while len(found) < count:
            if not wevtapi.EvtNext(result, count - len(found), events, _NEXT, 0, returned):
                failure = last(system, "EvtNext")
                return found if found or failure.code == Win32Error.ERROR_NO_MORE_ITEMS else failure
            for event in events[0 : min(returned[0], count)]:
                if wevtapi.EvtRender(ffi.NULL, event, EvtRenderEventXml, _ROOM, room, used, properties):
                    raw = bytes(ffi.buffer(room, min(used[0], _ROOM) & ~1))
                    found.append(raw.decode("utf-16-le", "replace").rstrip("\0"))
                wevtapi.EvtClose(event)
            if not returned[0]:
                break
        return found
    finally:
        wevtapi.EvtClose(result)
