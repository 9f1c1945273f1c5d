"""The event log of a fake machine."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from vsssnap._win32._ffi import ffi
from vsssnap._win32.constants import (
    EvtQueryChannelPath,
    EvtQueryReverseDirection,
    EvtRenderEventXml,
    Win32Error,
)

if TYPE_CHECKING:
    from vsssnap.testing.fake_vss.machine import Machine

CData = Any

_INVALID_QUERY = 15001  # ERROR_EVT_INVALID_QUERY
_NO_CHANNEL = 15007  # ERROR_EVT_CHANNEL_NOT_FOUND
_QUERY = re.compile(
    r"\*\[System\[Provider\[@Name='(?P<name>\w+)' or @EventSourceName='(?P<source>\w+)'\]"
    r" and TimeCreated\[@SystemTime>='(?P<since>[-\d]+T[:\d]+\.\d{3}Z)'\]\]\]"
)


@dataclass(frozen=True, slots=True)
class FakeEvent:
    """An event of the System log.

    Attributes:
        number: Its id.
        data: What it is about.
        created: When.
        provider: Who has noted it.
        source: The name that its provider had in older versions, or "".
    """

    number: int
    data: tuple[str, ...] = ()
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    provider: str = "Volsnap"
    source: str = "volsnap"

    @property
    def xml(self) -> str:
        """As Windows renders it."""
        source = f" EventSourceName={quoteattr(self.source)}" if self.source else ""
        data = "".join(f"<Data>{escape(text)}</Data>" for text in self.data)
        return (
            "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System>"
            f"<Provider Name={quoteattr(self.provider)}{source}/>"
            f"<EventID Qualifiers='49158'>{self.number}</EventID>"
            f"<TimeCreated SystemTime='{self.created:%Y-%m-%dT%H:%M:%S.%f}Z'/><Channel>System</Channel>"
            f"</System><EventData>{data}<Binary>0000</Binary></EventData></Event>"
        )


class EventLog:
    """The part of wevtapi that reads a log; queries are of one provider, since an instant."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def EvtQuery(self, session: CData, path: CData, query: CData, flags: int) -> CData:
        """The events of a channel that a query is for."""
        machine = self._machine
        wanted = _QUERY.fullmatch(str(ffi.string(query)))
        code = machine.faults.code("EvtQuery", "call")
        if code is None and (session or str(ffi.string(path)) != "System"):
            code = _NO_CHANNEL
        if code is None and (wanted is None or not flags & EvtQueryChannelPath):
            code = _INVALID_QUERY
        if code is not None or wanted is None:
            machine.set_error(code or _INVALID_QUERY)
            return ffi.NULL
        since = datetime.fromisoformat(wanted["since"])
        found = [
            event
            for event in machine.events
            if (event.provider == wanted["name"] or event.source == wanted["source"])
            and event.created >= since
        ]
        found.sort(key=lambda event: event.created, reverse=bool(flags & EvtQueryReverseDirection))
        return machine.handle("events", iter(found))

    def EvtNext(
        self, result: CData, size: int, events: CData, timeout: int, flags: int, returned: CData
    ) -> int:
        """Some more of them."""
        del timeout, flags
        machine, found = self._machine, self._machine.opened(result, "events")
        code = machine.faults.code("EvtNext", "call")
        if code is not None or not isinstance(found, Iterator):
            return machine.refuse(code or Win32Error.ERROR_INVALID_HANDLE)
        some = list(itertools.islice(found, min(size, 2)))  # the log may give fewer than there is room for
        for place, event in enumerate(some):
            events[place] = machine.handle("event of a log", event)
        returned[0] = len(some)
        return 1 if some else machine.refuse(Win32Error.ERROR_NO_MORE_ITEMS)

    def EvtRender(
        self,
        context: CData,
        event: CData,
        flags: int,
        size: int,
        buffer: CData,
        used: CData,
        properties: CData,
    ) -> int:
        """An event as XML; its length counts the zero at its end."""
        machine, found = self._machine, self._machine.opened(event, "event of a log")
        if not isinstance(found, FakeEvent) or context or flags != EvtRenderEventXml:
            return machine.refuse(Win32Error.ERROR_INVALID_PARAMETER)
        raw = f"{found.xml}\0".encode("utf-16-le")
        used[0], properties[0] = len(raw), 0
        if len(raw) > size:
            return machine.refuse(Win32Error.ERROR_INSUFFICIENT_BUFFER)
        ffi.memmove(buffer, raw, len(raw))
        return 1

    def EvtClose(self, handle: CData) -> int:
        """A query or an event."""
        return self._machine.close_handle(handle, "events", "event of a log")
