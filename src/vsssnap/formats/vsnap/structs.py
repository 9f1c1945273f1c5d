"""Structures of `.vsnap` images, format 0.

Source: docs/formats/vsnap.md; the section is named at each record.  All integers are
little-endian; sizes and offsets are bytes.
"""

from __future__ import annotations

from typing import Final

from vsssnap._record import U8, U16, U32, U64, Bytes8, Bytes16, Bytes32, Record

FORMAT: Final = 0
SKIPPABLE: Final = 0x184D2A5B  # the one of sixteen that we use; RFC 8878, 3.1.2
MAGIC: Final = b"\x8eVSNAP\r\n"
MARK: Final = SKIPPABLE.to_bytes(4, "little")
HEAD: Final = 64  # the fixed part of every frame
CHECK_AT: Final = 48
FOOTER_SIZE: Final = 4096
TAIL: Final = 2 * FOOTER_SIZE
FAN_OUT: Final = 512

MAX_VOLUME: Final = 1 << 60
MAX_BOX: Final = 1 << 29
MAX_PIECES: Final = 16
MAX_UNREADABLE: Final = 32768  # ranges of one chunk
MAX_RUNS: Final = 65536  # of one state frame, before those of its last chunk
MAX_NAME: Final = 4096
MAX_PAYLOAD: Final = 1 << 28  # JSON, and all attachments together
MAX_ATTACHMENTS: Final = 4096
MAX_FILES: Final = 65535
MAX_FEATURE_NAMES: Final = 32
STATE_SPAN: Final = 1 << 30  # stored plain bytes between two state frames

# Section 2: frame types.
HEADER: Final = 1
DATA_FRAME: Final = 2
STATE_FRAME: Final = 3
INDEX_PAGE: Final = 4
FILE_TABLE: Final = 5
METADATA: Final = 6
ATTACHMENT: Final = 7
CHECKPOINT: Final = 8
PARITY: Final = 9
KEY_SLOTS: Final = 10
VOLUME_END: Final = 11
FOOTER: Final = 15

TYPE_NAMES: Final = {
    HEADER: "header",
    DATA_FRAME: "data frame",
    STATE_FRAME: "state frame",
    INDEX_PAGE: "index page",
    FILE_TABLE: "file table",
    METADATA: "metadata",
    ATTACHMENT: "attachment",
    CHECKPOINT: "checkpoint",
    PARITY: "parity",
    KEY_SLOTS: "key slots",
    VOLUME_END: "volume end",
    FOOTER: "footer",
}
WITH_BODY: Final = frozenset(
    {HEADER, DATA_FRAME, STATE_FRAME, INDEX_PAGE, FILE_TABLE, METADATA, ATTACHMENT, FOOTER}
)

CRITICAL: Final = 1
OUTER: Final = 2
ENCRYPTED: Final = 4

# Section 1: states of a cell.
ZERO: Final = 0
HOLE: Final = 1
EXCLUDED: Final = 2
DATA: Final = 3
PARENT: Final = 4

MIXED: Final = 3  # kind of a leaf entry
PAGE: Final = 4  # kind of a reference
LOST: Final = 255  # never in a file: what no sound frame tells of

# Section 3: digests and features.
BLAKE3: Final = 1
SHA256: Final = 2
CHAIN: Final = 1 << 0
ENCRYPTION: Final = 1 << 1
SPLIT: Final = 1 << 2
MOVED: Final = 1 << 3
KNOWN_INCOMPATIBLE: Final = CHAIN
FEATURE_NAMES: Final = {
    (0, 0): "chain",
    (0, 1): "encrypted",
    (0, 2): "split",
    (0, 3): "moved",
    (1, 0): "parity",
    (1, 1): "checkpoints",
    (2, 0): "change position",
}


class FrameHead(Record, size=64, byteorder="<"):
    """What every frame begins with (section 2)."""

    skippable: U32  # 0x184D2A5B
    box_length: U32  # of the box after its first eight bytes
    magic: Bytes8  # 8E "VSNAP" CR LF
    type: U16
    flags: U16  # 1 critical, 2 outer payload, 4 encrypted
    outer_length: U32  # of the Zstandard frames behind the box
    position: U64  # of this frame in the file
    image_id: Bytes16
    check: Bytes16  # XXH3-128, canonical, of the box without this field


class HeaderBody(Record, size=112, byteorder="<"):
    """Body of the header frame (section 3); feature names follow."""

    format: U16
    digest: U16
    sector_size: U32
    size: U64  # of the volume
    chunk_size: U32
    cell_size: U32
    segment_size: U32
    fan_out: U16  # 512
    name_count: U16
    incompatible: U64
    compatible: U64
    autoclear: U64
    parent_id: Bytes16
    parent_root: Bytes32
    reserved: U64


class DataBody(Record, size=64, byteorder="<"):
    """Body of a data frame (section 4); states and the segment table follow."""

    chunk: U64
    origin: Bytes16
    digest: Bytes32  # of the whole plain chunk
    plain_length: U32
    segment_count: U16
    reserved: U16


class StateBody(Record, size=24, byteorder="<"):
    """Body of a state frame (section 5); runs and unreadable ranges follow."""

    first_cell: U64
    cell_count: U64
    run_count: U32
    unreadable_count: U32


class PageBody(Record, size=48, byteorder="<"):
    """Body of an index page (section 6); entries follow, in leaves behind their offsets."""

    level: U8
    reserved_1: U8
    reserved_2: U16
    count: U32
    first_chunk: U64
    value: Bytes32


class Reference(Record, size=56, byteorder="<"):
    """An index page, or one state of everything below (section 6)."""

    kind: U8  # 0 ZERO, 1 HOLE, 2 EXCLUDED, 4 page
    reserved_1: U8
    reserved_2: U16
    file: U32
    offset: U64
    length: U32
    reserved_3: U32
    value: Bytes32


class FileBody(Record, size=60, byteorder="<"):
    """An entry of the file table (section 8); the name follows."""

    image_id: Bytes16
    content_root: Bytes32
    length: U64
    flags: U16  # 1 something reachable lies in it
    name_length: U16


class AttachmentBody(Record, size=8, byteorder="<"):
    """Body of an attachment (section 7); name and bytes follow."""

    encoding: U8  # 0 stored, 1 Zstandard
    reserved: U8
    name_length: U16
    plain_length: U32


class FooterBody(Record, size=192, byteorder="<"):
    """Body of a footer (section 10); the header's body follows, then zeros."""

    total_length: U64
    sequence: U64
    root_head: Bytes8  # a Reference, in three parts
    root_place: Bytes16
    root_value: Bytes32
    copy: U8
    reserved_1: U8
    reserved_2: U16
    header_length: U32
    table_offset: U64
    table_length: U32
    file_number: U32
    metadata_offset: U64
    metadata_length: U32
    reserved_3: U32
    content_root: Bytes32
    data_frames: U64
    plain_bytes: U64
    outer_bytes: U64
    reserved_4: Bytes8
    reserved_5: Bytes16

    @property
    def root(self) -> Reference:
        """The reference to the top page."""
        return Reference.unpack(self.root_head + self.root_place + self.root_value)
