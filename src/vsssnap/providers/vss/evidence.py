"""What Windows noted when it lost a shadow copy: the events of its driver, volsnap."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from vsssnap._win32 import event_log
from vsssnap._win32.handles import WindowsCallError
from vsssnap.errors import VssSnapError

if TYPE_CHECKING:
    from datetime import datetime

    from vsssnap._win32.dll import System

__all__ = ["driver_events"]

_log = logging.getLogger("vsssnap.vss")

_MOST = 5  # events
_LONGEST = 500  # characters of what an event is about
_SPACE: Final = "{http://schemas.microsoft.com/win/2004/08/events/event}"

# What the messages of these events say, in short; the log itself has only what they are about.
_MEANINGS: Final = {
    16: "shadow copies ended: the volume of their storage was dismounted by force",
    24: "the disk had no room for shadow storage to grow",
    25: "shadow copies ended: their storage did not grow in time for what was written",
    27: "shadow copies ended: a control file could not be opened",
    33: "the oldest shadow copy was deleted to keep shadow storage below its limit",
    35: "shadow copies ended: their storage could not grow",
    36: "shadow copies ended: their storage had reached its limit",
}


def driver_events(system: System, since: datetime) -> list[str]:
    """The last events of volsnap in the System log, the newest first; none if they cannot be read.

    Args:
        system: The libraries.
        since: Older ones are not about the shadow copy; in UTC.
    """
    # Windows has given the source two names; the old one is still the event's source.
    query = (
        "*[System[Provider[@Name='volsnap' or @EventSourceName='volsnap'] and "
        f"TimeCreated[@SystemTime>='{since:%Y-%m-%dT%H:%M:%S}.000Z']]]"
    )
    try:
        events = event_log.newest(system, "System", query, _MOST)
    except (WindowsCallError, VssSnapError) as exc:
        _log.info("the System event log cannot be read: %s", exc)
        return []
    return [text for text in map(_sentence, events) if text]


def _sentence(event: str) -> str:
    try:
        root = ET.fromstring(event)  # noqa: S314 - Windows made it, and bounded it
        number = int(root.findtext(f"{_SPACE}System/{_SPACE}EventID", ""))
    except (ET.ParseError, ValueError) as exc:
        _log.info("an event cannot be read: %s", exc)
        return ""
    created = root.find(f"{_SPACE}System/{_SPACE}TimeCreated")
    when = "" if created is None else f" at {created.get('SystemTime', '')}"
    about = ", ".join(
        data.text
        for data in root.iterfind(f"{_SPACE}EventData/{_SPACE}Data")
        if data.text and data.text.strip()
    )
    meaning = f": {_MEANINGS[number]}" if number in _MEANINGS else ""
    return f"event {number} of volsnap{when}{meaning}" + (f" ({about[:_LONGEST]})" if about else "")
