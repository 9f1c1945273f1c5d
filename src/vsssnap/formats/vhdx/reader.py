"""Reading a VHDX image: fixed, dynamic and differencing.

Source: [MS-VHDX] 2.5.1.1.  NOT_PRESENT is the parent's content in a differencing disk and zeros
else; ZERO is zeros.  UNDEFINED and UNMAPPED have no promised content: they read as zeros, never
as what the parent or the file may still hold there, and are a HOLE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from vsssnap.blocks.extent import Extent, ExtentKind, coalesce, shift
from vsssnap.errors import ImageNotFoundError, ParentMismatchError
from vsssnap.formats.base import Depth, Finding, ImageReader
from vsssnap.formats.vhdx.overlay import fill_zero
from vsssnap.formats.vhdx.tables import NOTHING, PARENT, ZEROS, Tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vsssnap.formats.base import ResolveParent
    from vsssnap.formats.vhdx.layout import Layout
    from vsssnap.formats.vhdx.locator import Locator

_KINDS = {ZEROS: ExtentKind.ZERO, NOTHING: ExtentKind.HOLE}


class VhdxReader(ImageReader):
    """A VHDX image; owns its storage and its parent.

    Attributes:
        layout: The head of its file.
        parent: What a differencing disk shows where it holds nothing, or None.
    """

    format = "vhdx"
    plain = True

    def __init__(self, layout: Layout, parent: VhdxReader | None) -> None:
        """Take over a file whose head was read, and its parent."""
        super().__init__(layout.geometry.size, sector_size=layout.geometry.sector_size)
        self.layout = layout
        self.parent = parent
        self._storage = layout.storage
        self.tables = Tables(layout)

    def _read_into(self, view: memoryview, offset: int) -> None:
        for piece in self.tables.pieces(offset, len(view)):
            part = view[piece.offset - offset : piece.offset - offset + piece.length]
            if piece.where >= 0:
                self._storage.preadinto(part, piece.where)
            elif piece.where == PARENT:
                # A child may have been made longer than its parent.
                fill_zero(part[self._parent().preadinto(part, piece.offset) :])
            else:
                fill_zero(part)

    def _extents(self, offset: int, length: int) -> Iterator[Extent]:
        return coalesce(self._known(offset, length))

    def _known(self, offset: int, length: int) -> Iterator[Extent]:
        for piece in self.tables.pieces(offset, length):
            if piece.where >= 0:
                found = self._storage.extents(piece.where, piece.length)
                yield from shift(found, piece.offset - piece.where)
            elif piece.where == PARENT:
                there = max(0, min(piece.length, self._parent().size - piece.offset))
                yield from self._parent().extents(piece.offset, there)
                yield Extent(piece.offset + there, piece.length - there, ExtentKind.ZERO)
            else:
                yield Extent(piece.offset, piece.length, _KINDS[piece.where])

    def _parent(self) -> VhdxReader:
        assert self.parent is not None  # noqa: S101 - `open_parent` is asked before a child is made
        return self.parent

    def _release(self) -> None:
        try:
            if self.parent is not None:
                self.parent.close()
        finally:
            self._storage.close()

    @property
    def origins(self) -> tuple[str, ...]:
        """The image's file and those of its parents."""
        return (*super().origins, *(self.parent.origins if self.parent is not None else ()))

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
            "complete": layout.complete,
            "identity": self.data_write_id.hex,
            "parents": [self.parent.name] if self.parent is not None else [],
            "features": [kind, *(["log"] if layout.log != "empty" else [])],
            "type": kind,
            "block_size": geometry.block_size,
            "logical_sector_size": geometry.sector_size,
            "physical_sector_size": layout.physical_sector,
            "disk_id": str(layout.disk_id),
            "creator": layout.creator,
            "log": layout.log,
        }

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
    name = layout.storage.name
    wanted = " or ".join(sorted(map(str, locator.linkage)))
    if resolve is None:
        raise ParentMismatchError(
            f"{name} needs its parent {wanted} and there is no way to open it",
            path=name,
            hint="open the image by its path",
        )
    candidates = locator.candidates()
    mismatch: ParentMismatchError | None = None
    for candidate in candidates:
        try:
            found = resolve((candidate,), format="vhdx")
        except ImageNotFoundError as exc:
            if exc.path not in ("", name):
                raise  # it is there, and its own parent is not
            continue
        problem = _mismatch(found, layout, locator)
        if not problem:
            assert isinstance(found, VhdxReader)  # noqa: S101 - `_mismatch` says so
            return found
        mismatch = mismatch or ParentMismatchError(
            f"{name}: {found.path or candidate} {problem}",
            path=name,
            hint="put the parent back as it was when this image was made; it must not be written since",
        )
        found.close()
    if mismatch is not None:
        raise mismatch
    other = resolve(candidates, format="vhdx")  # raises, and names all that was tried
    other.close()
    raise ParentMismatchError(f"{name}: its parent {wanted} appeared while it was opened", path=name)


def _mismatch(found: ImageReader, layout: Layout, locator: Locator) -> str:
    if not isinstance(found, VhdxReader):
        return f"is a {found.format} image"
    if found.data_write_id not in locator.linkage:
        wanted = " or ".join(sorted(map(str, locator.linkage)))
        return f"has the content {found.data_write_id}, its child was made against {wanted}"
    if found.sector_size != layout.geometry.sector_size:
        return f"has sectors of {found.sector_size} bytes, its child of {layout.geometry.sector_size}"
    return ""
