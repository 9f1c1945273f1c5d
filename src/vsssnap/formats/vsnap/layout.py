"""Header and footer: the geometry of an image and what makes it complete.

Source: docs/formats/vsnap.md, sections 3, 10 and 11.
"""

from __future__ import annotations

from dataclasses import dataclass

from vsssnap._units import is_power_of_two
from vsssnap.errors import CorruptImageError, UnsupportedFeatureError
from vsssnap.formats.vsnap import structs
from vsssnap.formats.vsnap.codec import DIGESTS
from vsssnap.formats.vsnap.structs import HEAD, FooterBody, HeaderBody, Reference

_NAME_SIZE = 48


class Geometry:
    """Sizes of an image and the arithmetic on them.

    Attributes:
        size: Bytes of the volume.
        chunk_size: Bytes of a chunk.
        cell_size: Bytes of a cell.
        segment_size: Plain bytes of a segment.
        chunk_count: Chunks of the volume.
        width: Bytes of a cell map.
        levels: Levels of the index.
        digest: Number of the digest.
    """

    __slots__ = (
        "cell_count", "cell_size", "cells_per_chunk", "chunk_count", "chunk_size", "digest", "header",
        "levels",
        "segment_size", "size", "width",
    )  # fmt: skip

    def __init__(self, header: HeaderBody) -> None:
        self.header = header
        self.size = header.size
        self.chunk_size = header.chunk_size
        self.cell_size = header.cell_size
        self.segment_size = header.segment_size
        self.digest = header.digest
        self.chunk_count = -(-self.size // self.chunk_size)
        self.cell_count = -(-self.size // self.cell_size)
        self.cells_per_chunk = self.chunk_size // self.cell_size
        self.width = -(-self.cells_per_chunk // 8)
        self.levels = 1
        while structs.FAN_OUT**self.levels < self.chunk_count:
            self.levels += 1

    def length(self, chunk: int) -> int:
        """Bytes of a chunk; the last may be shorter."""
        return min(self.chunk_size, self.size - chunk * self.chunk_size)

    def cells(self, chunk: int) -> int:
        """Cells of a chunk."""
        return min(self.cells_per_chunk, self.cell_count - chunk * self.cells_per_chunk)

    def plain_length(self, chunk: int, bits: int) -> int:
        """Bytes of the cells named by ``bits``; only the volume's last cell may be short."""
        total = bits.bit_count() * self.cell_size
        cells = self.cells(chunk)
        if bits >> (cells - 1) & 1:
            total -= cells * self.cell_size - self.length(chunk)
        return total

    def page_count(self, level: int) -> int:
        """Pages of a level."""
        span: int = structs.FAN_OUT ** (level + 1)
        return -(-self.chunk_count // span)

    def entry_count(self, level: int, page: int) -> int:
        """Entries of a page: 512, or fewer in the last page of its level."""
        below = self.chunk_count if level == 0 else self.page_count(level - 1)
        return min(structs.FAN_OUT, below - page * structs.FAN_OUT)

    def same_grid(self, other: Geometry) -> bool:
        """Whether images of both geometries can be of one chain (section 8)."""
        names = ("size", "sector_size", "chunk_size", "cell_size", "digest")
        return all(getattr(self.header, name) == getattr(other.header, name) for name in names)


@dataclass(frozen=True, slots=True)
class Footer:
    """A valid footer copy: its fields and the header it carries."""

    body: FooterBody
    header: HeaderBody
    names: dict[tuple[int, int], str]


def pack_header(header: HeaderBody) -> bytes:
    """The header's body with the names of the features that are set."""
    rows = []
    for index, word in enumerate((header.incompatible, header.compatible, header.autoclear)):
        for bit in range(64):
            if word >> bit & 1:
                name = structs.FEATURE_NAMES[index, bit].encode("ascii")
                rows.append(bytes([index, bit]) + name.ljust(_NAME_SIZE - 2, b"\0"))
    return header.pack() + b"".join(rows)


def parse_header(body: bytes, *, exact: bool = True) -> tuple[HeaderBody, dict[tuple[int, int], str]]:
    """Check a header's body in the order of section 11.

    Args:
        body: The bytes.
        exact: Whether they must end where the header does.

    Raises:
        CorruptImageError: a field is out of its bounds.
        UnsupportedFeatureError: another format number, or an unknown incompatible feature.
    """
    header = HeaderBody.unpack(body)
    if header.format != structs.FORMAT:
        raise UnsupportedFeatureError(
            f"vsnap format {header.format}; this version reads format {structs.FORMAT} only",
            feature=f"format {header.format}",
            hint="use the version of vsssnap that wrote it",
        )
    end = HeaderBody.SIZE + header.name_count * _NAME_SIZE
    if header.name_count > structs.MAX_FEATURE_NAMES or end > len(body) or (exact and end != len(body)):
        raise _broken(f"{header.name_count} feature names in {len(body)} bytes")
    names = {}
    for at in range(HeaderBody.SIZE, end, _NAME_SIZE):
        name = body[at + 2 : at + _NAME_SIZE].rstrip(b"\0").decode("utf-8", "replace")
        names[body[at], body[at + 1]] = name
    unknown = header.incompatible & ~structs.KNOWN_INCOMPATIBLE
    if unknown:
        known = {**structs.FEATURE_NAMES, **names}
        wanted = ", ".join(known.get((0, bit), f"bit {bit}") for bit in range(64) if unknown >> bit & 1)
        raise UnsupportedFeatureError(
            f"the image needs {wanted}, which this version does not know",
            feature=wanted,
            hint="use a newer vsssnap",
        )
    if header.digest not in DIGESTS:
        raise UnsupportedFeatureError(
            f"digest {header.digest} is unknown",
            feature=f"digest {header.digest}",
            hint="use a newer vsssnap",
        )
    _check_geometry(header)
    for at in range(HeaderBody.SIZE, end, _NAME_SIZE):
        _check_name(body[at], body[at + 1], body[at + 2 : at + _NAME_SIZE])
    if any((word, bit) not in names for word, bit in _bits(header)) or header.reserved:
        raise _broken("a feature has no name, or reserved bytes are set")
    if bool(header.incompatible & structs.CHAIN) != any(header.parent_id + header.parent_root):
        raise _broken("parent and feature bit contradict each other")
    return header, names


def _check_name(word: int, bit: int, padded: bytes) -> None:
    """Hold a row of the table of names to section 3."""
    name = padded.rstrip(b"\0")
    try:
        sound = word <= 2 and bit < 64 and bool(name.decode("utf-8")) and b"\0" not in name
    except UnicodeDecodeError:
        sound = False
    if not sound:
        raise _broken(f"feature name {name!r} of word {word}, bit {bit}")


def _bits(header: HeaderBody) -> list[tuple[int, int]]:
    words = (header.incompatible, header.compatible, header.autoclear)
    return [(index, bit) for index, word in enumerate(words) if word for bit in range(64) if word >> bit & 1]


def _check_geometry(header: HeaderBody) -> None:
    chunk = header.chunk_size
    for name, least, most in (
        ("sector_size", 1, 1 << 24),
        ("chunk_size", 1 << 16, 1 << 24),
        ("cell_size", 1 << 12, chunk),
        ("segment_size", 1 << 16, min(chunk, 1 << 23)),
    ):
        value = getattr(header, name)
        if not least <= value <= most or not is_power_of_two(value):
            raise _broken(f"{name} {value} is no power of two in {least}..{most}")
    if header.size > structs.MAX_VOLUME or header.fan_out != structs.FAN_OUT:
        raise _broken(f"volume of {header.size} bytes, fan-out {header.fan_out}")


def pack_footer(footer: FooterBody, header: bytes) -> bytes:
    """The body of a footer frame."""
    return (footer.pack() + header).ljust(structs.FOOTER_SIZE - HEAD, b"\0")


def parse_footer(body: bytes, offset: int, size: int) -> Footer:
    """Check a footer's body (sections 10 and 11); its box has been checked.

    Args:
        body: Behind the fixed part of the frame.
        offset: Where the frame begins.
        size: Bytes of the file.

    Raises:
        CorruptImageError: a field is out of its bounds.
        UnsupportedFeatureError: see `parse_header`.
    """
    if len(body) != structs.FOOTER_SIZE - HEAD:
        raise _broken(f"footer body of {len(body)} bytes", "footer")
    found = FooterBody.unpack(body)
    end = FooterBody.SIZE + found.header_length
    if end > len(body) or body[end:] != bytes(len(body) - end):
        raise _broken(f"header copy of {found.header_length} bytes, or bytes behind it", "footer")
    header, names = parse_header(body[FooterBody.SIZE : end])
    place = size - structs.TAIL + found.copy * structs.FOOTER_SIZE
    reserved = (
        found.reserved_1 or found.reserved_2 or found.reserved_3 or any(found.reserved_4 + found.reserved_5)
    )
    if found.total_length != size or found.copy > 1 or offset != place or not found.sequence or reserved:
        raise _broken(
            f"footer copy {found.copy} of a file of {found.total_length} bytes lies at {offset}", "footer"
        )
    chain = bool(header.incompatible & structs.CHAIN)
    data_end = size - structs.TAIL
    places = [(found.metadata_offset, found.metadata_length)]
    if chain:
        places.append((found.table_offset, found.table_length))
    elif found.table_offset or found.table_length or found.file_number:
        raise _broken("a file table without a parent", "footer")
    root = check_reference(found.root)
    if root.kind == structs.PAGE and root.file == found.file_number:
        places.append((root.offset, root.length))
    for at, length in places:
        if at < HEAD + HeaderBody.SIZE or length < HEAD or at + length > data_end:
            raise _broken(f"reference to {length} bytes at {at}", "footer")
    if chain and not 0 < found.file_number <= structs.MAX_FILES:
        raise _broken(f"file number {found.file_number}", "footer")
    if root.file > found.file_number:
        raise _broken(f"root in file {root.file} of {found.file_number + 1}", "footer")
    if root.kind != structs.ZERO and not header.size:
        raise _broken("a root of another kind than ZERO in a volume of no bytes", "footer")
    return Footer(found, header, names)


def check_reference(found: Reference) -> Reference:
    """Hold a reference to the rules that need no file (section 6).

    Raises:
        CorruptImageError: it breaks one.
    """
    page = found.kind == structs.PAGE
    if (
        found.reserved_1
        or found.reserved_2
        or found.reserved_3
        or not (page or found.kind <= structs.EXCLUDED)
    ):
        raise _broken(f"reference of kind {found.kind}", "index reference")
    if page and (found.length < HEAD or found.length > structs.MAX_BOX or found.file > structs.MAX_FILES):
        raise _broken(f"page of {found.length} bytes in file {found.file}", "index reference")
    if not page and (found.file or found.offset or found.length):
        raise _broken(f"reference of kind {found.kind} with a page", "index reference")
    return found


def _broken(message: str, structure: str = "header") -> CorruptImageError:
    return CorruptImageError(
        f"{structure}: {message}", structure=structure, hint="restore the file from another copy"
    )
