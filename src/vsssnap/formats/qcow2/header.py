"""The header of a QCOW2 image: parsed and held against its rules, or laid out.

Source: QEMU, docs/interop/qcow2.txt, sections "Header" and "Header extensions".
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from vsssnap._units import round_up
from vsssnap.errors import CorruptImageError, UnsupportedFeatureError
from vsssnap.formats.qcow2 import structs
from vsssnap.formats.qcow2.structs import BitmapsHead, ExtensionHead, FeatureName, Header, HeaderV3, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vsssnap.formats.storage import Storage


@dataclass(frozen=True, slots=True)
class Lineage:
    """What our own header extension says.

    Attributes:
        identity: Of the image.
        name_check: Of the backing file's name that the parent's facts belong to.
        parent: ``"format:identity"`` of the parent, or "" if it has no identity.
        parent_size: Bytes of its volume.
    """

    identity: UUID
    name_check: bytes = bytes(8)
    parent: str = ""
    parent_size: int = 0


def name_check(backing: str) -> bytes:
    """The short digest by which a changed backing file's name is noticed."""
    return hashlib.blake2b(backing.encode("utf-8", "surrogateescape"), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Layout:
    """A header whose numbers are inside the format's bounds and the file.

    Attributes:
        fields: The fixed part, as in the file.
        features: The part that version 3 adds; what version 2 implies for it.
        compression: `structs.ZLIB` or `structs.ZSTD`.
        backing: Name of the backing file, or "".
        backing_format: Its format in qemu's words, or "" if none is recorded.
        data_file: Name of the external data file, or "".
        bitmaps: Where the bitmap directory is, or None.
        lineage: Our own extension, or None.
    """

    fields: Header
    features: HeaderV3
    compression: int = structs.ZLIB
    backing: str = ""
    backing_format: str = ""
    data_file: str = ""
    bitmaps: BitmapsHead | None = None
    lineage: Lineage | None = None

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.fields.cluster_bits

    @property
    def extended(self) -> bool:
        """Whether L2 entries have 16 bytes and clusters have subclusters."""
        return bool(self.features.incompatible_features & structs.EXTENDED_L2)

    @property
    def external(self) -> bool:
        """Whether guest clusters lie in another file."""
        return bool(self.features.incompatible_features & structs.DATA_FILE)

    @property
    def dirty(self) -> bool:
        """Whether refcounts may be out of date."""
        return bool(self.features.incompatible_features & structs.DIRTY)

    @property
    def l2_entries(self) -> int:
        """Guest clusters that one L2 table maps."""
        return self.cluster_size // (16 if self.extended else 8)

    def l1_needed(self, size: int) -> int:
        """L1 entries that a volume of ``size`` bytes takes."""
        return -(-size // (self.cluster_size * self.l2_entries))

    def feature_words(self) -> list[str]:
        """The feature bits that are set, in the specification's words."""
        words = {(kind, bit): name for kind, bit, name in structs.FEATURE_NAMES}
        masks = (
            self.features.incompatible_features,
            self.features.compatible_features,
            self.features.autoclear_features,
        )
        return [
            words.get((kind, bit), f"{('incompatible', 'compatible', 'autoclear')[kind]} bit {bit}")
            for kind, mask in enumerate(masks)
            for bit in range(64)
            if mask >> bit & 1
        ]


def corrupt(
    storage: Storage, message: str, structure: str = "header", offset: int | None = 0, hint: str = ""
) -> CorruptImageError:
    """The error for a rule that an image breaks."""
    return CorruptImageError(
        f"{storage.name}: {message}", path=storage.name, structure=structure, offset=offset, hint=hint
    )


def unsupported(storage: Storage, message: str, feature: str, hint: str = "") -> UnsupportedFeatureError:
    """The error for an image that is sound and not for us."""
    return UnsupportedFeatureError(
        f"{storage.name}: {message}", path=storage.name, feature=feature, hint=hint
    )


def parse(storage: Storage, *, recover: bool = False) -> Layout:
    """Read and check a header.

    Args:
        storage: The image.
        recover: Take an image that is marked corrupt, and pass over extensions that are damaged.

    Raises:
        CorruptImageError: it breaks a rule, or is marked corrupt.
        UnsupportedFeatureError: it is of another version, encrypted, or uses an unknown feature.
    """
    size = storage.size
    head = storage.pread(min(size, structs.HEADER_V3 + 8), 0)
    if not head.startswith(structs.MAGIC):
        blank = not head.strip(b"\0")
        raise corrupt(
            storage,
            "there is no header: it is incomplete" if blank else f"it begins with {head[:4]!r}, no QCOW2",
            hint="it was cut off while it was written; save it again" if blank else "",
        )
    fields = Header.unpack(head)
    if fields.version not in (2, 3):
        raise unsupported(storage, f"version {fields.version} of QCOW", f"version {fields.version}")
    features, compression = _features(storage, fields, head)
    bits = fields.cluster_bits
    if not structs.MIN_CLUSTER_BITS <= bits < 64:
        raise corrupt(storage, f"cluster_bits is {bits}, below {structs.MIN_CLUSTER_BITS}")
    if bits > structs.MAX_CLUSTER_BITS:
        raise unsupported(storage, f"clusters of 2**{bits} bytes, above 2 MiB", f"cluster_bits {bits}")
    first = storage.pread(min(size, 1 << bits), 0)
    if not structs.HEADER_V3 <= features.header_length <= len(first) and fields.version == 3:
        raise corrupt(storage, f"header_length is {features.header_length}, outside 104..{len(first)}")
    extensions: dict[int, bytes] = {}
    try:
        for kind, data in _extensions(storage, first, fields, features):
            extensions.setdefault(kind, data)
    except CorruptImageError:
        if not recover:
            raise
    _gate(storage, fields, features, extensions.get(structs.EXT_FEATURE_NAMES, b""), recover=recover)
    layout = Layout(
        fields,
        features,
        compression,
        _backing(storage, fields, first),
        _text(extensions.get(structs.EXT_BACKING_FORMAT, b"")) if fields.backing_file_offset else "",
        _text(extensions.get(structs.EXT_DATA_FILE, b"")),
        _bitmaps(extensions),
        _lineage(extensions),
    )
    _geometry(storage, layout)
    return layout


def _features(storage: Storage, fields: Header, head: bytes) -> tuple[HeaderV3, int]:
    if fields.version == 2:
        return HeaderV3(0, 0, 0, 4, Header.SIZE), structs.ZLIB
    features = HeaderV3.unpack(head, Header.SIZE)
    compression = structs.ZLIB
    if features.header_length > structs.COMPRESSION_AT:
        compression = int.from_bytes(head[structs.COMPRESSION_AT : structs.COMPRESSION_AT + 1], "big")
    marked = bool(features.incompatible_features & structs.COMPRESSION_TYPE)
    if marked != (compression != structs.ZLIB):
        raise corrupt(storage, f"compression type {compression}, and its feature bit says {int(marked)}")
    if compression not in structs.COMPRESSION_NAMES:
        raise unsupported(
            storage, f"compression type {compression} is unknown", f"compression type {compression}"
        )
    return features, compression


def _extensions(
    storage: Storage, first: bytes, fields: Header, features: HeaderV3
) -> Iterator[tuple[int, bytes]]:
    """The header extensions, up to their end mark, the backing file's name or the cluster's end."""
    at, end = features.header_length, len(first)
    if fields.backing_file_offset:
        end = min(end, max(at, fields.backing_file_offset))
    while at + ExtensionHead.SIZE <= end:
        head = ExtensionHead.unpack(first, at)
        if head.type == structs.END:
            return
        data = at + ExtensionHead.SIZE
        if head.length > end - data:
            raise corrupt(
                storage,
                f"header extension {head.type:#010x} of {head.length} bytes, {end - data} are left",
                "header extension",
                at,
            )
        yield head.type, first[data : data + head.length]
        at = data + round_up(head.length, 8)


def _gate(storage: Storage, fields: Header, features: HeaderV3, names: bytes, *, recover: bool) -> None:
    """Refuse what cannot be read rightly."""
    unknown = features.incompatible_features & ~structs.KNOWN_INCOMPATIBLE
    if unknown:
        told = {}
        for at in range(0, len(names) - FeatureName.SIZE + 1, FeatureName.SIZE):
            entry = FeatureName.unpack(names, at)
            if entry.kind == 0:
                told[entry.bit] = _text(entry.name.rstrip(b"\0"))
        words = [
            f"{told[bit]!r} (bit {bit})" if told.get(bit) else f"bit {bit}"
            for bit in range(64)
            if unknown >> bit & 1
        ]
        raise unsupported(
            storage,
            f"unknown incompatible feature {', '.join(words)}",
            words[0],
            "a newer version may read it",
        )
    if fields.crypt_method in (structs.AES, structs.LUKS):
        name = "LUKS" if fields.crypt_method == structs.LUKS else "AES"
        raise unsupported(
            storage,
            f"its payload is encrypted ({name})",
            f"{name} encryption",
            "decrypt it with: qemu-img convert --image-opts with the secret",
        )
    if fields.crypt_method:
        raise corrupt(storage, f"crypt_method is {fields.crypt_method}")
    if features.incompatible_features & structs.CORRUPT and not recover:
        raise corrupt(
            storage,
            "it is marked corrupt",
            hint="repair it with qemu-img check -r all, or pass recover=True to read what can be read",
        )
    if features.refcount_order > structs.MAX_REFCOUNT_ORDER:
        raise corrupt(storage, f"refcount_order is {features.refcount_order}, above 6")


def _geometry(storage: Storage, layout: Layout) -> None:
    fields = layout.fields
    if layout.extended and fields.cluster_bits < structs.MIN_EXTENDED_BITS:
        raise corrupt(storage, f"extended L2 entries with clusters of {layout.cluster_size} bytes")
    if fields.size >= 1 << 63:
        raise corrupt(storage, f"a virtual disk of {fields.size} bytes")
    if layout.external and layout.backing and layout.features.autoclear_features & structs.RAW_DATA_FILE:
        raise corrupt(storage, "a raw external data file and a backing file exclude each other")
    if fields.l1_size < layout.l1_needed(fields.size):
        raise corrupt(
            storage,
            f"an L1 table of {fields.l1_size} entries for {fields.size} bytes, which take"
            f" {layout.l1_needed(fields.size)}",
        )
    check_l1(storage, layout, fields.l1_table_offset, fields.l1_size)


def check_l1(storage: Storage, layout: Layout, offset: int, entries: int) -> None:
    """Hold an L1 table's place against the file.

    Raises:
        CorruptImageError: it is too long, not aligned or not all in the file.
    """
    if entries * 8 > structs.MAX_L1:
        raise corrupt(
            storage, f"an L1 table of {entries} entries, above {structs.MAX_L1 // 8}", "L1 table", offset
        )
    if entries and (offset % layout.cluster_size or offset + entries * 8 > storage.size):
        raise corrupt(
            storage,
            f"an L1 table of {entries * 8} bytes at {offset} in a file of {storage.size} bytes",
            "L1 table",
            offset,
        )


def _backing(storage: Storage, fields: Header, first: bytes) -> str:
    offset, length = fields.backing_file_offset, fields.backing_file_size
    if not offset:
        return ""
    if length > structs.MAX_NAME or offset > len(first) or length > len(first) - offset:
        raise corrupt(storage, f"a backing file's name of {length} bytes at {offset}")
    return _text(first[offset : offset + length])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _bitmaps(extensions: dict[int, bytes]) -> BitmapsHead | None:
    data = extensions.get(structs.EXT_BITMAPS, b"")
    return BitmapsHead.unpack(data) if len(data) >= BitmapsHead.SIZE else None


def _lineage(extensions: dict[int, bytes]) -> Lineage | None:
    data = extensions.get(structs.EXT_ORIGIN, b"")
    if len(data) < Origin.SIZE:
        return None
    found = Origin.unpack(data)
    if found.version != 1 or found.parent_length > len(data) - Origin.SIZE:
        return None  # of a later version
    parent = _text(data[Origin.SIZE : Origin.SIZE + found.parent_length])
    return Lineage(UUID(bytes=found.identity), found.name_check, parent, found.parent_size)


def build(layout: Layout) -> bytes:
    """The first cluster: header, extensions and the backing file's name.

    Raises:
        CorruptImageError: never for what `parse` gave back; the name must fit (`room_for`).
    """
    parts = []
    if layout.backing_format:
        parts.append((structs.EXT_BACKING_FORMAT, layout.backing_format.encode("ascii")))
    if layout.lineage is not None:
        parts.append((structs.EXT_ORIGIN, _packed(layout.lineage)))
    names = b"".join(
        FeatureName(k, b, n.encode().ljust(46, b"\0")).pack() for k, b, n in structs.FEATURE_NAMES
    )
    name = layout.backing.encode("utf-8", "surrogateescape")
    length = structs.HEADER_V3 + 8  # with the compression type and its padding
    tail = sum(8 + round_up(len(data), 8) for _, data in parts) + 8 + len(name)
    if length + tail + 8 + len(names) <= layout.cluster_size:
        parts.append((structs.EXT_FEATURE_NAMES, names))  # left out where clusters are tiny
    body = b"".join(
        ExtensionHead(kind, len(data)).pack() + data.ljust(round_up(len(data), 8), b"\0")
        for kind, data in parts
    )
    body += ExtensionHead(structs.END, 0).pack()
    place = length + len(body) if name else 0
    head = dataclasses.replace(layout.fields, backing_file_offset=place, backing_file_size=len(name))
    start = head.pack() + layout.features.pack() + bytes([layout.compression]) + bytes(7)
    return (start + body + name).ljust(layout.cluster_size, b"\0")


def _packed(lineage: Lineage) -> bytes:
    parent = lineage.parent.encode("utf-8")
    head = Origin(1, 0, lineage.identity.bytes, lineage.name_check, lineage.parent_size, len(parent), 0)
    return head.pack() + parent


def room_for(cluster_size: int, backing_format: str, lineage: Lineage) -> int:
    """Bytes that a backing file's name may have in the first cluster."""
    used = structs.HEADER_V3 + 8 + 8 + 8 + round_up(len(_packed(lineage)), 8)
    if backing_format:
        used += 8 + round_up(len(backing_format), 8)
    return min(structs.MAX_NAME, cluster_size - used)
