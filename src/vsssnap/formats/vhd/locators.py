"""Parent locators: how a differencing image says where its parent lies.

Source: "Virtual Hard Disk Image Format Specification" 1.0, "Parent Locator".  Windows writes two
texts in UTF-16LE: ``W2ku``, the absolute path, and ``W2ru``, the path from the child's folder,
with backslashes on every system.  Others (Macintosh aliases, ``file:`` addresses) are passed over.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from vsssnap._units import round_up
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats.vhd.structs import ABSOLUTE, LOCATORS, RELATIVE, SECTOR, Header, Locator

if TYPE_CHECKING:
    from vsssnap.formats.storage import Storage

_LONGEST: Final = 64 << 10  # bytes of a text; Windows paths end at 32767 characters
_NAME: Final = 512  # bytes of the name in the header


def texts(header: Header, storage: Storage) -> dict[bytes, str]:
    """The texts of the locators by platform code, those that can be read; no text is trusted."""
    found: dict[bytes, str] = {}
    for number in range(LOCATORS):
        locator = Locator.unpack(header.locators, number * Locator.SIZE)
        if locator.platform not in (RELATIVE, ABSOLUTE) or locator.platform in found:
            continue
        if not 0 < locator.data_length <= _LONGEST:
            continue
        try:
            data = storage.pread(locator.data_length, locator.data_offset)
        except (CorruptImageError, DeviceReadError):
            continue  # the other one may do
        text = data[: len(data) & ~1].decode("utf-16-le", "surrogatepass").partition("\0")[0]
        if text:
            found[locator.platform] = text
    return found


def parent_name(header: Header) -> str:
    """The parent's name as the header tells it; a path or only a file name, by who wrote it."""
    return header.parent_name.decode("utf-16-be", "surrogatepass").partition("\0")[0]


def encode(parent: str, child: str, offset: int) -> tuple[bytes, bytes, bytes]:
    """What a child says of its parent's place.

    Args:
        parent: Path of the parent's file, or "".
        child: Path of the child's file, or "".
        offset: Where the texts will lie in the child, bytes; a multiple of a sector.

    Returns:
        The header's ``parent_name`` and ``locators``, and the texts, whole sectors.
    """
    if not parent:
        return bytes(_NAME), bytes(LOCATORS * Locator.SIZE), b""
    absolute = os.path.abspath(parent)
    places = {ABSOLUTE: absolute}
    try:
        relative = os.path.relpath(absolute, os.path.dirname(os.path.abspath(child)) if child else None)
    except ValueError:  # Windows: on another drive
        pass
    else:
        # A backslash in a name of another system stays one; the absolute path finds it then.
        backward = relative.replace(os.sep, "\\")
        places[RELATIVE] = backward if backward.startswith("..\\") else f".\\{backward}"
    records, blob = b"", b""
    for platform, text in places.items():
        data = text.encode("utf-16-le", "surrogatepass")
        if len(data) > _LONGEST:
            continue
        room = round_up(len(data), SECTOR)
        records += Locator(platform, room, len(data), 0, offset + len(blob)).pack()
        blob += data.ljust(room, b"\0")
    name = absolute.encode("utf-16-be", "surrogatepass")
    if len(name) > _NAME - 2:
        name = os.path.basename(absolute).encode("utf-16-be", "surrogatepass")[: _NAME - 2]
    return name.ljust(_NAME, b"\0"), records.ljust(LOCATORS * Locator.SIZE, b"\0"), blob
