"""From the bytes of a file to the extents of a disk.

Four kinds of files are VMDK: a descriptor alone, which names the files of its extents; a hosted
sparse extent with a descriptor in it, which is a whole disk; one without, a part of a disk; and a
space-efficient sparse extent, always a part.  A part alone is opened only to recover it: it may be
the changes of a child, or the first 2 GiB of a disk, and would look like a whole one.

The files that a descriptor names are looked for in its own folder and nowhere else, and never by
another kind of name than a plain file name: nothing but that name ties them to the disk, and
whoever makes a descriptor could otherwise have any file of the machine read as a disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vsssnap._units import is_power_of_two, round_up
from vsssnap.blocks.extent import Extent
from vsssnap.errors import CorruptImageError, ParentMismatchError, UnsupportedFeatureError
from vsssnap.formats.base import Finding
from vsssnap.formats.vmdk import structs
from vsssnap.formats.vmdk.backing import Backing, FlatBacking, SparseBacking, StreamBacking, ZeroBacking
from vsssnap.formats.vmdk.descriptor import Descriptor, ExtentLine, parse
from vsssnap.formats.vmdk.source import Source
from vsssnap.formats.vmdk.structs import SECTOR, Marker, SeHeader, SeVolatile, SparseHeader
from vsssnap.formats.vmdk.tables import HostedTables, ScannedTables, SeTables, Tables

if TYPE_CHECKING:
    from vsssnap.formats.base import ResolveParent
    from vsssnap.formats.storage import Storage

_MOST_GRAIN: Final = 1 << 24  # bytes; a compressed grain is decoded whole
_MOST_CAPACITY: Final = 1 << 53  # sectors: below what an offset can be in bytes


@dataclass(frozen=True)
class Opened:
    """A disk.

    Attributes:
        descriptor: What it says of itself; None for a part alone.
        backings: Its extents, in order.
        complete: Whether it has a descriptor and its tables; `Backing.is_cut` looks at the rest.
    """

    descriptor: Descriptor | None
    backings: tuple[Backing, ...]
    complete: bool = True


def open_disk(storage: Storage, resolve: ResolveParent | None, *, recover: bool) -> Opened:
    """Open a VMDK, without its parent.

    Raises:
        CorruptImageError: it is none, or damaged.
        UnsupportedFeatureError: it is of a kind that is not known.
        ImageNotFoundError: a file of it is missing.
    """
    source = Source(storage)
    head = source.pread(min(SECTOR, source.size), 0)
    if head.startswith(structs.MAGIC):
        return _hosted(source, recover=recover)
    if head[:8] == structs.SE_MAGIC.to_bytes(8, "little"):
        _alone(source, recover=recover)
        return Opened(None, (_space_efficient(source, None, recover=recover),), complete=False)
    if head.startswith(structs.OLD_MAGIC):
        raise _unsupported(source, "COWD extent", "a sparse extent of ESX 3 (COWD)")
    if source.size > structs.MAX_DESCRIPTOR or not is_descriptor(head):
        raise _broken(source, "header", 0, "neither an extent nor a descriptor begins here")
    descriptor = parse(source.pread(source.size, 0), source.name, 0)
    backings: list[Backing] = []
    try:
        for line in descriptor.extents:
            backings.append(_extent(source, line, resolve, recover=recover))  # noqa: PERF401 - closed below
    except BaseException:
        for backing in backings:
            backing.close()
        raise
    return Opened(descriptor, tuple(backings))


def is_descriptor(head: bytes) -> bool:
    """Whether a file may be a descriptor, by its first bytes."""
    return head.lstrip().lower().startswith(structs.DESCRIPTOR_MARK.lower())


def _extent(source: Source, line: ExtentLine, resolve: ResolveParent | None, *, recover: bool) -> Backing:
    size = line.sectors * SECTOR
    if line.access == "NOACCESS":
        raise _unsupported(source, "NOACCESS extent", f"extent {line.name!r} that may not be accessed")
    if line.kind == "ZERO":
        return ZeroBacking(size)
    if line.kind not in ("FLAT", "VMFS", "SPARSE", "SESPARSE"):
        raise _unsupported(source, f"{line.kind} extent", f"extent of kind {line.kind}")
    if line.name in (".", "..") or any(letter in line.name for letter in "/\\\0"):
        raise _unsupported(
            source, "extent in another folder", f"extent {line.name[:80]!r}, which is no plain file name"
        )
    if resolve is None:
        raise ParentMismatchError(
            f"{source.name} names its extent {line.name!r}, and there is no way to open it",
            path=source.name,
            hint="open the image by its path",
        )
    file = Source(resolve([line.name], format="raw"))
    try:
        if line.kind in ("FLAT", "VMFS"):
            return _flat(file, line, size, recover=recover)
        if line.kind == "SESPARSE":
            return _space_efficient(file, size, recover=recover)
        header, damage, start = _header(file, recover=recover)
        _capacity(file, header, size)
        return _sparse(file, header, size, start, damage, recover=recover)
    except BaseException:
        file.close()
        raise


def _flat(file: Source, line: ExtentLine, size: int, *, recover: bool) -> FlatBacking:
    start = line.offset * SECTOR
    backing = FlatBacking(file, size, start)
    if start + size > file.size:
        message = f"it has {file.size} bytes, the descriptor wants {size} at {start}"
        if not recover:
            raise _broken(file, "flat extent", file.size, message)
        there = max(0, file.size - start)
        backing.damage.append(Finding("flat extent", file.size, message, Extent(there, size - there)))
    return backing


def _hosted(source: Source, *, recover: bool) -> Opened:
    """A sparse extent that is the file itself."""
    header, damage, start = _header(source, recover=recover)
    descriptor = None
    size = header.capacity * SECTOR
    if header.descriptor_offset:
        offset = header.descriptor_offset * SECTOR
        length = header.descriptor_size * SECTOR
        if not 0 < length <= structs.MAX_DESCRIPTOR or offset + length > source.size:
            raise _broken(source, "descriptor", offset, f"it has {length} bytes, the file {source.size}")
        descriptor = parse(source.pread(length, offset), source.name, offset)
        lines = descriptor.extents
        if len(lines) != 1 or lines[0].kind != "SPARSE":
            raise _unsupported(
                source, "embedded descriptor", "a descriptor in an extent that is not the whole disk"
            )
        size = lines[0].sectors * SECTOR
        _capacity(source, header, size)
    else:
        _alone(source, recover=recover)
    backing = _sparse(source, header, size, start, damage, recover=recover)
    whole = descriptor is not None and not isinstance(backing.tables, ScannedTables)
    return Opened(descriptor, (backing,), complete=whole)


def _alone(source: Source, *, recover: bool) -> None:
    if not recover:
        raise CorruptImageError(
            f"{source.name} is a part of a disk: it has no descriptor",
            path=source.name,
            structure="descriptor",
            hint="open the .vmdk file that names it, or this part alone with recover=True",
        )


def _header(source: Source, *, recover: bool) -> tuple[SparseHeader, list[Finding], int]:
    """The header that counts, what is wrong with it, and where the first marker of a stream lies."""
    damage: list[Finding] = []
    first = SparseHeader.unpack(source.pread(min(SECTOR, source.size), 0))
    if first.magic != structs.MAGIC:
        raise _broken(source, "header", 0, f"it begins with {first.magic!r}")
    _check(source, first, 0)
    if first.directory_offset != structs.GD_AT_END:
        return first, damage, first.overhead * SECTOR
    try:
        footer = _footer(source)
        # The place of the directory is all that may differ.
        for name in ("capacity", "grain_size", "table_entries", "flags", "compression", "version"):
            if getattr(first, name) != getattr(footer, name):
                message = f"{name} is {getattr(footer, name)}, the header says {getattr(first, name)}"
                raise _broken(source, "footer", source.size - 2 * SECTOR, message)
    except CorruptImageError as exc:
        if not recover:
            raise
        damage.append(Finding(exc.structure, exc.offset, str(exc)))
        return first, damage, first.overhead * SECTOR
    # Other than a header, a footer need not know where the descriptor lies.
    values = {name: getattr(first, name) for name in SparseHeader.OFFSETS}
    values["directory_offset"] = footer.directory_offset
    return SparseHeader(**values), damage, first.overhead * SECTOR


def _footer(source: Source) -> SparseHeader:
    """The footer of a stream: marker, header, end of stream."""
    offset = source.size - 3 * SECTOR
    if offset < SECTOR or source.size % SECTOR:
        raise _broken(source, "footer", max(0, offset), f"it was cut off: {source.size} bytes are there")
    data = source.pread(3 * SECTOR, offset)
    marker, end = Marker.unpack(data), Marker.unpack(data, 2 * SECTOR)
    footer = SparseHeader.unpack(data, SECTOR)
    if (
        (marker.size, marker.kind) != (0, structs.FOOTER)
        or (end.value, end.size, end.kind) != (0, 0, structs.END_OF_STREAM)
        or footer.magic != structs.MAGIC
    ):
        raise _broken(source, "footer", offset, "the stream does not end in footer and end marker")
    _check(source, footer, offset + SECTOR)
    if footer.directory_offset == structs.GD_AT_END:
        raise _broken(source, "footer", offset + SECTOR, "it does not say where the grain directory lies")
    return footer


def _check(source: Source, header: SparseHeader, offset: int) -> None:
    if header.version not in structs.VERSIONS:
        raise _unsupported(source, f"version {header.version}", f"an extent of version {header.version}")
    unknown = header.flags & structs.INCOMPATIBLE & ~(structs.COMPRESSED | structs.MARKERS)
    if unknown:
        raise _unsupported(source, f"flags {unknown:#x}", f"an extent with flags {header.flags:#x}")
    if header.flags & structs.CHECK_NEWLINES and header.newlines != structs.NEWLINES:
        message = f"its newlines are {header.newlines!r}: it was transferred as text"
        raise _broken(source, "header", offset, message)
    packed = bool(header.flags & structs.COMPRESSED)
    if header.compression > structs.DEFLATE or packed != (header.compression == structs.DEFLATE):
        raise _unsupported(
            source, f"compression {header.compression}", f"compression {header.compression} of an extent"
        )
    grain = header.grain_size * SECTOR
    if not is_power_of_two(header.grain_size) or grain > _MOST_GRAIN:
        raise _broken(source, "header", offset, f"a grain has {header.grain_size} sectors")
    if not 0 < header.table_entries <= structs.TABLE_ENTRIES:
        raise _broken(source, "header", offset, f"a grain table has {header.table_entries} entries")
    if not 0 < header.capacity <= _MOST_CAPACITY:
        raise _broken(source, "header", offset, f"the extent has {header.capacity} sectors")
    if header.overhead * SECTOR > source.size:
        message = f"its first grain lies at byte {header.overhead * SECTOR}, the file has {source.size}"
        raise _broken(source, "header", offset, message)


def _capacity(source: Source, header: SparseHeader, size: int) -> None:
    """Hold the extent's size against that of its descriptor, which may leave out the rest of a grain."""
    capacity = header.capacity * SECTOR
    if not size <= capacity <= round_up(size, header.grain_size * SECTOR):
        raise _broken(source, "header", 0, f"it has {capacity} bytes, the descriptor says {size}")


