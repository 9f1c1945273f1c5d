"""Reading VMDK images."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Final

from vsssnap._units import MIB
from vsssnap.blocks.extent import Extent, ExtentKind, shift
from vsssnap.errors import CorruptImageError, DeviceReadError
from vsssnap.formats._cache import ByteCache
from vsssnap.formats._layers import LayeredReader, close_in_turn
from vsssnap.formats._zero import fill_zero
from vsssnap.formats.base import Depth, Finding
from vsssnap.formats.vmdk.backing import SparseBacking
from vsssnap.formats.vmdk.structs import NO_PARENT
from vsssnap.formats.vmdk.tables import ABSENT, BEYOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vmdk.backing import Backing
    from vsssnap.formats.vmdk.opening import Opened

_TABLES: Final = 8 * MIB  # bytes of tables that are kept: those of 128 GiB in common images
_GRAINS: Final = 8 * MIB  # bytes of decoded grains that are kept

Piece = tuple[int, int, tuple[int, "Backing", int] | None]
"""A range of the volume, from and to: its place (see `Tables.places`), its extent, and where that begins."""


class VmdkReader(LayeredReader):
    """A VMDK image with its extents and parents; any number of threads at once.

    Attributes:
        disk: What was opened.
    """

    format: ClassVar[str] = "vmdk"

    def __init__(self, storage: Storage, disk: Opened, *, recover: bool = False) -> None:
        """Own ``storage`` and the files of ``disk``.

        With ``recover`` what the image has lost is UNREADABLE, else it is damage when it is met.
        """
        self._starts: list[int] = []
        size = 0
        for backing in disk.backings:
            self._starts.append(size)
            size += backing.size
        super().__init__(size)
        self.disk = disk
        self.path = storage.name
        self._storage = storage
        self._recover = recover
        self.caches = (ByteCache(_TABLES), ByteCache(_GRAINS))
        for backing in disk.backings:
            for own, shared in zip(backing.caches, self.caches, strict=False):
                own.join(shared)
        self.plain = not any(backing.compressed for backing in disk.backings)

    @property
    def cid(self) -> int:
        """The content id by which a child knows it; NO_PARENT if it has none."""
        return self.disk.descriptor.cid if self.disk.descriptor is not None else NO_PARENT

    def _paths(self) -> tuple[str, ...]:
        own = (self.path, *(b.source.name for b in self.disk.backings if b.source is not None))
        return tuple(path for path in own if path)

    # Reading.

    def _own(self, offset: int, end: int) -> Iterator[Piece]:
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            backing, start = self.disk.backings[number], self._starts[number]
            stop = min(end, start + backing.size)
            for first, last, place in backing.places(offset - start, stop - start):
                if place == BEYOND and not self._recover:
                    raise self._damaged(backing, start + first)
                yield start + first, start + last, None if place == ABSENT else (place, backing, start)
            offset = stop
            number += 1

    def _fetch(self, view: memoryview, first: int, place: tuple[int, Backing, int]) -> None:
        at, backing, start = place
        if at >= 0:
            backing.fill(view, first - start, at)
        elif at == BEYOND:
            raise self._unread(first, first + len(view))
        else:
            fill_zero(view)

    def _tell(self, first: int, stop: int, place: tuple[int, Backing, int]) -> Iterator[Extent]:
        at, backing, start = place
        if at >= 0:
            yield from shift(backing.known(first - start, stop - start, at), start)
        else:
            kind = ExtentKind.UNREADABLE if at == BEYOND else ExtentKind.ZERO
            yield Extent(first, stop - first, kind)

    def _unread(self, first: int, end: int) -> DeviceReadError:
        return DeviceReadError(
            f"{self.path}: bytes {first} to {end} of the volume are lost: the image is cut short or damaged",
            offset=first,
            length=end - first,
            hint="what is left can be saved with on_read_error=OnReadError.MARK",
        )

    def _damaged(self, backing: Backing, at: int) -> CorruptImageError:
        name = backing.source.name if backing.source is not None else self.path
        return CorruptImageError(
            f"{name}: the place of byte {at} of the volume is not in the file: it is cut short or damaged",
            path=name,
            structure="grain table",
            hint="open it with recover=True to read what is left",
        )

    # Facts.

    def info(self) -> Mapping[str, Any]:
        """See `ImageReader`."""
        descriptor = self.disk.descriptor
        backings = self.disk.backings
        first = next((backing for backing in backings if isinstance(backing, SparseBacking)), None)
        files = {id(b.source): b.source.size for b in backings if b.source is not None}
        own = any(b.source is not None and b.source.name == self.path for b in backings)
        return {
            "stored_size": sum(files.values()) + (0 if own else self._storage.size),
            "complete": self.disk.complete and not any(backing.is_cut() for backing in backings),
            "identity": f"{self.cid:08x}",
            "parents": self._parents(),
            "features": [] if self.plain else ["compressed"],
            "kind": descriptor.kind if descriptor is not None else "part",
            "size": self.size,
            "grain_size": first.tables.grain if first is not None else None,
            "extents": [
                {
                    "kind": backing.kind,
                    "size": backing.size,
                    "path": backing.source.name if backing.source is not None else "",
                }
                for backing in backings[:1000]
            ],
            "database": dict(descriptor.database) if descriptor is not None else {},
            "damage": [
                f"{found.structure}: {found.message}" for backing in backings for found in backing.damage
            ],
        }

    def _parents(self) -> list[dict[str, Any]]:
        descriptor = self.disk.descriptor
        if descriptor is None or descriptor.parent_cid == NO_PARENT:
            return []
        return [
            {
                "identity": f"{descriptor.parent_cid:08x}",
                "name": descriptor.hint,
                "path": self.parent.path if self.parent is not None else "",
            }
        ]

    def depths(self) -> tuple[Depth, ...]:
        """Compressed grains have checksums of their own."""
        return (Depth.STRUCTURE,) if self.plain else (Depth.STRUCTURE, Depth.CONTENT)

    def verify(self, depth: Depth, progress: Callable[[int], None]) -> Iterator[Finding]:
        """See `ImageReader`: headers and tables, and in a stream each grain; not the parents."""
        for start, backing in zip(self._starts, self.disk.backings, strict=True):
            found = chain(backing.damage, backing.check(progress))
            if depth >= Depth.CONTENT:
                found = chain(found, backing.check_content(progress))
            for finding in found:
                extent = finding.extent
                placed = None if extent is None else Extent(extent.offset + start, extent.length)
                yield replace(finding, extent=placed)

    def _release(self) -> None:
        for backing in self.disk.backings:
            backing.close()
        self._storage.close()
        close_in_turn(self.parent)
