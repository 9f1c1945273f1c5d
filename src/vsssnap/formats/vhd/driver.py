"""The VHD format as a driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vsssnap._units import whole
from vsssnap.errors import UsageError
from vsssnap.formats._parents import find_parent, spellings
from vsssnap.formats._storages import owning, require_empty
from vsssnap.formats.base import ImageFormat, ImageReader, ImageWriter, Probe, ResolveParent, options_of
from vsssnap.formats.vhd import structs
from vsssnap.formats.vhd.locators import parent_name, texts
from vsssnap.formats.vhd.opening import is_fixed, read_layout
from vsssnap.formats.vhd.options import VhdOptions
from vsssnap.formats.vhd.reader import VhdReader
from vsssnap.formats.vhd.sparse import SparseWriter
from vsssnap.formats.vhd.structs import FOOTER_COOKIE
from vsssnap.formats.vhd.writer import FixedStream, FixedWriter, check_size

if TYPE_CHECKING:
    from vsssnap.formats.storage import Storage
    from vsssnap.formats.vhd.structs import Header


class VhdFormat(ImageFormat):
    """Virtual Hard Disk, by Connectix and Microsoft: docs/formats/vhd.md."""

    name: ClassVar[str] = "vhd"
    suffixes: ClassVar[tuple[str, ...]] = (".vhd", ".avhd")
    options_type: ClassVar[type] = VhdOptions
    features: ClassVar[frozenset[str]] = frozenset({"holes", "parents", "streaming"})

    def probe(self, seen: Probe, /) -> int:
        """By the footer, or by its copy in the first sector.

        Surest of all is a sound footer of a fixed image of just this size: what lies in front of it
        is the volume's, whatever it looks like.
        """
        ends = any(
            seen.tail[-size:].startswith(FOOTER_COOKIE)
            for size in (structs.FOOTER_SIZE, structs.OLD_FOOTER_SIZE)
        )
        if seen.head.startswith(FOOTER_COOKIE):
            return 100 if ends else 90
        if ends:
            return 100 if is_fixed(seen.tail[-structs.FOOTER_SIZE :], seen.size) else 90
        return 10 if seen.name.lower().endswith(self.suffixes) else 0

    def wants_sidecar(self, options: object, /) -> bool:
        """By option."""
        return options_of(VhdOptions, options, self.name).sidecar

    def disk_sector_size(self, options: object, /) -> int:
        """Disks have sectors of 512 bytes."""
        return 512

    def open(
        self, storage: Storage, /, *, resolve_parent: ResolveParent | None = None, recover: bool = False
    ) -> VhdReader:
        """See `ImageFormat`.

        Raises:
            ImageNotFoundError: the parent is not there.
        """
        with owning(storage):
            reader = VhdReader(storage, read_layout(storage, recover=recover))
        header = reader.layout.header
        if header is not None and reader.layout.footer.disk_type == structs.DIFFERENCING:
            reader.link(resolve_parent, lambda: _parent(storage, header, resolve_parent))
        return reader

    def create(
        self, storage: Storage, size: int, /, *, options: object = None, parent: ImageReader | None = None
    ) -> ImageWriter:
        """See `ImageFormat`."""
        with owning(storage):
            return self._begin(storage, whole(size, "size"), options, parent)

    def _begin(self, storage: Storage, size: int, options: object, parent: ImageReader | None) -> ImageWriter:
        chosen = options_of(VhdOptions, options, self.name)
        check_size(size)
        require_empty(storage)
        fixed = chosen.check(seekable=storage.seekable, child=parent is not None)
        if fixed:
            return (FixedWriter if storage.seekable else FixedStream)(storage, size, chosen)
        if parent is not None:
            if not isinstance(parent, VhdReader):
                name = getattr(parent, "format", type(parent).__name__)
                raise UsageError(
                    f"a {name} image cannot be the parent of a vhd image", hint="save a full vhd image first"
                )
            if parent.size != size:
                raise UsageError(
                    f"the volume has {size} bytes, the parent {parent.size}",
                    hint="a differencing VHD has its parent's size; save a full image instead",
                )
        return SparseWriter(storage, size, chosen, parent)


def _parent(storage: Storage, header: Header, resolve: ResolveParent | None) -> VhdReader:
    """The parent of a differencing image: the first file under one of its names that has its identity."""
    located = texts(header, storage)
    name = parent_name(header)
    return find_parent(
        resolve,
        spellings(located.get(structs.RELATIVE, ""), located.get(structs.ABSOLUTE, ""), name),
        VhdReader,
        lambda found: "" if found.identity == header.parent_identity else f"it is {found.identity.hex()}",
        storage.name,
        f"image {header.parent_identity.hex()} ({name or 'no name'})",
    )
