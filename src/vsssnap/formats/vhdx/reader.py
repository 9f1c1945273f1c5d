"""Reading a VHDX image: fixed, dynamic and differencing.

Source: [MS-VHDX] 2.5.1.1.  NOT_PRESENT is the parent's content in a differencing disk and zeros
else; ZERO is zeros.  UNDEFINED and UNMAPPED have no promised content: they read as zeros, never
as what the parent or the file may still hold there, and are a HOLE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from vsssnap.blocks.extent import Extent, ExtentKind, shift
from vsssnap.errors import DeviceReadError
from vsssnap.formats._layers import LayeredReader, close_in_turn
from vsssnap.formats._parents import find_parent
from vsssnap.formats._zero import fill_zero
from vsssnap.formats.base import Depth, Finding
from vsssnap.formats.vhdx.cut import is_cut
from vsssnap.formats.vhdx.tables import LOST, NOTHING, PARENT, ZEROS, Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vsssnap.formats.base import ResolveParent
    from vsssnap.formats.vhdx.layout import Layout
    from vsssnap.formats.vhdx.locator import Locator

_KINDS = {ZEROS: ExtentKind.ZERO, NOTHING: ExtentKind.HOLE, LOST: ExtentKind.UNREADABLE}


class VhdxReader(LayeredReader):
    """A VHDX image; owns its storage.

    Attributes:
        layout: The head of its file.
        tables: What lies where in it.
    """

    format = "vhdx"
    plain = True

    def __init__(self, layout: Layout, *, recover: bool = False) -> None:
        """Take over a file whose head was read; ``recover``: it may be shorter than its tables say."""
        super().__init__(layout.geometry.size, sector_size=layout.geometry.sector_size)
        self.layout = layout
        self._storage = layout.storage
        self.path = layout.storage.name
        self.tables = Tables(layout, recover=recover)
        self.caches = (self.tables.cache,)

    def _own(self, offset: int, end: int) -> Iterator[tuple[int, int, tuple[int, int] | None]]:
        for piece in self.tables.pieces(offset, end - offset):
            place = None if piece.where == PARENT else (piece.where, piece.offset)
            yield piece.offset, piece.offset + piece.length, place

    def _fetch(self, view: memoryview, first: int, place: tuple[int, int]) -> None:
        where, start = place
        if where >= 0:
            self._storage.preadinto(view, where + first - start)
        elif where == LOST:
            raise self._lost(first, len(view))
        else:
            fill_zero(view)

    def _load(self, length: int, first: int, place: tuple[int, int]) -> bytes:
        where, start = place
        if where == LOST:
            raise self._lost(first, length)
        return self._storage.pread(length, where + first - start) if where >= 0 else bytes(length)

    def _lost(self, offset: int, length: int) -> DeviceReadError:
        return DeviceReadError(
            f"{self.name}: bytes {offset} to {offset + length} of the disk lie behind the file's end,"
            f" {self._storage.size} bytes",
            offset=offset,
            length=length,
            hint="the image was cut short; what is left can be saved with on_read_error=OnReadError.MARK",
        )

    def _tell(self, first: int, stop: int, place: tuple[int, int]) -> Iterator[Extent]:
        where, start = place
        if where >= 0:
            yield from shift(self._storage.extents(where + first - start, stop - first), start - where)
        else:
            yield Extent(first, stop - first, _KINDS[where])

    def _release(self) -> None:
        self._storage.close()
        close_in_turn(self.parent)

    @property
    def name(self) -> str:
        """Of the file, for messages."""
        return self.path or self._storage.name

    @property
    def data_write_id(self) -> UUID:
        """What a child records of this image: it changes with every change of the content."""
        return UUID(bytes_le=self.layout.header.data_write_guid)

    def info(self) -> Mapping[str, Any]:
        """See `ImageReader`."""
        layout, geometry = self.layout, self.layout.geometry
        kind = "differencing" if geometry.has_parent else "fixed" if layout.fixed else "dynamic"
        return {
            "stored_size": self._storage.size,
            "complete": layout.complete and not is_cut(layout),
            "identity": self.data_write_id.hex,
            "parents": self._parents(),
            "features": [kind, *(["log"] if layout.log != "empty" else [])],
            "type": kind,
            "block_size": geometry.block_size,
            "logical_sector_size": geometry.sector_size,
            "physical_sector_size": layout.physical_sector,
            "disk_id": str(layout.disk_id),
            "creator": layout.creator,
            "log": layout.log,
        }

    def _parents(self) -> list[str]:
        if isinstance(self.parent, VhdxReader):
            return [self.parent.name]
        return list(self.layout.locator.candidates()[:1]) if self.layout.locator is not None else []

    def depths(self) -> tuple[Depth, ...]:
        """A VHDX has no checksums of its payload."""
        return (Depth.STRUCTURE,)

    def verify(self, depth: Depth, progress: Callable[[int], None]) -> Iterator[Finding]:
        """See `ImageReader`."""
        from vsssnap.formats.vhdx.checking import check

        return check(self.layout, self.tables, progress)


def open_parent(layout: Layout, locator: Locator, resolve: ResolveParent | None) -> VhdxReader:
    """Find the parent of a differencing disk; the first file that has its GUID is it.

    Raises:
        ParentMismatchError: what is there is another image, or nothing can be opened from here.
        ImageNotFoundError: nothing is there.
    """
    wanted = " or ".join(sorted(map(str, locator.linkage)))

    def problem(found: VhdxReader) -> str:
        if found.data_write_id not in locator.linkage:
            return f"it has the content {found.data_write_id}"
        if found.sector_size != layout.geometry.sector_size:
            return f"it has sectors of {found.sector_size} bytes, its child of {layout.geometry.sector_size}"
        return ""

    return find_parent(
        resolve, locator.candidates(), VhdxReader, problem, layout.storage.name, f"the content {wanted}"
    )