def _sparse(
    source: Source, header: SparseHeader, size: int, start: int, damage: list[Finding], *, recover: bool
) -> SparseBacking:
    tables: Tables
    if damage and header.directory_offset == structs.GD_AT_END:
        tables = ScannedTables(source, header)
    else:
        try:
            tables = HostedTables(source, header, recover=recover)
        except CorruptImageError as exc:
            if not (recover and header.flags & structs.MARKERS):
                raise
            damage.append(Finding(exc.structure, exc.offset, str(exc)))
            tables = ScannedTables(source, header)
    backing: SparseBacking
    if header.flags & structs.COMPRESSED:
        backing = StreamBacking(source, size, tables, header)
    else:
        backing = SparseBacking(source, size, tables)
    if header.unclean:
        damage.append(Finding("header", 72, "the extent was not closed: its tables may be behind its data"))
    backing.damage += damage
    return backing


def _space_efficient(source: Source, size: int | None, *, recover: bool) -> SparseBacking:
    header = SeHeader.unpack(source.pread(min(SECTOR, source.size), 0))
    if header.magic != structs.SE_MAGIC:
        raise _broken(source, "constant header", 0, f"it begins with {header.magic:#x}")
    if header.version != structs.SE_VERSION or header.flags:
        raise _unsupported(
            source,
            f"seSparse version {header.version:#x}, flags {header.flags:#x}",
            f"a space-efficient extent of version {header.version:#x} with flags {header.flags:#x}",
        )
    for name, value in (("grain", header.grain_size), ("grain table", header.table_size)):
        if not is_power_of_two(value) or value > 1 << 15:
            raise _broken(source, "constant header", 0, f"a {name} has {value} sectors")
    if not 0 < header.capacity <= _MOST_CAPACITY:
        raise _broken(source, "constant header", 0, f"the extent has {header.capacity} sectors")
    for name in ("tables_offset", "tables_size", "grains_offset", "directory_offset", "volatile_offset"):
        if getattr(header, name) > _MOST_CAPACITY:
            raise _broken(source, "constant header", 0, f"{name} is {getattr(header, name)} sectors")
    damage: list[Finding] = []
    offset = header.volatile_offset * SECTOR
    volatile = SeVolatile.unpack(source.pread(SeVolatile.SIZE, offset))
    if volatile.magic != structs.SE_VOLATILE_MAGIC:
        if not recover:
            raise _broken(source, "volatile header", offset, f"it begins with {volatile.magic:#x}")
        damage.append(Finding("volatile header", offset, f"it begins with {volatile.magic:#x}"))
    elif volatile.replay_journal:
        message = "what its journal holds was not written to its place"
        if not recover:
            raise _unsupported(
                source, "seSparse journal", "a space-efficient extent whose journal is not empty"
            )
        damage.append(Finding("volatile header", offset, message))
    if size is not None and header.capacity * SECTOR != size:
        message = f"it has {header.capacity * SECTOR} bytes, the descriptor says {size}"
        raise _broken(source, "constant header", 0, message)
    backing = SparseBacking(source, header.capacity * SECTOR, SeTables(source, header))
    backing.kind = "SESPARSE"
    backing.damage += damage
    return backing


def _unsupported(source: Source, feature: str, what: str) -> UnsupportedFeatureError:
    return UnsupportedFeatureError(f"{source.name}: {what} cannot be read", path=source.name, feature=feature)


def _broken(source: Source, structure: str, offset: int | None, message: str) -> CorruptImageError:
    return CorruptImageError(
        f"{source.name}: {structure}: {message}", path=source.name, structure=structure, offset=offset
    )
