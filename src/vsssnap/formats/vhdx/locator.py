"""The parent locator: where a child's parent may be, and how it is recognised.

Source: [MS-VHDX] 2.6.2.6.  A parent is recognised by its DataWriteGuid, which the child keeps as
``parent_linkage`` (and, while a merge is under way, the coming one as ``parent_linkage2``).
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from vsssnap.errors import CorruptImageError, UnsupportedFeatureError
from vsssnap.formats.vhdx.structs import VHDX_LOCATOR, LocatorEntry, LocatorHeader

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATHS: Final = ("relative_path", "volume_path", "absolute_win32_path")  # in the order they are tried
_NONE: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Locator:
    """What a child says of its parent.

    Attributes:
        entries: Keys and values as they are.
        linkage: The DataWriteGuids that the parent may have.
    """

    entries: Mapping[str, str]
    linkage: frozenset[UUID]

    def candidates(self) -> tuple[str, ...]:
        """Paths to try, in the order of 2.6.2.6.3, and last the bare name beside the child.

        A dot that stands for the child's folder is left out: along a chain the dots would add up.
        Away from Windows the separators are turned, and what only Windows can resolve (drives,
        volumes) is left to the bare name: what is found there is told by its GUID.
        """
        found = []
        for key in _PATHS:
            value = self.entries.get(key, "")
            if not value:
                continue
            if sys.platform == "win32":
                found.append(value.removeprefix(".\\"))
            elif key == "relative_path" or not re.match(r"\\\\|[A-Za-z]:", value):
                found.append(value.replace("\\", "/").removeprefix("./"))
        values = [self.entries[key] for key in _PATHS if self.entries.get(key)]
        found += [re.split(r"[\\/]", value)[-1] for value in values]
        return tuple(dict.fromkeys(path for path in found if path))


def parse(item: bytes) -> Locator:
    """Read a parent locator item.

    Raises:
        CorruptImageError: it breaks a rule of the specification.
        UnsupportedFeatureError: the parent is no VHDX.
    """
    header = LocatorHeader.unpack(item)
    kind = UUID(bytes_le=header.kind)
    if kind != VHDX_LOCATOR:
        raise UnsupportedFeatureError(
            f"its parent locator is of the unknown type {kind}", feature=f"parent locator {kind}"
        )
    entries: dict[str, str] = {}
    for number in range(header.count):
        entry = LocatorEntry.unpack(item, LocatorHeader.SIZE + number * LocatorEntry.SIZE)
        key = _text(item, entry.key_offset, entry.key_length)
        if key in entries:
            raise _broken(f"key {key!r} is there twice")
        entries[key] = _text(item, entry.value_offset, entry.value_length)
    linkage = {_guid(key, entries[key]) for key in ("parent_linkage", "parent_linkage2") if key in entries}
    linkage.discard(_NONE)  # Windows writes a parent_linkage2 of zeros that stands for nothing
    if "parent_linkage" not in entries or not linkage:
        raise _broken("it has no parent_linkage")
    return Locator(entries, frozenset(linkage))


def _text(item: bytes, offset: int, length: int) -> str:
    if not offset or not length or length % 2 or offset + length > len(item):
        raise _broken(f"a text of {length} bytes at {offset} in an item of {len(item)}")
    # Names of files on Windows may hold half surrogate pairs.
    return item[offset : offset + length].decode("utf-16-le", "surrogatepass")


def _guid(key: str, text: str) -> UUID:
    if not re.fullmatch(r"\{[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}", text):
        raise _broken(f"{key} is {text[:64]!r}, no GUID")
    return UUID(text)


def _broken(message: str) -> CorruptImageError:
    return CorruptImageError(f"parent locator: {message}", structure="parent locator")


def build(parent: UUID, paths: Mapping[str, str]) -> bytes:
    """The item of a new child.

    Args:
        parent: The parent's DataWriteGuid.
        paths: By key, as `paths_to` gives them.
    """
    entries = {"parent_linkage": f"{{{parent}}}", **paths}
    texts = [text.encode("utf-16-le", "surrogatepass") for pair in entries.items() for text in pair]
    at = LocatorHeader.SIZE + len(entries) * LocatorEntry.SIZE
    parts = [LocatorHeader(VHDX_LOCATOR.bytes_le, 0, len(entries)).pack()]
    for key, value in zip(texts[::2], texts[1::2], strict=True):
        parts.append(LocatorEntry(at, at + len(key), len(key), len(value)).pack())
        at += len(key) + len(value)
    return b"".join(parts + texts)


def paths_to(parent: str, child: str) -> dict[str, str]:
    r"""Where ``parent`` is, for `build`: from the child's folder, and on Windows from its drive.

    Args:
        parent: Path of the parent's file.
        child: Path of the child's file.
    """
    found = {}
    try:
        relative = os.path.relpath(parent, os.path.dirname(os.path.abspath(child)))
    except ValueError:  # another drive of Windows
        relative = ""
    if relative:
        inside = relative if relative.startswith(os.pardir + os.sep) else os.path.join(os.curdir, relative)
        found["relative_path"] = inside.replace(os.sep, "\\")
    if sys.platform == "win32":
        full = os.path.abspath(parent)
        if not full.startswith("\\\\?\\"):
            full = "\\\\?\\UNC" + full[1:] if full.startswith("\\\\") else "\\\\?\\" + full
        found["absolute_win32_path"] = full
    return found
